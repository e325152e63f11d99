"""FiNE: a fact corrected by the few neurons that say what the model says now ([FiNE] §4)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from neuronwise.data.facts import Fact
from neuronwise.edit.above import recomputed_from
from neuronwise.edit.delta import Delta, Place, by_writer, columns_of, writer_of
from neuronwise.edit.edit import Edit, column_norms
from neuronwise.edit.record import made
from neuronwise.edit.request import forced
from neuronwise.errors import EditError, MethodError, NonFiniteError
from neuronwise.locate import score_all
from neuronwise.model.hooks import Hooks, first_tensor
from neuronwise.model.model import Model
from neuronwise.model.run import Run, Target
from neuronwise.neurons import Neuron


@dataclass(frozen=True)
class FineSettings:
    """[FiNE]'s hyper-parameters, with the names of methods and ablations of the paper.

    ``neurons`` "contribution" or "random"; ``layer`` restricts them to one layer; a weight of 0 leaves a term of the
    loss out. ``rate`` None: the published one for the architecture, see ``published_rate``.
    """

    n: int = 5
    freeze_last: int = 3
    alpha: float = 1.0
    beta: float = 10.0
    gamma: float = 0.1
    rate: float | None = None
    steps: int = 50
    enough: float = 0.9
    neurons: str = "contribution"
    layer: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or self.steps < 1 or self.freeze_last < 0:
            raise MethodError("n and steps are 1 or more, freeze_last is 0 or more.")
        if self.neurons not in ("contribution", "random"):
            raise MethodError(f"neurons={self.neurons!r} is unknown; choose contribution or random.")


def published_rate(model: Model) -> float:
    """Learning rates of [FiNE]: 5e-3 for Llama-2, 1e-3 for GPT-J and Llama-3; Llama-2's shape tells it from Llama-3.

    Where nothing is published: 5e-3 below a billion parameters, 1e-3 above (our choice).
    """
    kind, config = getattr(model.config, "model_type", ""), model.config
    if kind == "gptj":
        return 1e-3
    size = sum(parameter.numel() for parameter in model.module.parameters())
    if kind == "llama" and size > 1e9:
        return 5e-3 if getattr(config, "vocab_size", 0) < 64000 else 1e-3
    return 5e-3 if size < 1e9 else 1e-3


def fine(model: Model, fact: Fact, settings: FineSettings | None = None, *, image: Any = None, **changes: Any) -> Edit:
    """An edit that makes ``model`` complete the fact's prompt by its new target; the model itself is left as it is.

    ``image`` asks together with a photo. ``changes`` are single settings, such as ``n=10``. The record says how many
    steps were taken and the probability that each target token reached. Raises ``NonFiniteError`` for a loss that is
    not finite, and ``MethodError`` for settings that leave no neuron to edit.
    """
    settings = FineSettings(**{**asdict(settings or FineSettings()), **changes})
    request = forced(model, fact, image)
    neurons = _choose(model, request, settings)
    return _optimize(model, request, neurons, fact, settings)


def _choose(model: Model, request: Run, settings: FineSettings) -> list[Neuron]:
    """For each target position the top n neurons for what the unedited model says there."""
    count = len(request.output_ids)
    with torch.no_grad():
        logits = model.forward(request.forced_inputs(), rows=[request.row(k) for k in range(count)])[0]
    targets = [Target(int(row.argmax()), position, "") for position, row in enumerate(logits)]
    chosen: dict[Neuron, None] = {}
    scored = score_all(model, request, targets, "contribution")
    generator = torch.Generator().manual_seed(settings.seed)
    for scores in scored:
        if settings.layer is None:
            kept = range(model.num_layers - settings.freeze_last)
        else:
            kept = range(settings.layer, settings.layer + 1)
        scores.values = {
            place: values for place, values in scores.values.items() if place[0] in kept and place[1] is None
        }
        if not scores.values:
            raise MethodError("These settings leave no layer with neurons to edit.")
        if settings.neurons == "random":
            scores.values = {p: torch.rand(len(v), generator=generator) for p, v in scores.values.items()}
        chosen |= dict.fromkeys(scores.top(settings.n).neurons)
    return sorted(chosen)


def _optimize(model: Model, request: Run, neurons: list[Neuron], fact: Fact, settings: FineSettings) -> Edit:
    groups = {place: columns_of(model, members) for place, members in by_writer(model, neurons).items()}
    deltas = {place: torch.zeros(len(units), model.hidden_size, requires_grad=True) for place, units in groups.items()}
    rate = published_rate(model) if settings.rate is None else settings.rate
    optimizer = torch.optim.Adam(list(deltas.values()), lr=rate)
    inputs, count = request.forced_inputs(), len(request.output_ids)
    target = torch.tensor(request.output_ids, device=model.device)
    length = request.length - count  # rows of the prompt
    lowest = min(layer for layer, _, _ in groups)
    reached, step = [0.0] * count, 0
    with recomputed_from(model, lowest, inputs) as forward, Hooks() as hooks:
        with torch.no_grad():
            before = forward()[0, : length - 1].float().log_softmax(-1)
        for (layer, path, _), units in groups.items():
            hooks.after(writer_of(model, layer, path), _adds(units, deltas[layer, path, None]))
        while step < settings.steps:
            step += 1
            logits = forward()[0].float().log_softmax(-1)
            said = logits[length - 1 : length - 1 + count].gather(1, target.unsqueeze(1)).squeeze(1)
            reached = said.detach().exp().tolist()
            if min(reached) >= settings.enough:
                break
            loss = _loss(said, logits, before, target, deltas, length, settings)
            if not torch.isfinite(loss):
                raise NonFiniteError("The loss of this edit is not finite; load the model with dtype=torch.float32.")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return _edit(model, groups, deltas, fact, settings, {"rate": rate, "steps": step, "probabilities": reached})


def _loss(
    said: Tensor,
    logits: Tensor,
    before: Tensor,
    target: Tensor,
    deltas: dict[Place, Tensor],
    length: int,
    settings: FineSettings,
) -> Tensor:
    """max −log p(target) + α·KL(before ‖ after) on the prompt + β·max −log(1 − p(target again)) + γ·‖Δ‖₂."""
    loss = -said.min()
    if settings.alpha and length > 1:
        loss = loss + settings.alpha * nn.functional.kl_div(
            logits[: length - 1], before, reduction="batchmean", log_target=True
        )
    if settings.beta:
        again = logits[-1, target].exp().clamp(max=1 - 1e-6)
        loss = loss + settings.beta * (-torch.log1p(-again)).max()
    if settings.gamma:
        loss = loss + settings.gamma * torch.cat([d.flatten() for d in deltas.values()]).norm()
    return loss


def _adds(units: Tensor, delta: Tensor) -> Any:
    def after(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor:
        inputs = first_tensor(args, kwargs)
        fired = inputs[..., units.to(inputs.device)].float()
        return output + (fired @ delta.to(fired.device)).to(output.dtype)

    return after


def _edit(
    model: Model,
    groups: dict[Place, Tensor],
    deltas: dict[Place, Tensor],
    fact: Fact,
    settings: FineSettings,
    outcome: dict[str, Any],
) -> Edit:
    parts = tuple(
        Delta(layer, path, deltas[layer, path, expert].detach().T.contiguous(), units=units)
        for (layer, path, expert), units in groups.items()
    )
    if not parts:
        raise EditError("There is nothing to edit.")
    settings = replace(settings, rate=outcome.pop("rate"))
    record = made("fine", model, settings, [fact], **outcome)
    return Edit(parts, record, column_norms(model, parts))
