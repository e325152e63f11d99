"""What a user hands to a function: checked once against the function's own annotations, and said in one sentence."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import (
    Any,
    Literal,
    NotRequired,
    ParamSpec,
    Required,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from neuronwise.errors import ArgumentError, NeuronwiseError

P = ParamSpec("P")
T = TypeVar("T")

_PLAIN: dict[object, str] = {
    int: "a whole number", float: "a number", bool: "true or false", str: "a text", types.NoneType: "none",
}  # fmt: skip
LARGEST_SEED = 2**63 - 1  # what all generators of random numbers take
_SEVERAL = (Sequence, Iterable, list, tuple)
_WRONG = object()
_FREE = contextlib.nullcontext()


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Refuse arguments of another kind than the function's annotations; NumPy's numbers become Python's.

    >>> @checked
    ... def top(count: int) -> None: ...
    >>> top("5")  # ArgumentError: top: count='5' does not fit; it takes a whole number.

    Where the first argument is a model, other threads that use it wait until the function has returned.
    Annotations that say more than plain kinds, classes, several of them, or lists of them are not looked at.
    """
    signature = inspect.signature(function)
    known = functools.cache(lambda: kinds_of(function))

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if signature.parameters[name].kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                bound.arguments[name] = taken(name, value, known().get(name, object), function.__name__)
        with getattr(next(iter(bound.arguments.values()), None), "lock", _FREE):
            return function(*bound.args, **bound.kwargs)

    return call


def kinds_of(function: Callable[..., object]) -> dict[str, object]:
    """The kind of each parameter; ``object`` where it has none, or one that is imported for typing only."""
    inner = inspect.unwrap(function)
    found: dict[str, object] = {}
    for name, parameter in inspect.signature(inner).parameters.items():
        hint = object if parameter.annotation is parameter.empty else parameter.annotation
        try:
            found[name] = eval(hint, inner.__globals__) if isinstance(hint, str) else hint  # our own code's
        except (NameError, TypeError):
            found[name] = object
    return found


def taken(name: str, value: object, hint: object, where: str = "", error: type[NeuronwiseError] = ArgumentError) -> Any:
    """``value`` as a parameter of kind ``hint`` takes it; raises ``error`` where it does not."""
    found = _as(value, hint)
    if name == "seed" and isinstance(found, int) and not 0 <= found <= LARGEST_SEED:
        raise error(
            f"{where + ': ' if where else ''}seed={found} does not fit; it takes a whole number from 0, below 2^63."
        )
    if found is _WRONG:
        shown = f"{name}={value!r:.80}" if isinstance(value, (int, float, str, bool, types.NoneType)) else (
            f"{name}, {a(type(value).__name__)},"
        )  # fmt: skip
        raise error(f"{where + ': ' if where else ''}{shown} does not fit; it takes {described(hint)}.")
    return found


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
        elif _as(content[key], hint) is _WRONG:
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


def _as(value: object, hint: object) -> object:
    """The value as a kind takes it, or ``_WRONG``; kinds that are not known take everything."""
    if hint is Any:
        return value
    origin, parts = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        return next((found for found in (_as(value, part) for part in parts) if found is not _WRONG), _WRONG)
    if origin is Literal:
        return value if value in parts else _WRONG
    if origin in _PLAIN:
        return _as_plain(value, origin)
    if origin in _SEVERAL:
        return _as_several(value, origin, parts)
    if is_typeddict(origin):
        return value if not misfits(value, origin) else _WRONG
    if origin in (dict, Mapping) and parts:
        fits = isinstance(value, Mapping) and not any(_as(one, parts[1]) is _WRONG for one in value.values())
        return value if fits else _WRONG
    return value if not isinstance(origin, type) or isinstance(value, origin) else _WRONG


def _as_plain(value: Any, kind: object) -> object:
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # a number of NumPy or torch
        value = value.item()
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value):
        return value
    if kind is int and isinstance(value, bool):
        return _WRONG
    return value if kind is not float and isinstance(value, kind) else _WRONG  # type: ignore[arg-type]


def _as_several(value: Any, origin: object, parts: tuple[Any, ...]) -> object:
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__iter__"):
        return _WRONG
    if origin is Iterable and not isinstance(value, (list, tuple)):
        return value  # a generator is not looked into
    if not (hasattr(value, "__len__") and hasattr(value, "__getitem__")):
        return _WRONG
    fixed = origin is tuple and not (len(parts) == 2 and parts[1] is Ellipsis)
    if fixed and len(value) != len(parts):
        return _WRONG
    kinds = parts if fixed else (parts[0] if parts else object,) * len(value)
    items = [_as(item, kind) for item, kind in zip(value, kinds, strict=True)]
    if any(item is _WRONG for item in items):
        return _WRONG
    same = isinstance(value, (list, tuple)) and all(new is old for new, old in zip(items, value, strict=True))
    return value if same and not (origin is tuple and isinstance(value, list)) else tuple(items)
