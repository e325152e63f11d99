"""Settings of editors are frozen dataclasses; what a user gives for them is checked here and nowhere else."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Union, get_args, get_origin, get_type_hints

from neuronwise.errors import MethodError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

KINDS: dict[object, str] = {
    int: "a whole number", float: "a number", bool: "true or false", str: "a text", tuple: "a list",
    types.NoneType: "none",
}  # fmt: skip

SIGNED = {"signed": True}  # metadata of a setting that may be negative


def checked(kind: type[DataclassInstance], changes: Mapping[str, object]) -> dict[str, object]:
    """Single settings of a settings class, lists as tuples.

    Raises ``MethodError`` for a name that the class does not have, and for a value of another kind than the setting's.
    """
    hints, defaults = get_type_hints(kind), {field.name: field.default for field in fields(kind)}
    found: dict[str, object] = {}
    for name, value in changes.items():
        if name not in defaults:
            raise MethodError(f"There is no setting {name!r}; the settings are {', '.join(defaults)}.")
        value = _frozen(value)
        if not _is(value, hints[name]):
            choices = get_args(hints[name]) if get_origin(hints[name]) in (Union, types.UnionType) else (hints[name],)
            kinds = " or ".join(KINDS.get(get_origin(one) or one, "another kind of value") for one in choices)
            raise MethodError(f"{name}={value!r} does not fit: it is {kinds} (by default {defaults[name]!r}).")
        found[name] = value
    return found


def require_range(settings: DataclassInstance) -> None:
    """Raise ``MethodError`` for a number that is negative or not finite, wherever a setting does not mean it so.

    A setting that may be negative says so: ``field(default=…, metadata=SIGNED)``.
    """
    for one in fields(settings):
        value = getattr(settings, one.name)
        if isinstance(value, (int, float)) and not (0 <= value < math.inf or one.metadata.get("signed")):
            raise MethodError(f"{one.name} is {value}; give a number from 0.")


def require_settings(kind: type[DataclassInstance], settings: object) -> None:
    """Raise ``MethodError`` for settings of another editor; None is always right."""
    if settings is not None and not isinstance(settings, kind):
        raise MethodError(f"These settings are {type(settings).__name__}; this editor takes {kind.__name__}.")


def _frozen(value: object) -> object:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple, range)) else value


def _is(value: object, hint: object) -> bool:
    """Whether a value is of the kind that a setting is annotated with; kinds that no setting has pass."""
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
    return isinstance(value, kind) if isinstance(kind, type) and kind in KINDS else True
