"""Which published hyper-parameters a model gets: the families that the editing papers used, known by their shapes.

A preset belongs to the depth it was published for. A model of the same family with another number of layers gets its
layers at the same relative depth; a family that an editor has no preset for gets "default", whose layers go by depth
alone.

In the sources ROME is github.com/kmeng01/rome, MEMIT github.com/kmeng01/memit, PMET github.com/xpq-tech/PMET,
AlphaEdit github.com/jianghoucheng/AlphaEdit, EMMET github.com/scalable-model-editing/unified-model-editing, ENCORE
github.com/scalable-model-editing/encore, NAMET github.com/ybdai7/NAMET-massive-editing, UltraEdit
github.com/XiaojieGu/UltraEdit, FiNE github.com/opanhw/FiNE, EasyEdit github.com/zjunlp/EasyEdit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from neuronwise.edit.settings import checked, require_range, require_settings
from neuronwise.errors import MethodError
from neuronwise.model.model import Model

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")

OURS = "our choice"
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
    "falcon": 32,
}  # fmt: skip


@dataclass(frozen=True)
class Preset(Generic[S]):
    """Settings for a family of models, and where they were published: the file, in the repository of a paper.

    Layers count from 0; a negative one, from the last, needs a setting with ``metadata=SIGNED`` (``edit/settings.py``).
    """

    settings: S
    source: str


@dataclass(frozen=True)
class Chosen(Generic[S]):
    """The settings that a model gets, the name of the preset that they are, and its source.

    ``depth``: the number of layers that the preset's layer numbers were published for, where the model has another
    and they were carried over.
    """

    settings: S
    name: str
    source: str
    depth: int | None = None


def lineage(model: Model) -> tuple[str, ...]:
    """The families of a model, the closest first: ("llama-3.2-3b", "llama-3"), ("gpt2-medium", "small"), ….

    LLaMA's architecture goes by its vocabulary: up to 33,000 tokens "llama-2" (LLaMA, Llama 2, Vicuna, and LLaVA,
    InstructBLIP and MiniGPT-4 on top of them), from 128,000 "llama-3", anything between "llama" (SmolLM2, Yi, …). An
    image-text model is of its language model's family. Any other architecture goes by its ``model_type``. Below a
    billion parameters the family is "small", unless the very model has presets.
    """
    text = model.config.get_text_config(decoder=True)
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


def chosen(model: Model, presets: Mapping[str, Preset[S]]) -> Chosen[S]:
    """The preset of the closest family that has one, "default" where nothing is published, its layers in place."""
    name = next((name for name in lineage(model) if name in presets), "default")
    settings, source, depth = presets[name].settings, presets[name].source, DEPTHS.get(name)
    if depth is None or depth == model.num_layers:
        return Chosen(settings, name, source)
    moved = _at_depth(settings, model.num_layers / depth, model.num_layers)
    return Chosen(moved, name, source, None if moved is settings else depth)


def layers_of(settings: DataclassInstance) -> tuple[int, ...]:
    """The layers that settings name, as ``layer`` or ``layers``; none where they name none."""
    layer, layers = getattr(settings, "layer", None), getattr(settings, "layers", None)
    return tuple(layers) if layers else () if layer is None else (layer,)


def _at_depth(settings: S, ratio: float, count: int) -> S:
    """Layers at the same relative depth; from a range's first to its last all between."""
    named = layers_of(settings)
    if not named:
        return settings
    depth = round(count / ratio)
    placed = [layer % depth if layer < 0 else layer for layer in named]
    first, last = (min(round(layer * ratio), count - 1) for layer in (min(placed), max(placed)))
    if hasattr(settings, "layers"):
        return replace(settings, layers=tuple(range(first, last + 1)))
    return replace(settings, layer=first)


def resolved(model: Model, settings: S | None, presets: Mapping[str, Preset[S]], changes: Mapping[str, object]) -> S:
    """``settings``, or this model's preset, with single ``changes``.

    Raises ``MethodError`` for anything but a ``Model``, for unknown names, values of another kind, and settings of
    another editor.
    """
    require_model(model)
    kind = type(presets["default"].settings)
    require_settings(kind, settings)
    found = replace(chosen(model, presets).settings if settings is None else settings, **checked(kind, changes))
    require_range(found)
    return found


def require_model(model: object) -> None:
    """Raise ``MethodError`` for anything but a ``Model``, such as its name."""
    if not isinstance(model, Model):
        raise MethodError(f"An editor takes a model that neuronwise.load opened, not {model!r:.80}.")
