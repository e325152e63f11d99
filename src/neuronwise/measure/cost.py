"""What an edit costs: seconds and peak memory beyond what was held before."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from neuronwise.model.model import Model

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Cost:
    """``seconds`` of wall time, ``cpu_seconds`` of all threads of this process (which other processes do not lengthen).

    ``peak_memory`` in bytes above the start, ``None`` where the system does not tell.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory: int | None = None


@contextlib.contextmanager
def costs(model: Model) -> Iterator[Cost]:
    """Measure the body: memory of the GPUs that hold the model, else growth of this process' resident memory.

    What is garbage before it begins is collected and given back, so that it can neither be used nor freed within.
    """
    cost = Cost()
    gc.collect()
    devices = {p.device for p in model.module.parameters() if p.device.type == "cuda"}
    for device in devices:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    allocated = sum(torch.cuda.memory_allocated(device) for device in devices)
    resident = None if devices else _start_resident()
    start, worked = time.perf_counter(), time.process_time()
    try:
        yield cost
    finally:
        for device in devices:
            torch.cuda.synchronize(device)
        cost.seconds, cost.cpu_seconds = time.perf_counter() - start, time.process_time() - worked
        if devices:
            cost.peak_memory = sum(torch.cuda.max_memory_allocated(device) for device in devices) - allocated
        elif resident is not None and (peak := _status("VmHWM")) is not None:
            cost.peak_memory = max(0, peak - resident)


def _start_resident() -> int | None:
    """Resident bytes now, the high-water mark brought down to them; ``None`` where there is no such file."""
    with contextlib.suppress(AttributeError, OSError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    try:
        CLEAR.write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _status(name: str) -> int | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
