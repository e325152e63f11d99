"""Passes that compute only the layers from the lowest edited one upwards: below it nothing changes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from neuronwise.model.hooks import Hooks
from neuronwise.model.model import Model
from neuronwise.model.stream import frozen_parameters

Forward = Callable[..., Tensor]  # (rows=None, of=None) → logits (batch, rows, V)


@contextlib.contextmanager
def recomputed_from(model: Model, lowest: int, inputs: dict[str, Any]) -> Iterator[Forward]:
    """Within the body ``forward(rows=None, of=None)`` gives the logits of ``inputs``, with gradients but none of
    parameters.

    Layers below ``lowest`` hand back what they gave in one recorded pass; hooks that the body sets on the others
    count. ``of`` names sequences of the batch to compute, each as often as it is named; ``None`` is all of them.
    """
    outputs: dict[int, Any] = {}
    below = [block.module for block in model.blocks[:lowest]]
    if below:
        with Hooks() as hooks, torch.no_grad(), contextlib.suppress(_Enough):
            for module in below:
                hooks.after(module, lambda m, args, kwargs, output: outputs.__setitem__(id(m), output))
            hooks.after(below[-1], _enough)
            model.forward(inputs, rows=[-1])
    size = next((len(value) for value in inputs.values() if isinstance(value, Tensor)), 1)
    picked: list[Tensor | None] = [None]

    def forward(rows: Sequence[int] | None = None, of: Sequence[int] | None = None) -> Tensor:
        whole = of is None or list(of) == list(range(size))
        picked[0] = None if of is None or whole else torch.tensor(list(of))
        return model.forward({name: _picked(value, picked[0], size) for name, value in inputs.items()}, rows)

    def as_before(key: int) -> Callable[..., Any]:
        return lambda *args, **kwargs: _picked(outputs[key], picked[0], size)

    own = {id(module): module.__dict__.get("forward") for module in below}  # accelerate has put one there
    try:
        for module in below:
            module.__dict__["forward"] = as_before(id(module))
        with frozen_parameters(model.module):
            yield forward
    finally:
        for module in below:
            module.__dict__.pop("forward", None)
            if own[id(module)] is not None:
                module.__dict__["forward"] = own[id(module)]


def _picked(value: Any, rows: Tensor | None, size: int) -> Any:
    """The chosen sequences of whatever a layer takes or gives: a tensor of the whole batch, or several."""
    if rows is None:
        return value
    if isinstance(value, Tensor):
        return value[rows.to(value.device)] if value.dim() and len(value) == size else value
    if isinstance(value, tuple | list):
        return type(value)(_picked(part, rows, size) for part in value)
    return value


class _Enough(Exception):
    """Ends the recorded pass at the last layer that is kept."""


def _enough(*_: Any) -> None:
    raise _Enough
