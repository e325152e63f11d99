"""Which published hyper-parameters a model gets: the families that the editing papers used, told by their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from neuronwise.errors import MethodError
from neuronwise.model.model import Model

T = TypeVar("T")
SMALL = 1e9  # parameters of the text model below which a model is "small": no paper tuned for these


def family(model: Model) -> str:
    """ "gptj", "gpt2-xl", "llama-2" (and Vicuna), "llama-3", …: the family that presets are published for.

    A model of another architecture goes by its ``model_type``; any with fewer than a billion parameters is "small".
    """
    text: Any = model.config.get_text_config(decoder=True)
    kind, size = text.model_type, sum(parameter.numel() for parameter in model.module.parameters())
    if size < SMALL:
        return "small"
    if kind == "gpt2":
        return "gpt2-xl"
    if kind == "llama":
        return "llama-2" if text.vocab_size < 64000 else "llama-3"
    return kind


def preset(model: Model, presets: Mapping[str, T]) -> T:
    """The settings for this model's family; "default" where nothing is published for it."""
    return presets.get(family(model), presets["default"])


def resolved(model: Model, settings: T | None, presets: Mapping[str, T], changes: Mapping[str, Any]) -> T:
    """``settings``, or this model's preset, with single ``changes``; raises ``MethodError`` for unknown names."""
    base: Any = preset(model, presets) if settings is None else settings
    known = [field.name for field in fields(base)]
    unknown = [name for name in changes if name not in known]
    if unknown:
        raise MethodError(f"There is no setting {unknown[0]!r}; there are {', '.join(known)}.")
    return replace(base, **changes)
