"""What counts as a fault: a traceback, a hang, a half-written file, a message of several lines, a changed weight."""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from neuronwise import cli
from neuronwise.errors import NeuronwiseError

WORKING, WAITING = 30.0, 90.0  # seconds of computing, and by the clock: every input is small, and so are the models
RESUMED = ("statistics", "study", "evaluate", "photos", "convert")  # commands whose unfinished work is kept
FAULTS = ("traceback", "hang", "half-written file", "multi-line message", "changed weights", "broken JSON")


class Fault(Exception):
    """One fault: its kind, where it happened, and what was tried."""

    def __init__(self, kind: str, where: str, tried: object) -> None:
        super().__init__(f"{kind} at {where}: {tried!r:.2000}")
        self.kind, self.where = kind, where


class _Hang(BaseException):
    """It computes for longer than ``WORKING``, or waits for longer than ``WAITING``."""


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Raise ``_Hang`` in the body where it takes too long; where code without Python waits on, end the process."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise _Hang

    clocks = ((signal.ITIMER_PROF, signal.SIGPROF, WORKING), (signal.ITIMER_REAL, signal.SIGALRM, WAITING))
    before = [signal.signal(number, ring) for _, number, _ in clocks]
    for clock, _, seconds in clocks:
        signal.setitimer(clock, seconds)
    faulthandler.dump_traceback_later(2 * WAITING, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        for (clock, number, _), handler in zip(clocks, before, strict=True):
            signal.setitimer(clock, 0)
            signal.signal(number, handler)


def place_of(error: BaseException) -> str:
    """Where an error was raised, and the last line of ours on the way there."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = next((one for one in reversed(frames) if "/neuronwise/" in one.filename), frames[-1])
    return f"{type(error).__name__} {ours.filename.rpartition('neuronwise/')[2]}:{ours.lineno} ({frames[-1].name})"


def sum_of(module: torch.nn.Module) -> str:
    """A hash of all weights."""
    digest = hashlib.sha256()
    for value in module.state_dict().values():
        digest.update(value.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Judge:
    """Runs commands and calls and raises ``Fault`` for what may not be; counts what it ran."""

    def __init__(self, models: dict[str, Any]) -> None:
        self.models = models
        self._sums = {name: sum_of(model.module) for name, model in models.items()}
        self.inputs, self.accepted = 0, 0

    def shell(self, *arguments: object) -> None:
        """Run a command in the present folder."""
        argv = [os.fsdecode(one) if isinstance(one, bytes) else str(one) for one in arguments]
        before = _files()
        out, err = io.StringIO(), io.StringIO()
        status: object = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["neuronwise", *argv])
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    with self._watched(argv):
                        cli.main()
                except SystemExit as leaving:
                    status = leaving.code or 0
        self._judge_words(argv, status, out.getvalue(), err.getvalue())
        self._judge_files(argv, status, before)
        self.require_weights(argv)
        self.accepted += status == 0

    def call(self, tried: object, function: Callable[[], object], *, steps: bool = False) -> None:
        """Call a function of the library, which may refuse its arguments in one line.

        ``steps``: it does several things, of which those before a refusal stay.
        """
        before = _files()
        status = 2
        try:
            with self._watched(tried):
                function()
            status = 0
        except NeuronwiseError as error:
            if len(str(error).splitlines()) != 1:
                raise Fault("multi-line message", place_of(error), tried) from error
        self._judge_files(["call"], 0 if steps else status, before)
        self.require_weights(tried)
        self.accepted += status == 0

    @contextlib.contextmanager
    def _watched(self, tried: object) -> Iterator[None]:
        self.inputs += 1
        try:
            with patience():
                yield
        except (SystemExit, NeuronwiseError, KeyboardInterrupt):
            raise
        except _Hang as error:
            raise Fault("hang", place_of(error), tried) from error
        except BaseException as error:
            raise Fault("traceback", place_of(error), tried) from error

    def _judge_words(self, argv: list[str], status: object, out: str, err: str) -> None:
        if status not in ((0, 1, 2) if "check" in argv else (0, 2)):
            raise Fault("traceback", f"exit status {status}", (argv, err))
        if status == 2 and argv:
            lines = err.split("\n")
            if lines.pop() or not lines or not all(line.startswith("neuronwise: ") for line in lines):
                raise Fault("multi-line message", " ".join(argv[:1]), (argv, err))
            if any(not one.isprintable() for line in lines for one in line):
                raise Fault("multi-line message", "unprintable", (argv, err))
        if status == 0 and "--json" in argv and "--help" not in argv:
            try:
                json.loads(out)
            except ValueError as error:
                raise Fault("broken JSON", argv[0], (argv, out)) from error

    def _judge_files(self, argv: list[str], status: object, before: set[str]) -> None:
        new = _files() - before
        half = {name for name in new if ".partial" in name or (Path(name).is_file() and not Path(name).stat().st_size)}
        half = {name for name in half if not name.endswith(".jsonl")}  # which only grow
        if half or (status == 2 and new and argv[0] not in RESUMED):
            raise Fault("half-written file", argv[0], (argv, sorted(new)))

    def require_weights(self, tried: object) -> None:
        """Raise ``Fault`` where a model is not as it was."""
        for name, model in self.models.items():
            if sum_of(model.module) != self._sums[name] or model.edits:
                raise Fault("changed weights", name, tried)


def _files() -> set[str]:
    return {os.path.join(folder, name) for folder, below, names in os.walk(".") for name in (*below, *names)}
