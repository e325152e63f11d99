"""One thread at a time for each model: hooks, edits and passes of one must not meet those of another."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

from neuronwise.model.modes import own_mode

P = ParamSpec("P")
T = TypeVar("T")

# Not on the modules themselves: a lock can be neither copied nor saved.
_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_ADDING = threading.Lock()


class HasLock(Protocol):
    """A model, as far as its lock goes."""

    @property
    def lock(self) -> threading.RLock:
        """The lock of its weights."""
        ...


M = TypeVar("M", bound=HasLock)


def lock_of(module: nn.Module) -> threading.RLock:
    """The lock of a module: one thread holds it, as often as it likes, and others wait."""
    with _ADDING:
        return _LOCKS.setdefault(module, threading.RLock())


def alone(function: Callable[Concatenate[M, P], T]) -> Callable[Concatenate[M, P], T]:
    """Other threads that use the function's first argument, a model, wait until it has returned.

    It computes in ``own_mode``.
    """

    @functools.wraps(function)
    def call(model: M, *args: P.args, **kwargs: P.kwargs) -> T:
        if not hasattr(model, "lock"):  # what is no model is refused by the function itself
            return function(model, *args, **kwargs)
        with model.lock, own_mode():
            return function(model, *args, **kwargs)

    return call
