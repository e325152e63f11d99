"""What a conversion makes: each tensor of the new checkpoint, and from what it is made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuronwise.architectures.convert.weights import Weights
from neuronwise.errors import ModelError
from neuronwise.model.complete import sizes


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Recipe:
    """One tensor: ``make`` of the named tensors of published checkpoints, in their order.

    ``make`` is called with tensors on the meta device too, to learn the shape; it reads no values.
    """

    parts: tuple[tuple[Weights, str], ...]
    make: Callable[..., Tensor] = _as_it_is

    @property
    def missing(self) -> list[tuple[Weights, str]]:
        """The tensors that no part has."""
        return [(weights, name) for weights, name in self.parts if name not in weights]

    def shape(self) -> tuple[int, ...]:
        """The shape of what it makes, without reading anything."""
        stored = [weights[name] for weights, name in self.parts]
        with torch.device("meta"):
            return tuple(self.make(*(torch.empty(s.shape, dtype=s.dtype) for s in stored)).shape)

    def __call__(self) -> Tensor:
        return self.make(*(weights[name].read() for weights, name in self.parts))


def taken(weights: Weights, *names: str, make: Callable[..., Tensor] = _as_it_is) -> Recipe:
    """A recipe from tensors of one checkpoint: as it is, or as ``make`` joins them."""
    return Recipe(tuple((weights, name) for name in names), make)


@dataclass(eq=False)
class Plan:
    """A conversion that is laid out and not yet done.

    ``model_class`` and ``config`` are the transformers class and configuration of what is made, ``recipes`` has one
    entry for each name of its state dict; ``dtype`` is that of the language model's part. ``ignored`` maps a source
    to regular expressions of names that are left out on purpose. ``companions`` writes tokenizer, processor and
    generation settings into the folder (config.json is written by the writer). ``notes`` say what a user must know.
    """

    converter: str
    variant: str
    model_class: Any
    config: Any
    recipes: Mapping[str, Recipe]
    sources: Sequence[Weights]
    companions: Callable[[Path], None]
    dtype: torch.dtype
    ignored: Mapping[Weights, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Output:
    """A tensor as it will be in the new checkpoint."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    recipe: Recipe

    @property
    def bytes(self) -> int:
        """Its size in bytes."""
        return torch.empty(self.shape, device="meta").numel() * self.dtype.itemsize


def state_names(model_class: Any, config: Any) -> list[str]:
    """The names of a model's state dict, from an empty one on the meta device."""
    with torch.device("meta"):
        return list(model_class(config).state_dict())


def outputs(plan: Plan, dtype: torch.dtype | None = None) -> list[Output]:
    """All tensors of the new checkpoint, in the model's order; ``dtype`` (the plan's by default) of the real ones.

    Parts that the class keeps in float32 stay in float32. Raises ``ModelError`` that lists every missing, unexpected
    and misshapen tensor of the parts, in one message.
    """
    chosen = plan.dtype if dtype is None else dtype
    with torch.device("meta"):
        module = plan.model_class(plan.config)
    kept = tuple(getattr(module, "_keep_in_fp32_modules", None) or ())
    tied = set(getattr(module, "all_tied_weights_keys", None) or ())
    found, missing, misshapen = [], [], []
    for name, wanted in module.state_dict().items():
        recipe = plan.recipes.get(name)
        if recipe is None:
            if name not in tied:
                raise ModelError(f"The converter {plan.converter} has no rule for the tensor {name}.")
            continue
        if recipe.missing:
            missing += recipe.missing
            continue
        try:
            shape = recipe.shape()
        except (RuntimeError, IndexError) as error:  # parts that do not even fit together
            misshapen.append((recipe, f"its parts do not fit together: {str(error).splitlines()[0]}"))
            continue
        if shape != tuple(wanted.shape):
            misshapen.append((recipe, f"{sizes(shape)} instead of {sizes(wanted.shape)}"))
            continue
        kind = wanted.dtype
        if kind.is_floating_point:
            kind = torch.float32 if any(part in kept for part in name.split(".")) else chosen
        found.append(Output(name, shape, kind, recipe))
    _raise_all(plan, missing, _unexpected(plan), misshapen)
    return found


def _unexpected(plan: Plan) -> list[tuple[Weights, str]]:
    used = {(id(weights), name) for recipe in plan.recipes.values() for weights, name in recipe.parts}
    return [
        (weights, name)
        for weights in plan.sources
        for name in weights.tensors
        if (id(weights), name) not in used
        and not any(re.search(pattern, name) for pattern in plan.ignored.get(weights, ()))
    ]


def _raise_all(
    plan: Plan,
    missing: list[tuple[Weights, str]],
    unexpected: list[tuple[Weights, str]],
    misshapen: list[tuple[Recipe, str]],
) -> None:
    complaints = []
    for weights in plan.sources:
        lost = dict.fromkeys(name for owner, name in missing if owner is weights)
        extra = [name for owner, name in unexpected if owner is weights]
        bad: dict[str, list[str]] = {}
        for recipe, what in misshapen:
            if recipe.parts and recipe.parts[0][0] is weights:
                bad.setdefault(what, []).append(recipe.parts[0][1])
        if lost:
            complaints.append(f"{weights.label} lacks {weights.listed(lost)}")
        if extra:
            complaints.append(f"{weights.label} has, unexpected, {weights.listed(extra)}")
        for what, names in bad.items():
            complaints.append(f"in {weights.label} {weights.listed(names)} is {what}")
    if complaints:
        raise ModelError(f"These parts make no {plan.variant}: {'; '.join(complaints)}. Nothing was written.")
