"""Cases one after another in this process, and how long they took together."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from neuronwise.model import Model
from neuronwise.model.named import Named
from neuronwise.study.executors import Executor, Make, Running, Workers
from neuronwise.study.workers.serial import SERIAL


@contextlib.contextmanager
def start(model: Model | Named, make: Make, workers: Workers) -> Iterator[Running]:
    """The serial executor; the log gets a line at the end."""
    began = time.perf_counter()
    with SERIAL.start(model, make, workers) as running:
        yield running
    logging.getLogger(__name__).warning("the study took %.1f s", time.perf_counter() - began)


EXECUTOR = Executor("timed", start, remote=False)
