"""Devices that exist in name alone: two accelerators that no machine needs to have.

``use()`` gives this process the devices "pretend:0" and "pretend:1". Their tensors hold their numbers on the CPU,
say that they lie elsewhere, and refuse to meet as tensors of two real devices do: all that take part in an operation
lie on one device, except for numbers without dimensions, indices that stand on the CPU, and copies from one to the
other. A process that has them keeps them, so tests that use them run in a process of their own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

NAME = "pretend"
ATEN: Any = torch.ops.aten
COPIES = (ATEN._to_copy.default, ATEN.copy_.default, ATEN._copy_from.default)
INDEXED = (ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default, ATEN._unsafe_index.Tensor)
# What torch calls from within, where a subclass is not asked.
FROM_WITHIN = ("empty.memory_format", "empty_strided", "copy_", "_copy_from", "fill_.Scalar", "zero_")
met: list[str] = []  # the operations that were refused


class Backend:
    """What torch asks a kind of device about itself."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 2

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def get_rng_state(self, device: torch.device) -> torch.Tensor:
        return torch.get_rng_state()  # its random numbers are the CPU's too

    def set_rng_state(self, state: torch.Tensor, device: torch.device) -> None:
        torch.set_rng_state(state)

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


class Tensor(torch.Tensor):
    """``held``, which lies on the CPU, as a tensor of another device. (Its name is that of a plain tensor's kind.)"""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: torch.Tensor, device: torch.device) -> Tensor:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=device,
        )  # fmt: skip
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{self.held!r} on {self.device}"

    def __format__(self, form: str) -> str:
        return format(self.held, form)

    def tolist(self) -> Any:
        return self.held.tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def dequantize(self) -> Any:
        return self  # as a plain tensor's numbers are

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        parts = function.decompose(*args, **kwargs or {})  # in inference mode they come whole
        return computed(function, args, kwargs or {}) if parts is NotImplemented else parts


def use() -> None:
    """Make the devices known to this process; raises ``ImportError`` for a torch that takes none from Python."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    for name in FROM_WITHIN:
        packet, _, overload = name.partition(".")
        operation = getattr(getattr(ATEN, packet), overload or "default")
        LIBRARY.impl(name, functools.partial(_from_within, operation), "PrivateUse1")
    torch.autograd.set_multithreading_enabled(False)  # torch counts one device of such a kind, and a thread for each
    torch.inference_mode = _without_inference  # type: ignore[misc, assignment]


def _without_inference(mode: Any = True) -> Any:
    """``torch.inference_mode``, called or as a decorator, whose tensors stay ordinary ones: no other kind can hold its.

    As torch's does, ``mode=False`` turns gradients on.
    """
    return torch.set_grad_enabled(not mode) if isinstance(mode, bool) else torch.no_grad(mode)


LIBRARY = torch.library.Library("aten", "IMPL")


def _from_within(operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return computed(operation, args, kwargs)


def computed(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on what the tensors hold, its results on the device that it belongs to.

    Raises ``RuntimeError`` where tensors of two devices meet.
    """
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    free = [index for index in args[1] if index is not None] if function in INDEXED else []
    devices = {
        tensor.device
        for tensor in tensors
        if isinstance(tensor, Tensor) or (tensor.dim() > 0 and not any(tensor is index for index in free))
    }
    if len(devices) > 1 and function not in COPIES:
        met.append(str(function))
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {function} got {sorted(map(str, devices))}."
        )
    device = kwargs.get("device")
    if function is ATEN.copy_.default:
        device = args[0].device
    elif function is ATEN._copy_from.default:
        device = args[1].device
    elif device is None:
        device = next(iter(devices), torch.device("cpu"))
    device = torch.device(device)
    if device.type == NAME and device.index is None:
        device = torch.device(NAME, 0)
    given = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, Tensor)}
    args, kwargs = tree_map(lambda value: value.held if isinstance(value, Tensor) else value, (args, kwargs))
    if kwargs.get("device") is not None:
        kwargs["device"] = torch.device("cpu")
    result = function(*args, **kwargs)
    if device.type != NAME:
        return result

    def placed(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return given.get(id(value)) if id(value) in given else Tensor(value, device)  # what is changed in place stays

    return tree_map(placed, result)
