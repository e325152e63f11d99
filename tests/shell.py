"""The command line in the tests' own process."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from neuronwise import cli


@dataclass
class Done:
    """An exit status, and what was written where."""

    returncode: int
    stdout: str
    stderr: str


def shell(*arguments: object, expect: int = 0) -> Done:
    """Run a command, whose exit status must be ``expect``."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["neuronwise", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else 0
    assert status == expect, err.getvalue()
    return Done(status, out.getvalue(), err.getvalue())


def refused(*arguments: object) -> str:
    """The one sentence on standard error of a command that is refused with exit status 2."""
    done = shell(*arguments, expect=2)
    assert done.stdout == ""
    assert done.stderr.startswith("neuronwise: ")
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr
