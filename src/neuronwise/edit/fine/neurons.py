"""Which neurons FiNE edits: for every target position those that contribute most to what the model says there now."""

from __future__ import annotations

import torch

from neuronwise.edit.fine.request import Batch, Request
from neuronwise.edit.fine.settings import FineSettings
from neuronwise.errors import MethodError
from neuronwise.locate import Scores, score_all
from neuronwise.model.activations import Activations
from neuronwise.model.model import Model
from neuronwise.model.record import Recorder, require_complete
from neuronwise.model.run import Target
from neuronwise.neurons import Neuron


def observe(batch: Batch) -> None:
    """What the unedited model says at each target position of each request (``said``), in one pass.

    The activations at these positions are kept in the request's run.
    """
    model, width = batch.model, max(request.length for request in batch.requests)
    answers = [list(range(request.length))[request.answer_rows] for request in batch.requests]
    flat = [number * width + row for number, rows in enumerate(answers) for row in rows]
    with Recorder(model.blocks, flat) as recorder, torch.no_grad():
        best = model.forward(batch.inputs, rows=answers)[0].argmax(-1).tolist()
    require_complete(recorder.passes, model.blocks, 1)
    seen, start = recorder.activations(0), 0
    for request, rows in zip(batch.requests, answers, strict=True):
        request.run.steps[:] = [_row(seen, start + position) for position in range(len(rows))]
        request.said = best[start : start + len(rows)]
        start += len(rows)


def choose(model: Model, request: Request, settings: FineSettings) -> list[Neuron]:
    """The union over target positions of the top n neurons for the token ``said`` there by the unedited model; with
    ``repeats`` each as often as it was chosen.

    Of routed experts those that the position was routed to, with their router weight. Raises ``MethodError`` for
    settings that leave no neuron.
    """
    targets = [Target(token, position, "") for position, token in enumerate(request.said)]
    chosen: list[Neuron] = []
    generator = torch.Generator().manual_seed(settings.seed)
    for every in score_all(model, request.run, targets, "contribution"):
        scores = Scores({writer: values for writer, values in every.items() if _kept(model, writer.layer, settings)})
        if not scores:
            raise MethodError("These settings leave no layer with neurons to edit.")
        if settings.neurons == "random":
            scores.update({writer: torch.rand(writer.width, generator=generator) for writer in scores})
        chosen += scores.top(settings.n).neurons
    return sorted(chosen if settings.repeats else set(chosen))


def _kept(model: Model, layer: int, settings: FineSettings) -> bool:
    return layer == settings.layer if settings.layer is not None else layer < model.num_layers - settings.freeze_last


def _row(seen: Activations, row: int) -> Activations:
    return Activations(
        {layer: values[row : row + 1] for layer, values in seen.dense.items()},
        {layer: rows[row : row + 1] for layer, rows in seen.routed.items()},
    )
