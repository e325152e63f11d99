"""Passes that compute only the layers from the lowest edited one upwards: below it nothing changes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from neuronwise.model.hooks import Hooks
from neuronwise.model.model import Model
from neuronwise.model.stream import frozen_parameters

Forward = Callable[..., Tensor]  # (rows=None) → logits (batch, rows, V)


@contextlib.contextmanager
def recomputed_from(model: Model, lowest: int, inputs: dict[str, Any]) -> Iterator[Forward]:
    """Within the body ``forward(rows=None)`` gives the logits of ``inputs``, with gradients but none of parameters.

    Layers below ``lowest`` hand back what they gave in one recorded pass; hooks that the body sets on the others
    count.
    """
    outputs: dict[int, Any] = {}
    below = [block.module for block in model.blocks[:lowest]]
    with Hooks() as hooks, torch.no_grad():
        for module in below:
            hooks.after(module, lambda m, args, kwargs, output: outputs.__setitem__(id(m), output))
        model.forward(inputs, rows=[-1])

    def forward(rows: Sequence[int] | None = None) -> Tensor:
        return model.forward(inputs, rows)

    try:
        for module in below:
            module.__dict__["forward"] = functools.partial(_as_before, outputs[id(module)])
        with frozen_parameters(model.module):
            yield forward
    finally:
        for module in below:
            module.__dict__.pop("forward", None)


def _as_before(output: Any, *args: Any, **kwargs: Any) -> Any:
    return output
