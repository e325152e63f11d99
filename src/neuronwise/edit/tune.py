"""Gradient descent on facts: what some writers write is moved until the model says the new targets."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from neuronwise.answers.request import forced
from neuronwise.data.facts import Fact
from neuronwise.edit.trial import Change, changed, lowest_layer, recomputed_from, require_finite
from neuronwise.errors import MethodError
from neuronwise.model.model import Model
from neuronwise.model.passes import frozen_parameters
from neuronwise.model.run import Run
from neuronwise.model.writers import Writer


def dense_layer(model: Model, layer: int | None, depth: float, editor: str) -> int:
    """``layer``, or the one with a dense W_down that is closest to a share ``depth`` of the model's.

    Raises ``MethodError`` for a layer without a dense W_down.
    """
    dense = [block.layer for block in model.blocks if block.dense]
    if layer is not None:
        if layer not in dense:
            known = f"{dense[0]} to {dense[-1]}" if dense else "none"
            raise MethodError(
                f"Layer {layer} of {model.name} has no dense W_down to edit; layers that have one: {known}."
            )
        return layer
    if not dense:
        raise MethodError(f"{model.name} has only routed experts; {editor} needs a layer with a dense W_down.")
    return min(dense, key=lambda number: abs(number - round(depth * (model.num_layers - 1))))


class Tuned(Protocol):
    """One writer on its way."""

    @property
    def writer(self) -> Writer:
        """Whose weights change."""
        ...

    @property
    def parameters(self) -> Sequence[Tensor]:
        """What is moved."""
        ...

    def write(self, inputs: Tensor, output: Tensor) -> Tensor:
        """What the writer writes, the change included."""
        ...

    def limit(self) -> None:
        """Keep the parameters within what is allowed."""
        ...


class Descent(Protocol):
    """Settings of Adam; it ends when the mean loss is below ``enough``."""

    @property
    def steps(self) -> int:
        """The most steps."""
        ...

    @property
    def rate(self) -> float:
        """The learning rate."""
        ...

    @property
    def weight_decay(self) -> float:
        """Adam's."""
        ...

    @property
    def enough(self) -> float:
        """The loss at which it ends."""
        ...


def tuned_to(
    model: Model,
    facts: Sequence[Fact],
    tuned: Sequence[Tuned],
    settings: Descent,
    *,
    at_prompt: bool = False,
    moves: Sequence[Sequence[Tuned]] | None = None,
) -> tuple[int, list[float]]:
    """The steps taken and the loss of each fact in the last of them; facts are one batch, the mean of their losses.

    The loss is the mean of −log p over the target's tokens, each read behind those before it, or all at the prompt's
    last position (``at_prompt``). ``moves``: those of ``tuned`` that each fact moves, all by default. Only layers from
    the lowest changed one are computed again for one fact. Raises ``NonFiniteError`` for such a loss.
    """
    runs = [forced(model, fact) for fact in facts]
    by_writer: dict[Writer, list[Tuned]] = {}
    for one in tuned:
        by_writer.setdefault(one.writer, []).append(one)
    moved = [[parameter for one in own for parameter in one.parameters] for own in moves or [tuned] * len(runs)]
    optimizer = torch.optim.Adam(
        [p for one in tuned for p in one.parameters], lr=settings.rate, weight_decay=settings.weight_decay
    )
    losses: list[float] = []
    step = 0
    with (
        _passes(model, lowest_layer(model, by_writer), runs) as forwards,
        changed(by_writer, _written(by_writer)),
    ):
        while step < settings.steps:
            step += 1
            optimizer.zero_grad()
            losses = []
            for run, forward, own in zip(runs, forwards, moved, strict=True):
                loss = _loss(run, forward, at_prompt)
                require_finite(loss, "The loss of this edit is")
                losses.append(float(loss.detach()))
                (loss / len(runs)).backward(inputs=own)
            if sum(losses) / len(losses) < settings.enough:
                break
            optimizer.step()
            for one in tuned:
                one.limit()
    return step, losses


def _written(tuned: Mapping[Writer, Sequence[Tuned]]) -> Change:
    def write(writer: Writer, inputs: Tensor, output: Tensor) -> Tensor:
        for one in tuned[writer]:
            output = one.write(inputs, output)
        return output

    return write


@contextlib.contextmanager
def _passes(model: Model, lowest: int, runs: Sequence[Run]) -> Iterator[list[Callable[[list[int]], Tensor]]]:
    """Logits of given rows of each run; for one run alone the layers below are not computed again."""
    if len(runs) == 1:
        with recomputed_from(model, lowest, runs[0].forced_inputs()) as forward:
            yield [forward]
    else:
        with frozen_parameters(model.module):
            yield [functools.partial(model.forward, run.forced_inputs()) for run in runs]


def _loss(run: Run, forward: Callable[[list[int]], Tensor], at_prompt: bool) -> Tensor:
    count = len(run.output_ids)
    rows = [run.row(0)] if at_prompt else [run.row(k) for k in range(count)]
    logits = forward(rows)[0].expand(count, -1)
    target = torch.tensor(run.output_ids, device=logits.device)
    return nn.functional.cross_entropy(logits.float(), target)
