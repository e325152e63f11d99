"""The value that makes the model say the new target: a vector added at the subject, found by gradient descent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from neuronwise.answers.request import target_ids
from neuronwise.data.facts import Fact
from neuronwise.edit.above import recomputed_from
from neuronwise.edit.delta import Delta
from neuronwise.edit.memory.contexts import contexts
from neuronwise.edit.memory.keys import act
from neuronwise.edit.memory.passages import Batch, essence_passage, fact_passage
from neuronwise.edit.memory.tails import from_subject
from neuronwise.errors import MethodError, NonFiniteError
from neuronwise.model.hooks import Hooks, first_tensor, replace_first
from neuronwise.model.interfere import change_output
from neuronwise.model.model import Model


@dataclass(frozen=True)
class ValueSettings:
    """Hyper-parameters of the search for a value, with the names and defaults of [ROME]'s published code.

    ``layers`` None: by the depth rule of the editor. ``v_weight_decay`` weighs ‖δ‖ / ‖v₀‖²; ``clamp_norm_factor``
    bounds ‖δ‖ by that many ‖v₀‖; the search ends below ``enough_loss``. ``kl_position``: where on "{subject} is a"
    the prediction is held: "subject" (its last token, as in the published code) or "last" (as in the paper).
    ``context_template_length_params`` are (tokens, how many) of the prefixes that the model writes with ``seed``;
    ``context_templates``, if given, are prefixes to use instead.
    """

    layers: tuple[int, ...] | None = None
    v_num_grad_steps: int = 25
    v_lr: float = 0.5
    v_weight_decay: float = 1e-3
    clamp_norm_factor: float = 4.0
    kl_factor: float = 0.0625
    kl_position: str = "subject"
    enough_loss: float = 5e-2
    context_template_length_params: tuple[tuple[int, int], ...] = ((5, 10), (10, 10))
    context_templates: tuple[str, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.v_num_grad_steps < 1 or self.v_lr <= 0 or self.clamp_norm_factor <= 0:
            raise MethodError("v_num_grad_steps is 1 or more; v_lr and clamp_norm_factor are above 0.")
        if self.kl_position not in ("subject", "last"):
            raise MethodError(f"kl_position={self.kl_position!r} is unknown; choose subject or last.")
        marked = next((text for text in self.context_templates or () if "{}" in text), None)
        if marked is not None:
            raise MethodError(
                f"context_templates stand before the prompt as they are; leave the {{}} out of {marked!r}."
            )

    def prefixes(self, model: Model) -> tuple[str, ...]:
        """The prefixes before the prompt: none, and the given or self-written ones."""
        if self.context_templates is not None:
            return ("", *(text for text in self.context_templates if text))
        return contexts(model, self.context_template_length_params, self.seed)


class Ending(TypedDict):
    """How a search ended: passes made, the loss reached, and the target's probability on the bare prompt."""

    steps: int
    loss: float
    probability: float


@dataclass(frozen=True)
class Value:
    """``initial`` (d,) is what stood at the subject of the bare prompt, ``delta`` (d,) what is added to it."""

    initial: Tensor
    delta: Tensor

    @property
    def target(self) -> Tensor:
        return self.initial + self.delta


