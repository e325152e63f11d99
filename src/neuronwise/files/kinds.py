"""Kinds of values, as annotations say them: whether a value is of one, and what it is called in a sentence."""

from __future__ import annotations

import math
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import (
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

_PLAIN: dict[object, str] = {
    int: "a whole number", float: "a number", bool: "true or false", str: "a text", types.NoneType: "none",
}  # fmt: skip
_SEVERAL = (Sequence, Iterable, list, tuple)
WRONG = object()  # what no value is


def misfits(content: object, form: Any) -> str | None:
    """What of a JSON value is not as a ``TypedDict`` has it: a missing key, or one of another kind; None if none."""
    if not isinstance(content, Mapping):
        return "it is not an object"
    for key, said in get_type_hints(form, include_extras=True).items():
        # ``__required_keys__`` does not see through annotations that are texts.
        marked = get_origin(said)
        hint = get_args(said)[0] if marked in (Required, NotRequired) else said
        if key not in content:
            if marked is Required or (form.__total__ and marked is not NotRequired):
                return f"{key!r} is missing"
        elif as_kind(content[key], hint) is WRONG:
            return f"{key!r} is not {described(hint)}"
    return None


def described(hint: object) -> str:
    """A kind in words: "a whole number or none"."""
    origin, parts = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(described, parts)))
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in _PLAIN:
        return _PLAIN[origin]
    if origin in _SEVERAL:
        items = dict.fromkeys(many(described(part)) for part in parts if part not in (Ellipsis, object, Any))
        return "a list of " + " or ".join(items) if items else "a list"
    if origin in (dict, Mapping) or is_typeddict(origin):
        return "an object"
    return a(getattr(origin, "__name__", str(origin)))


def a(noun: str) -> str:
    """ "a Run", "an Edit"."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def many(words: str) -> str:
    """ "a whole number or a list of texts" → "whole numbers or lists of texts"."""
    return re.sub(r"\ban? ((?:whole )?\w+)", r"\1s", words)


def as_kind(value: object, hint: object) -> object:
    """The value as a kind takes it, or ``WRONG``; kinds that are not known take everything."""
    if hint is Any:
        return value
    origin, parts = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        return next((found for found in (as_kind(value, part) for part in parts) if found is not WRONG), WRONG)
    if origin is Literal:
        return value if isinstance(value, tuple(map(type, parts))) and value in parts else WRONG
    if origin in _PLAIN:
        return _as_plain(value, origin)
    if origin in _SEVERAL:
        return _as_several(value, origin, parts)
    if is_typeddict(origin):
        return value if not misfits(value, origin) else WRONG
    if origin in (dict, Mapping) and parts:
        fits = isinstance(value, Mapping) and not any(as_kind(one, parts[1]) is WRONG for one in value.values())
        return value if fits else WRONG
    return value if not isinstance(origin, type) or isinstance(value, origin) else WRONG


def _as_plain(value: Any, kind: object) -> object:
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # a number of NumPy or torch
        value = value.item()
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return _as_float(value)
    if kind is int and isinstance(value, bool):
        return WRONG
    return value if kind is not float and isinstance(value, kind) else WRONG  # type: ignore[arg-type]


def _as_float(value: float) -> object:
    try:
        number = float(value)
    except OverflowError:
        return WRONG
    if math.isnan(number):
        return WRONG
    return value if abs(number) < 2**63 else number  # torch takes no larger whole numbers


def _as_several(value: Any, origin: object, parts: tuple[Any, ...]) -> object:
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__iter__") or getattr(value, "ndim", 1) == 0:
        return WRONG
    if origin is Iterable and not isinstance(value, (list, tuple)):
        return value  # a generator is not looked into
    if not (hasattr(value, "__len__") and hasattr(value, "__getitem__")):
        return WRONG
    if hasattr(value, "iterrows"):  # a data frame, whose length is not that of what it iterates over
        return WRONG
    fixed = origin is tuple and not (len(parts) == 2 and parts[1] is Ellipsis)
    if fixed and len(value) != len(parts):
        return WRONG
    kinds = parts if fixed else (parts[0] if parts else object,) * len(value)
    items = [as_kind(item, kind) for item, kind in zip(value, kinds, strict=True)]
    if any(item is WRONG for item in items):
        return WRONG
    same = isinstance(value, (list, tuple)) and all(new is old for new, old in zip(items, value, strict=True))
    return value if same and not (origin is tuple and isinstance(value, list)) else tuple(items)
