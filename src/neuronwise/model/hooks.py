"""Hooks that are always let go: one context manager for every hook the package sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakSet

from torch import Tensor, nn

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Before = Callable[[nn.Module, Args, Kwargs], tuple[Args, Kwargs] | None]
After = Callable[[nn.Module, Args, Kwargs, Any], object]  # (module, args, kwargs, output) → another output, or None


class Removable(Protocol):
    """Anything that is undone by ``remove()``."""

    def remove(self) -> object:
        """Take the hook off."""


class Hooks:
    """Collects hooks and removes them all on exit, also when the body or a registration raises.

    >>> with Hooks() as hooks:
    ...     hooks.before(module, lambda module, args, kwargs: None)
    ...     hooks.after(module, lambda module, args, kwargs, output: None)

    A hook that returns something other than None replaces the arguments (a pair ``args, kwargs``) or the output.
    """

    def __init__(self) -> None:
        self._handles: list[Removable] = []
        self.modules: set[nn.Module] = set()
        _OPEN.add(self)

    def __enter__(self) -> Hooks:
        return self

    def __exit__(self, *exception: object) -> None:
        self.modules.clear()
        while self._handles:
            self._handles.pop().remove()

    def before(self, module: nn.Module, hook: Before) -> None:
        """Call ``hook`` before each call of ``module``."""
        self.modules.add(module)
        self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def after(self, module: nn.Module, hook: After) -> None:
        """Call ``hook`` after each call of ``module``."""
        self.modules.add(module)
        self._handles.append(module.register_forward_hook(hook, with_kwargs=True))

    def inside(self, module: nn.Module) -> Callable[[], bool]:
        """Returns a function that says whether ``module`` is being called, for parts that serve several layers."""
        active = [False]
        self.before(module, lambda *_: active.__setitem__(0, True))
        self.after(module, lambda *_: active.__setitem__(0, False))
        return lambda: active[0]

    def hold(self, handle: Removable) -> None:
        """Keep anything with a ``remove`` of its own, which is called on exit."""
        self._handles.append(handle)


_OPEN: WeakSet[Hooks] = WeakSet()


def hooked(module: nn.Module) -> bool:
    """Whether a hook of this package is set on the module or on a part of it now."""
    hooks = [hooks.modules for hooks in _OPEN if hooks.modules]
    return bool(hooks) and not set(module.modules()).isdisjoint(set().union(*hooks))


def first_tensor(args: Args, kwargs: Kwargs) -> Tensor:
    """The hidden states among a module's arguments: the first positional one, else ``hidden_states``."""
    if args:
        return args[0]
    return kwargs["hidden_states"] if "hidden_states" in kwargs else next(iter(kwargs.values()))


def replace_first(args: Args, kwargs: Kwargs, value: Tensor) -> tuple[Args, Kwargs]:
    """The same arguments with ``value`` where ``first_tensor`` looked."""
    if args:
        return (value, *args[1:]), kwargs
    name = "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))
    return args, {**kwargs, name: value}


def first_output(output: Any) -> Tensor:
    """The hidden states among a module's outputs: the first of several."""
    return output if isinstance(output, Tensor) else output[0]


def replace_output(output: Any, value: Tensor) -> Any:
    """The same outputs with ``value`` where ``first_output`` looked."""
    return value if isinstance(output, Tensor) else (value, *output[1:])