def search(
    model: Model,
    fact: Fact,
    layer: int,
    spots: Sequence[nn.Module],
    settings: ValueSettings,
    deltas: Iterable[Delta] = (),
    *,
    relax: bool = False,
) -> tuple[list[Value], Ending]:
    """Vectors added to the outputs of ``spots`` (modules of ``layer``, or it) at the subject, and how the search ended.

    Minimizes the mean of −log p(target) over the prefixes + kl_factor·KL on "{subject} is a" + weight decay
    ([ROME] eq. 4), only layers from ``layer`` upwards being computed. ``relax``: [PMET]'s rule, a tenth of the first
    term's weight once every target token is the likeliest, and the end when then KL ≤ 0.01. Raises
    ``NonFiniteError``.
    """
    target = target_ids(model, fact.target_new)
    passages = [fact_passage(model, fact, prefix, target[:-1]) for prefix in settings.prefixes(model)]
    block = model.blocks[layer]
    added = [torch.zeros(model.hidden_size, device=model.device, requires_grad=True) for _ in spots]
    initial: list[Tensor | None] = [None] * len(spots)
    weight, before = 1.0, None
    outcome: Ending = {"steps": 0, "loss": 0.0, "probability": 0.0}
    lowest = layer + 1 if spots[0] is block.module else layer  # a layer's output is at hand, its inside is not
    with torch.enable_grad(), Hooks() as hooks, contextlib.ExitStack() as within:
        act(hooks, model, deltas)
        batch = within.enter_context(from_subject(model, [*passages, essence_passage(model, fact)]))
        with recomputed_from(model, lowest, batch.inputs) as forward, Hooks() as inner:
            for number, spot in enumerate(spots):
                inside = None if spot is block.module else block
                change_output(inner, spot, _adds(batch, added, initial, number), inside)
            inner.before(model.head, _keeps(batch, len(target), settings.kl_position))
            optimizer = torch.optim.Adam(added, lr=settings.v_lr)
            for step in range(1, settings.v_num_grad_steps + 1):
                logs = forward()[0].float().log_softmax(-1)
                said = logs[:-1].reshape(len(passages), len(target), -1)
                wanted = torch.tensor(target, device=said.device)
                found = said.gather(2, wanted.expand(len(passages), -1).unsqueeze(2)).squeeze(2)
                before = logs[-1].detach() if before is None else before
                kept = settings.kl_factor * (before.exp() * (before - logs[-1])).sum()
                decay = sum(d.norm() / _start(v).norm() ** 2 for d, v in zip(added, initial, strict=True))
                loss = weight * -found.mean() + kept + settings.v_weight_decay * decay
                if not torch.isfinite(loss):
                    raise NonFiniteError(
                        "The loss of this edit is not finite; load the model with dtype=torch.float32."
                    )
                likeliest = bool((said.argmax(-1) == wanted).all())
                outcome = {
                    "steps": step,
                    "loss": float(loss.detach()),
                    "probability": float(found[0].detach().mean().exp()),
                }
                if float(loss.detach()) < settings.enough_loss or step == settings.v_num_grad_steps:
                    break
                if relax:
                    weight = 0.1 if likeliest else 1.0
                    if likeliest and float(kept.detach()) <= 0.01:
                        break
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                for d, v in zip(added, initial, strict=True):
                    _clamp(d, settings.clamp_norm_factor * _start(v).norm())
    values = [Value(_start(v).cpu(), d.detach().cpu()) for v, d in zip(initial, added, strict=True)]
    if not all(bool(torch.isfinite(value.target).all()) for value in values):
        raise NonFiniteError("The value found for this edit is not finite; load the model with dtype=torch.float32.")
    return values, outcome


def _start(value: Tensor | None) -> Tensor:
    assert value is not None, "a pass was made"
    return value


@torch.no_grad()
def _clamp(delta: Tensor, most: Tensor) -> None:
    norm = delta.norm()
    if norm > most:
        delta.mul_(most.to(delta.device) / norm)


def _adds(batch: Batch, added: list[Tensor], initial: list[Tensor | None], number: int) -> Any:
    def change(output: Tensor) -> Tensor:
        if initial[number] is None:
            initial[number] = batch.at_subject(output.detach())[0].float().to(added[number].device)
        whole = output.reshape(len(batch), -1, output.shape[-1]).clone()
        items = torch.arange(len(batch), device=output.device)
        whole[items, batch.subjects.to(output.device)] += added[number].to(output.device, output.dtype)
        return whole.reshape(output.shape)

    return change


def _keeps(batch: Batch, count: int, kl_position: str) -> Any:
    """The rows that predict the target in each passage, and the one where what the subject is shall stay."""
    items = [item for item in range(len(batch) - 1) for _ in range(count)]
    rows = [batch.lengths[item] - count + k for item in range(len(batch) - 1) for k in range(count)]
    last = len(batch) - 1
    held = int(batch.subjects[last]) if kl_position == "subject" else batch.lengths[last] - 1

    def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
        hidden = first_tensor(args, kwargs)
        return replace_first(args, kwargs, hidden[[*items, last], [*rows, held]].unsqueeze(0))

    return before
