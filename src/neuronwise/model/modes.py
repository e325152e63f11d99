"""The modes of torch in which the library computes, whatever those of the caller are."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import torch

from neuronwise.registry.arguments import checked

P = ParamSpec("P")
T = TypeVar("T")


@contextlib.contextmanager
def own_mode() -> Iterator[None]:
    """Gradients are possible in the body, also within the caller's ``no_grad`` or ``inference_mode``."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def computes(function: Callable[P, T]) -> Callable[P, T]:
    """A public function that computes: its arguments are checked as by ``checked``, and it is in ``own_mode``."""
    inner = checked(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with own_mode():
            return inner(*args, **kwargs)

    return call
