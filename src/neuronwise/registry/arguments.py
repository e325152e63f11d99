"""What a user hands to a function: checked once against the function's own annotations, and said in one sentence."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from neuronwise.errors import ArgumentError, NeuronwiseError
from neuronwise.files.kinds import WRONG, a, as_kind, described

P = ParamSpec("P")
T = TypeVar("T")

LARGEST_SEED = 2**63 - 1  # what all generators of random numbers take
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
    found = as_kind(value, hint)
    if name == "seed" and isinstance(found, int) and not 0 <= found <= LARGEST_SEED:
        raise error(
            f"{where + ': ' if where else ''}seed={found} does not fit; it takes a whole number from 0, below 2^63."
        )
    if found is WRONG:
        shown = f"{name}={value!r:.80}" if isinstance(value, (int, float, str, bool, types.NoneType)) else (
            f"{name}, {a(type(value).__name__)},"
        )  # fmt: skip
        raise error(f"{where + ': ' if where else ''}{shown} does not fit; it takes {described(hint)}.")
    return found
