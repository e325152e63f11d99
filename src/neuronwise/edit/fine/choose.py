"""Which neurons FiNE edits: for every target position those that most say what the model says there now."""

from __future__ import annotations

import torch
from torch import Tensor

from neuronwise.edit.fine.batch import Batch
from neuronwise.edit.fine.settings import FineSettings
from neuronwise.errors import MethodError
from neuronwise.locate import Scores, score_all
from neuronwise.model.hooks import Hooks
from neuronwise.model.model import Model
from neuronwise.model.record import Activations, Recorder, require_complete
from neuronwise.model.run import Run, Target
from neuronwise.neurons import Neuron


def observe(batch: Batch) -> list[list[int]]:
    """What the unedited model says at each target position of each request, in one pass.

    The activations at these positions are kept in ``request.steps``.
    """
    model, requests, width = batch.model, batch.requests, max(batch.lengths)
    counts = [len(request.output_ids) for request in requests]
    rows = [
        number * width + batch.row(number, position) for number, count in enumerate(counts) for position in range(count)
    ]
    with Recorder(model.blocks, rows) as recorder, Hooks() as hooks, torch.no_grad():
        batch.answer_rows(hooks)
        best = model.forward(batch.inputs)[0].argmax(-1).tolist()
    require_complete(recorder.passes, model.blocks, 1)
    seen, start, said = recorder.activations(0), 0, []
    for request, count in zip(requests, counts, strict=True):
        request.steps[:] = [_row(seen, start + position) for position in range(count)]
        said.append(best[start : start + count])
        start += count
    return said


def choose(model: Model, request: Run, said: list[int], settings: FineSettings) -> list[Neuron]:
    """The union over target positions of the top n neurons for the token ``said`` there by the unedited model.

    Of routed experts those that the position was routed to, with their router weight. Raises ``MethodError`` for
    settings that leave no neuron.
    """
    targets = [Target(token, position, "") for position, token in enumerate(said)]
    chosen: dict[Neuron, None] = {}
    generator = torch.Generator().manual_seed(settings.seed)
    for scores in score_all(model, request, targets, "contribution"):
        scores = Scores(
            {writer: values for writer, values in scores.items() if _kept(model, writer.layer, settings)},
            scores.activations,
        )
        if not scores:
            raise MethodError("These settings leave no layer with neurons to edit.")
        if settings.neurons == "random":
            scores.update({writer: torch.rand(writer.width, generator=generator) for writer in scores})
        chosen |= dict.fromkeys(scores.top(settings.n).neurons)
    return sorted(chosen)


def _kept(model: Model, layer: int, settings: FineSettings) -> bool:
    return layer == settings.layer if settings.layer is not None else layer < model.num_layers - settings.freeze_last


def _row(seen: Activations, row: int) -> Activations:
    def own(values: Tensor) -> Tensor:
        return values[row : row + 1]

    return Activations(
        {layer: own(values) for layer, values in seen.dense.items()},
        {layer: rows[row : row + 1] for layer, rows in seen.routed.items()},
    )
