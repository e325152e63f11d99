"""Half precision judged in single precision: its rounding would hide faults of a percent, and fail sound models."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from neuronwise.errors import is_out_of_memory

HALF = (torch.bfloat16, torch.float16)


@contextlib.contextmanager
def in_single(module: nn.Module) -> Iterator[bool]:
    """Weights of half precision are float32 in the body and back, to the bit and in place, after it.

    Yields whether they are: not where there are none, some are quantized or offloaded, or memory lacks for a copy.
    """
    held = [*module.parameters(), *module.buffers()]
    half = [one for one in held if one.dtype in HALF and type(one.data) is Tensor and not one.is_meta]
    others = any(p.dtype not in (*HALF, torch.float32, torch.float64) or p.is_meta for p in module.parameters())
    if not half or others or not _fits(half):
        yield False
        return
    before = [one.data for one in half]
    try:
        for one in half:
            one.data = one.data.float()
    except RuntimeError as error:
        _put_back(half, before)
        if not is_out_of_memory(error):
            raise
        yield False
        return
    try:
        yield True
    finally:
        _put_back(half, before)


def _put_back(tensors: list[Tensor], before: list[Tensor]) -> None:
    for one, own in zip(tensors, before, strict=True):
        one.data = own


def _fits(tensors: list[Tensor]) -> bool:
    """Whether the machine's memory has room for the float32 copies of those that lie in it."""
    needed = sum(4 * one.numel() for one in tensors if one.device.type == "cpu")
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return True
    return needed < free
