"""Where a writer's weights really lie, so that a change reaches them.

In the module itself; in accelerate's store, where they are offloaded to another memory or to disk; or nowhere that
can be written, where they are quantized.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from neuronwise.edit.delta import Place, writer_of
from neuronwise.errors import EditError
from neuronwise.model.model import Model


class Home(NamedTuple):
    """The module and the parameter that hold a writer's weights, and how (d, f) is cut out of it (a view)."""

    module: nn.Module
    parameter: str
    view: Callable[[Tensor], Tensor]
    linear: bool  # the module's own output is what the writer writes


class Stored(NamedTuple):
    """(d, f) weights that may be written; ``release`` lets go what had to be brought into memory for it."""

    weight: Tensor
    release: Callable[[], Any]


def home(model: Model, place: Place) -> Home:
    layer, path, expert = place
    if expert is not None:
        routed, index = model.blocks[layer].expert(expert)
        if routed.parameter is not None:
            owner, _, name = routed.parameter.rpartition(".")

            def one(parameter: Tensor) -> Tensor:
                rows = parameter.view(routed.experts, -1, parameter.shape[-1])[index]
                return rows.T if routed.transposed else rows

            return Home(routed.module.get_submodule(owner), name, one, linear=False)
        module = routed.linears[index]
    else:
        module = writer_of(model, layer, path)
    transposed = hasattr(module, "nx")
    return Home(module, "weight", lambda weight: weight.T if transposed else weight, linear=True)


def same_home(model: Model, place: Place) -> Place:
    """The first place whose weights are the same: layers may share one feed-forward block or one weight."""
    own = home(model, place)
    mine: Any = getattr(own.module, own.parameter, None)
    for layer in range(place[0]):
        for writer in model.blocks[layer].dense if place[2] is None else ():
            other: Any = getattr(writer.module, "weight", None)
            shared = mine is not None and mine is other and not mine.is_meta
            if writer.module is own.module or shared:
                return layer, writer.path, None
        for routed in model.blocks[layer].routed if place[2] is not None else ():
            if routed.module is model.blocks[place[0]].expert(place[2])[0].module:  # type: ignore[arg-type]
                return layer, routed.path, place[2]
    return place


def stored(model: Model, place: Place) -> Stored | None:
    """The weights of a writer in a form that may be written, or None where they are quantized.

    Weights that accelerate keeps on disk are brought into its store in memory, where its hooks find them first.
    Raises ``EditError`` for quantized experts that are held in one piece: nothing can be added to one of them.
    """
    own = home(model, place)
    parameter: Any = getattr(own.module, own.parameter)
    if parameter.is_meta:
        found = _offloaded(own)
        if found is not None:
            return Stored(own.view(found.weight.detach()), found.release)
    elif writable(parameter):
        return Stored(own.view(parameter.detach()), _nothing)
    if not own.linear:
        raise EditError(f"The experts of layer {place[0]} are quantized in one piece; no single one can be edited.")
    return None


def writable(weight: Any) -> bool:
    """Whether a weight holds the numbers themselves, not a quantized form of them."""
    plain = type(weight.data).__name__ == "Tensor" and weight.is_floating_point() and weight.element_size() > 1
    return plain and not hasattr(weight, "quant_state")


def _offloaded(own: Home) -> Stored | None:
    hook = getattr(own.module, "_hf_hook", None)
    for single in getattr(hook, "hooks", (hook,)):  # accelerate chains several hooks in one
        weights: Any = getattr(single, "weights_map", None)
        name = own.parameter
        while hasattr(weights, "prefix"):
            name, weights = f"{weights.prefix}{name}", weights.dataset
        memory = getattr(weights, "state_dict", weights)
        if not isinstance(memory, MutableMapping) or not isinstance(weights, Mapping) or name not in weights:
            continue
        if name in memory:
            return Stored(memory[name], _nothing) if writable(memory[name]) else None
        value = weights[name].clone()
        if not writable(value):
            return None
        memory[name] = value
        return Stored(value, functools.partial(memory.pop, name, None))
    return None


def _nothing() -> None:
    return None
