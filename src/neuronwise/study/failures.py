"""What may happen to one case without ending a study."""

from __future__ import annotations

import gc
from collections.abc import Mapping

import torch

from neuronwise.errors import NeuronwiseError, is_out_of_memory

FAILURES = (NeuronwiseError, MemoryError, torch.OutOfMemoryError, RuntimeError)


def reason(error: BaseException) -> str:
    """The sentence that a failed case is recorded with; raises the error again when it is a defect, not a failure."""
    text = " ".join(str(error).split())
    if is_out_of_memory(error):
        release()
        return f"out of memory: {text}" if text else "out of memory"
    if isinstance(error, NeuronwiseError):
        return text
    raise error


def release() -> None:
    """Give memory back that nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def reasons_of(skipped: Mapping[str, str], most: int = 4) -> str:
    """Why concepts were left out, of the first few."""
    listed = [f"{name}: {why}" for name, why in skipped.items()]
    more = [f"and {len(listed) - most} more"] if len(listed) > most else []
    return "; ".join([*listed[:most], *more])
