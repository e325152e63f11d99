"""Passes that stop early, change what a module takes or gives, read it, or let few rows reach the output head.

Each is a context manager; they nest, and leave no hook behind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from neuronwise.model.blocks import Block
from neuronwise.model.hooks import (
    After,
    Args,
    Before,
    Hooks,
    Kwargs,
    first_output,
    first_tensor,
    replace_first,
    replace_output,
)

Change = Callable[[Tensor], Tensor]
Rows = Sequence[int] | Sequence[Sequence[int]]


class HasHead(Protocol):
    """A model, as far as its output head goes."""

    @property
    def head(self) -> nn.Module:
        """The module that turns hidden states into logits."""
        ...


class HasBlocks(Protocol):
    """A model, as far as its blocks go."""

    blocks: list[Block]


class _Stopped(Exception):
    """Ends a pass at ``module``."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module


@contextlib.contextmanager
def watched(model: HasBlocks, look: Callable[[], None]) -> Iterator[None]:
    """Within the body ``look`` is called before each pass of the model; what it raises ends the pass.

    It changes nothing, so that whoever looks for interventions finds none.
    """
    with Hooks() as hooks:
        hooks.hold(model.blocks[0].module.register_forward_pre_hook(lambda module, args: look()))
        yield


@contextlib.contextmanager
def stop_after(module: nn.Module) -> Iterator[None]:
    """The pass in the body ends once ``module`` has returned; the body is left at that point.

    Hooks that should see the module's output must be set before.

    >>> with outputs_of(block.module) as seen, stop_after(block.module):
    ...     model.forward(inputs)
    """

    def after(module: nn.Module, args: Args, kwargs: Kwargs, output: object) -> None:
        raise _Stopped(module)

    with _stopping(module) as hooks:
        hooks.after(module, after)
        yield


@contextlib.contextmanager
def stop_before(module: nn.Module) -> Iterator[None]:
    """The pass in the body ends where ``module`` would be called; the body is left at that point."""

    def before(module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        raise _Stopped(module)

    with _stopping(module) as hooks:
        hooks.before(module, before)
        yield


@contextlib.contextmanager
def _stopping(module: nn.Module) -> Iterator[Hooks]:
    with Hooks() as hooks:
        try:
            yield hooks
        except _Stopped as stopped:
            if stopped.module is not module:
                raise


@contextlib.contextmanager
def edit(module: nn.Module, change: Change, within: nn.Module | None = None) -> Iterator[None]:
    """What ``module`` returns (its first tensor) passes through ``change`` in every pass of the body.

    ``within``: only in calls inside that module, for one that serves several layers.
    """
    with Hooks() as hooks:
        hooks.after(module, _changed_output(change, _active(hooks, within)))
        yield


@contextlib.contextmanager
def edit_input(module: nn.Module, change: Change, within: nn.Module | None = None) -> Iterator[None]:
    """What ``module`` is given (its first tensor) passes through ``change`` in every pass of the body."""
    with Hooks() as hooks:
        hooks.before(module, _changed_input(change, _active(hooks, within)))
        yield


@contextlib.contextmanager
def outputs_of(module: nn.Module, within: nn.Module | None = None) -> Iterator[list[Tensor]]:
    """What ``module`` returns (its first tensor), one entry for each call in the body."""
    seen: list[Tensor] = []

    def keep(output: Tensor) -> Tensor:
        seen.append(output)
        return output

    with edit(module, keep, within):
        yield seen


@contextlib.contextmanager
def inputs_of(module: nn.Module, within: nn.Module | None = None) -> Iterator[list[Tensor]]:
    """What ``module`` is given (its first tensor), one entry for each call in the body."""
    seen: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        seen.append(value)
        return value

    with edit_input(module, keep, within):
        yield seen


@contextlib.contextmanager
def only_rows(model: HasHead, rows: Rows | None) -> Iterator[None]:
    """Within the body the output head sees only these rows of the sequence, so that few logits are computed.

    With one list for each sequence of the batch, their rows come one after another: logits are (1, all rows, V).
    Negative rows count from the end of the padded sequence; ``None`` is all of them.
    """
    with contextlib.ExitStack() as stack:
        if rows is not None:
            stack.enter_context(edit_input(model.head, _chosen(rows)))
        yield


def spots(rows: Rows, sequences: int = 1) -> list[tuple[int, int]]:
    """(sequence, row) of each row, where the same rows are meant in each sequence or each has its own list."""
    listed = [rows] * sequences if not rows or isinstance(rows[0], int) else rows
    return [(sequence, row) for sequence, own in enumerate(listed) for row in own]  # type: ignore[union-attr]


def _chosen(rows: Rows) -> Change:
    if not rows or isinstance(rows[0], int):
        return lambda hidden: hidden[..., list(rows), :]
    places = spots(rows)
    sequences = torch.tensor([sequence for sequence, _ in places], dtype=torch.long)
    chosen = torch.tensor([row for _, row in places], dtype=torch.long)

    def pick(hidden: Tensor) -> Tensor:
        whole = hidden.reshape(len(rows), -1, hidden.shape[-1])  # some decoders run a batch's rows in one
        return whole[sequences.to(hidden.device), chosen.to(hidden.device)].unsqueeze(0)

    return pick


@contextlib.contextmanager
def returning(results: Mapping[nn.Module, Callable[[], object]]) -> Iterator[None]:
    """Within the body these modules compute nothing: each returns what its entry gives at every call."""
    own = {module: module.__dict__.get("forward") for module in results}  # accelerate has put one there
    try:
        for module, result in results.items():
            module.__dict__["forward"] = lambda *args, result=result, **kwargs: result()
        yield
    finally:
        for module, forward in own.items():
            module.__dict__.pop("forward", None)
            if forward is not None:
                module.__dict__["forward"] = forward


@contextlib.contextmanager
def frozen_parameters(module: nn.Module) -> Iterator[None]:
    """No parameter asks for gradients within the body, so that no activations are kept for them."""
    before = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, wanted in before:
            parameter.requires_grad_(wanted)


@contextlib.contextmanager
def configured(module: nn.Module, setting: str, value: object) -> Iterator[None]:
    """Within the body every configuration in ``module`` that has ``setting`` has this value."""
    configs = {id(part.config): part.config for part in module.modules() if hasattr(part, "config")}
    before = [(config, getattr(config, setting)) for config in configs.values() if hasattr(config, setting)]
    try:
        for config, _ in before:
            setattr(config, setting, value)
        yield
    finally:
        for config, own in before:
            setattr(config, setting, own)


def _active(hooks: Hooks, within: nn.Module | None) -> Callable[[], bool]:
    return (lambda: True) if within is None else hooks.inside(within)


def _changed_output(change: Change, active: Callable[[], bool]) -> After:
    def after(module: nn.Module, args: Args, kwargs: Kwargs, output: object) -> object:
        if not active():
            return None
        before = first_output(output)
        value = change(before)
        return None if value is before else replace_output(output, value)

    return after


def _changed_input(change: Change, active: Callable[[], bool]) -> Before:
    def before(module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        if not active():
            return None
        first = first_tensor(args, kwargs)
        value = change(first)
        return None if value is first else replace_first(args, kwargs, value)

    return before
