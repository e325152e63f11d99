"""Settings of editors are frozen dataclasses; what a user gives for them is checked here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, get_type_hints

from neuronwise.errors import MethodError
from neuronwise.registry.arguments import taken

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SIGNED = {"signed": True}  # metadata of a setting that may be negative


def checked(kind: type[DataclassInstance], changes: Mapping[str, object]) -> dict[str, object]:
    """Single settings of a settings class, lists as tuples.

    Raises ``MethodError`` for a name that the class does not have, and for a value of another kind than the setting's.
    """
    hints = get_type_hints(kind)
    for name in changes:
        if name not in hints:
            raise MethodError(f"There is no setting {name!r}; the settings are {', '.join(hints)}.")
    return {name: taken(name, value, hints[name], error=MethodError) for name, value in changes.items()}


def require_range(settings: DataclassInstance) -> None:
    """Raise ``MethodError`` for a number that is negative or not finite, wherever a setting does not mean it so.

    A setting that may be negative, such as a layer counted from the last one, says so:
    ``layer: int = field(default=-1, metadata=SIGNED)``.
    """
    for one in fields(settings):
        value = getattr(settings, one.name)
        if isinstance(value, (int, float)) and not (0 <= value < math.inf or one.metadata.get("signed")):
            raise MethodError(f"{one.name} is {value}; give a number from 0.")


def require_settings(kind: type[DataclassInstance], settings: object) -> None:
    """Raise ``MethodError`` for settings of another editor; None is always right."""
    if settings is not None and not isinstance(settings, kind):
        raise MethodError(f"These settings are {type(settings).__name__}; this editor takes {kind.__name__}.")
