"""The value that makes the model say the new target: a vector added at the subject, found by gradient descent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn

from neuronwise.answers.request import answer_ids
from neuronwise.data.facts import Fact
from neuronwise.edit.delta import Delta
from neuronwise.edit.memory.contexts import contexts
from neuronwise.edit.memory.passages import Passages, essence_passage, fact_passage
from neuronwise.edit.memory.tails import from_subject
from neuronwise.edit.trial import acting, recomputed_from, require_finite
from neuronwise.errors import MethodError
from neuronwise.model import passes
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
            raise MethodError("v_num_grad_steps must be 1 or more; v_lr and clamp_norm_factor must be above 0.")
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
    """``initial`` (d,) is what was at the subject of the bare prompt, ``delta`` (d,) what is added to it."""

    initial: Tensor
    delta: Tensor

    @property
    def target(self) -> Tensor:
        """(d,): what should be at the subject."""
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
    patience: int | None = None,
    everywhere: bool = False,
) -> tuple[list[Value], Ending]:
    """Vectors added to the outputs of ``spots`` (modules of ``layer``, or it) at the subject, and how the search ended.

    Minimizes the mean of −log p(target) over the prefixes + kl_factor·KL on "{subject} is a" + weight decay
    ([ROME] eq. 4), only layers from ``layer`` upwards being computed. ``relax``: [PMET]'s rule, a tenth of the first
    term's weight once every target token is the likeliest, and the end when then KL ≤ 0.01. ``patience``: [ENCORE]'s
    rule, the end at the so many-th pass in which every target token is the likeliest behind every prefix.
    ``everywhere``: [NAMET]'s rule, δ and what it is added to are measured over all passages together. Raises
    ``NonFiniteError``.
    """
    target = answer_ids(model, fact)
    read = [fact_passage(model, fact, prefix, target[:-1]) for prefix in settings.prefixes(model)]
    block = model.blocks[layer]
    lowest = layer + 1 if spots[0] is block.module else layer  # a layer's output is at hand, its inside is not
    with torch.enable_grad(), acting(model, deltas), contextlib.ExitStack() as within:
        passages = within.enter_context(from_subject(model, [*read, essence_passage(model, fact)]))
        forward = within.enter_context(recomputed_from(model, lowest, passages.inputs))
        added = [Added(passages, torch.zeros(model.hidden_size, device=model.device), everywhere) for _ in spots]
        for spot, vector in zip(spots, added, strict=True):
            within.enter_context(passes.edit(spot, vector, None if spot is block.module else block.module))
        objective = Objective(target, len(read), settings, relax, patience)
        rows = predicting_rows(passages, len(target), settings.kl_position)
        optimizer = torch.optim.Adam([vector.delta for vector in added], lr=settings.v_lr)
        while True:
            loss = objective(forward(rows)[0].float().log_softmax(-1), added)
            if objective.done:
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for vector in added:
                vector.clamp(settings.clamp_norm_factor)
    values = [Value(vector.start.cpu(), vector.delta.detach().cpu()) for vector in added]
    require_finite(torch.stack([value.target for value in values]), "The value found for this edit is")
    return values, objective.ending


class Added:
    """A vector ``delta`` (d,) that is added to what a module returns at the subjects; ``passes.edit`` calls it."""

    def __init__(self, passages: Passages, delta: Tensor, everywhere: bool) -> None:
        self.passages, self.everywhere = passages, everywhere
        self.delta = delta.requires_grad_()
        self.initial: Tensor | None = None

    def __call__(self, output: Tensor) -> Tensor:
        if self.initial is None:
            self.initial = self.passages.at_subject(output.detach()).float().to(self.delta.device)
        whole = output.reshape(len(self.passages), -1, output.shape[-1]).clone()
        items = torch.arange(len(self.passages), device=output.device)
        whole[items, self.passages.subjects.to(output.device)] += self.delta.to(output.device, output.dtype)
        return whole.reshape(output.shape)

    @property
    def start(self) -> Tensor:
        """(d,): what was at the subject of the first passage before anything was added."""
        assert self.initial is not None, "a pass was made"
        return self.initial[0]

    @property
    def size(self) -> Tensor:
        """‖v₀‖, or the Frobenius norm of what was at the subjects of all passages."""
        assert self.initial is not None, "a pass was made"
        return self.initial.norm() if self.everywhere else self.initial[0].norm()

    @property
    def decay(self) -> Tensor:
        """‖δ‖ / ‖v₀‖²; everywhere the ratio of the norms over all passages."""
        if self.everywhere:
            return len(self.passages) ** 0.5 * self.delta.norm() / self.size
        return self.delta.norm() / self.size**2

    @torch.no_grad()
    def clamp(self, factor: float) -> None:
        """Keep ‖δ‖ within ``factor`` times ``size``."""
        norm, most = self.delta.norm(), factor * self.size
        if norm > most:
            self.delta.mul_(most.to(self.delta.device) / norm)


class Objective:
    """The loss of a search, pass by pass; ``done`` and ``ending`` say how far it has come."""

    def __init__(
        self, target: Sequence[int], prefixes: int, settings: ValueSettings, relax: bool, patience: int | None
    ) -> None:
        self.target, self.prefixes, self.settings, self.relax = torch.tensor(target), prefixes, settings, relax
        self.left = patience
        self.weight = 1.0
        self.before: Tensor | None = None
        self.done = False
        self.ending: Ending = {"steps": 0, "loss": 0.0, "probability": 0.0}

    def __call__(self, logs: Tensor, added: Sequence[Added]) -> Tensor:
        """The loss for log-probabilities (rows, V): prefix by prefix the rows of the target, at last the held one."""
        settings, target = self.settings, self.target.to(logs.device)
        likely = logs[:-1].reshape(self.prefixes, len(target), -1)
        reached = likely.gather(2, target.expand(self.prefixes, -1).unsqueeze(2)).squeeze(2)
        self.before = logs[-1].detach() if self.before is None else self.before
        held = settings.kl_factor * (self.before.exp() * (self.before - logs[-1])).sum()
        decay = torch.stack([vector.decay for vector in added]).sum()
        loss = self.weight * -reached.mean() + held + settings.v_weight_decay * decay
        require_finite(loss, "The loss of this edit is")
        said = likely.argmax(-1) == target
        likeliest = bool(said.all())
        steps, probability = self.ending["steps"] + 1, float(reached[0].detach().mean().exp())
        self.ending = {"steps": steps, "loss": float(loss.detach()), "probability": probability}
        self.done = float(loss.detach()) < settings.enough_loss or steps == settings.v_num_grad_steps
        if self.relax and likeliest:
            self.done = self.done or float(held.detach()) <= 0.01
        self.weight = 0.1 if self.relax and likeliest else 1.0
        if self.left is not None and bool(said[min(1, self.prefixes - 1) :].all()):
            self.left -= 1
            self.done = self.done or self.left <= 0
        return loss


def predicting_rows(passages: Passages, count: int, kl_position: str) -> list[list[int]]:
    """The rows that predict the target in each passage, and in the last the one whose prediction is held."""
    last = len(passages) - 1
    held = int(passages.subjects[last]) if kl_position == "subject" else passages.lengths[last] - 1
    return [*(passages.last_rows(item, count) for item in range(last)), [held]]
