"""Where a writer's weights are stored, so that a change reaches them.

In the module itself; in accelerate's store, where they are offloaded to another memory or to disk; or nowhere that
can be written, where they are quantized.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from neuronwise.errors import EditError
from neuronwise.model.model import Model
from neuronwise.model.weights import is_plain
from neuronwise.model.writers import Writer


class Stored(NamedTuple):
    """(d, f) weights that may be written; ``release`` drops what had to be brought into memory for it."""

    weight: Tensor
    release: Callable[[], object]


def first_alike(model: Model, writer: Writer) -> Writer:
    """The first writer with the same weights: layers may share one feed-forward block or one weight."""
    module, name = writer.holder
    weight = getattr(module, name, None)
    for block in model.blocks[: writer.layer]:
        for other in block.writers:
            if other.expert != writer.expert:
                continue
            if writer.experts is not None and other.experts is not None:
                same = other.experts.module is writer.experts.module
            else:
                holder, parameter = other.holder
                tied = weight is not None and not weight.is_meta and getattr(holder, parameter, None) is weight
                same = holder is module or tied
            if same:
                return other
    return writer


def stored(writer: Writer) -> Stored | None:
    """The weights of a writer in a form that may be written, or None where they are quantized.

    Weights that accelerate keeps on disk are brought into its store in memory, where its hooks find them first.
    Raises ``EditError`` for quantized experts that are held in one piece: nothing can be added to one of them.
    """
    module, name = writer.holder
    if writer.editable:
        return Stored(writer.own_weight, _nothing)
    if getattr(module, name).is_meta:
        found = _offloaded(module, name)
        if found is not None:
            return Stored(writer.cut(found.weight.detach()), found.release)
    if not writes_alone(writer):
        raise EditError(f"The experts of layer {writer.layer} are quantized in one piece; no single one can be edited.")
    return None


def writes_alone(writer: Writer) -> bool:
    """Whether the output of the writer's module is what it writes: not for experts that share one parameter."""
    return writer.experts is None or writer.experts.parameter is None


def _offloaded(module: nn.Module, name: str) -> Stored | None:
    hook = getattr(module, "_hf_hook", None)
    for single in getattr(hook, "hooks", (hook,)):  # accelerate chains several hooks in one
        weights: Any = getattr(single, "weights_map", None)
        key = name
        while hasattr(weights, "prefix"):
            key, weights = f"{weights.prefix}{key}", weights.dataset
        memory = getattr(weights, "state_dict", weights)
        if not isinstance(memory, MutableMapping) or not isinstance(weights, Mapping) or key not in weights:
            continue
        if key in memory:
            return Stored(memory[key], _nothing) if is_plain(memory[key]) else None
        value = weights[key].clone()
        if not is_plain(value):
            return None
        memory[key] = value
        return Stored(value, functools.partial(memory.pop, key, None))
    return None


def _nothing() -> None:
    return None
