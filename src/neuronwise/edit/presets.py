"""Which published hyper-parameters a model gets: the families that the editing papers used, told by their shapes."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

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
