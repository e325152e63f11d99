"""Which published hyper-parameters a model gets: the families that the editing papers used, told by their shapes.

A preset holds for the depth it was published for. A model of the same family with another number of layers gets its
layers at the same relative depth; a family that an editor has no preset for gets "default", whose layers go by depth
alone. ``sources.SOURCES`` says where the numbers of each preset were published.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from neuronwise.errors import MethodError
from neuronwise.model.model import Model

T = TypeVar("T")
SMALL = 1e9  # parameters of the text model below which a model is "small": no paper tuned for these

# Shapes (layers, hidden size) of single models that have presets of their own.
SHAPES: dict[str, dict[tuple[int, int], str]] = {
    "gpt2": {(24, 1024): "gpt2-medium", (36, 1280): "gpt2-large", (48, 1600): "gpt2-xl"},
    "llama-3": {(28, 3072): "llama-3.2-3b"},
}
# The language models inside image-text models that go by a type of their own but are a family's.
WITHIN = {
    "qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2", "qwen3_vl_text": "qwen3", "qwen3_vl_moe_text": "qwen3_moe",
    "qwen3_5_text": "qwen3_5", "mllama_text_model": "llama-3", "gemma3_text": "gemma3", "gemma4_text": "gemma4",
    "mplug_owl2": "llama-2", "mplug_owl2_text": "llama-2",
}  # fmt: skip
# Layers of the models that the published layer numbers are for.
DEPTHS = {
    "gpt2-medium": 24, "gpt2-large": 36, "gpt2-xl": 48, "gptj": 28, "gpt_neox": 44, "llama-2": 32, "llama-3": 32,
    "llama-3.2-3b": 28, "mistral": 32, "qwen": 32, "qwen2": 28, "qwen3_5": 32, "glm": 40,
}  # fmt: skip


@dataclass(frozen=True)
class Chosen(Generic[T]):
    """The settings that a model gets, and the name of the preset that they are.

    ``depth``: the number of layers that the preset's layer numbers were published for, where the model has another
    and they were carried over.
    """

    settings: T
    name: str
    depth: int | None = None


def lineage(model: Model) -> tuple[str, ...]:
    """The families of a model, the closest first: ("llama-3.2-3b", "llama-3"), ("gpt2-medium", "small"), ….

    LLaMA's architecture goes by its vocabulary: up to 33,000 tokens "llama-2" (LLaMA, Llama 2, Vicuna, and LLaVA,
    InstructBLIP and MiniGPT-4 on top of them), from 128,000 "llama-3", anything between "llama" (SmolLM2, Yi, …). An
    image-text model is of its language model's family. Any other architecture goes by its ``model_type``. Below a
    billion parameters the family is "small", unless the very model has presets.
    """
    text: Any = model.config.get_text_config(decoder=True)
    kind: str = WITHIN.get(text.model_type) or text.model_type
    if kind == "llama":
        kind = "llama-2" if text.vocab_size <= 33_000 else "llama-3" if text.vocab_size >= 128_000 else "llama"
    own = SHAPES.get(kind, {}).get((model.num_layers, model.hidden_size))
    general = "small" if text_parameters(model) < SMALL else kind
    return (general,) if own is None else (own, general)


def family(model: Model) -> str:
    """The closest of ``lineage``: "gptj", "gpt2-xl", "llama-2", "llama-3", "small", …."""
    return lineage(model)[0]


def text_parameters(model: Model) -> int:
    """Parameters of the decoder's layers and of its embeddings, as they count unquantized; no image encoder's."""
    parts = [*(block.module for block in model.blocks), model.head, model.module.get_input_embeddings()]
    found = {id(p): p for part in parts for p in part.parameters()}
    return sum(math.prod(getattr(getattr(p, "quant_state", None), "shape", p.shape)) for p in found.values())


def chosen(model: Model, presets: Mapping[str, T]) -> Chosen[T]:
    """The preset of the closest family that has one, "default" where nothing is published, its layers in place."""
    name = next((name for name in lineage(model) if name in presets), "default")
    settings, depth = presets[name], DEPTHS.get(name)
    if depth is None or depth == model.num_layers:
        return Chosen(settings, name)
    moved = _at_depth(settings, model.num_layers / depth, model.num_layers)
    return Chosen(moved, name, None if moved is settings else depth)


def _at_depth(settings: T, ratio: float, count: int) -> T:
    """``layer`` and ``layers`` at the same relative depth; from a range's first to its last all between."""
    given: Any = settings
    moved: dict[str, Any] = {}
    if isinstance(getattr(given, "layer", None), int):
        moved["layer"] = min(round(given.layer * ratio), count - 1)
    layers: Sequence[int] | None = getattr(given, "layers", None)
    if layers:
        first, last = (min(round(layer * ratio), count - 1) for layer in (min(layers), max(layers)))
        moved["layers"] = tuple(range(first, last + 1))
    return replace(given, **moved) if moved else settings


def preset(model: Model, presets: Mapping[str, T]) -> T:
    """The settings for this model's family; "default" where nothing is published for it."""
    return chosen(model, presets).settings


def require_model(model: Any) -> None:
    """Raise ``MethodError`` for anything but a ``Model``, such as its name."""
    if not isinstance(model, Model):
        raise MethodError(f"An editor takes a model that neuronwise.load opened, not {model!r:.80}.")


def resolved(model: Model, settings: T | None, presets: Mapping[str, T], changes: Mapping[str, Any]) -> T:
    """``settings``, or this model's preset, with single ``changes``.

    Raises ``MethodError`` for unknown names, values of another kind, and settings of another editor.
    """
    require_model(model)
    kind = type(presets["default"])
    if settings is not None and not isinstance(settings, kind):
        raise MethodError(f"These settings are {type(settings).__name__}; this editor takes {kind.__name__}.")
    base: Any = preset(model, presets) if settings is None else settings
    known = [field.name for field in fields(base)]
    unknown = [name for name in changes if name not in known]
    if unknown:
        raise MethodError(f"There is no setting {unknown[0]!r}; there are {', '.join(known)}.")
    return replace(base, **fitting(type(base), changes))


def fitting(settings: type[Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The same changes, lists as tuples; raises ``MethodError`` for a value of another kind than the setting's."""
    hints, defaults = get_type_hints(settings), {field.name: field.default for field in fields(settings)}
    found = {}
    for name, value in changes.items():
        value = _frozen(value)
        if name in hints and not _is(value, hints[name]):
            choices = get_args(hints[name]) if get_origin(hints[name]) in (Union, types.UnionType) else (hints[name],)
            default = f" (by default {defaults[name]!r})" if name in defaults else ""
            kinds = " or ".join(KINDS.get(get_origin(one) or one, "another kind of value") for one in choices)
            raise MethodError(f"{name}={value!r} does not fit: it is {kinds}{default}.")
        found[name] = value
    return found


KINDS: dict[Any, str] = {
    int: "a whole number", float: "a number", bool: "true or false", str: "a text", tuple: "a list",
    types.NoneType: "none",
}  # fmt: skip


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple, range)) else value


def _is(value: Any, hint: Any) -> bool:
    """Whether a value is of the kind that a setting is annotated with; kinds that are not settings' are let pass."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, types.UnionType):
        return any(_is(value, part) for part in parts)
    if kind is tuple:
        if not isinstance(value, tuple):
            return False
        if len(parts) == 2 and parts[1] is Ellipsis:
            return all(_is(one, parts[0]) for one in value)
        return len(value) == len(parts) and all(map(_is, value, parts))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind) if kind in KINDS else True
