"""Locks, also where the file system has none."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from neuronwise.errors import NeuronwiseError, StudyError
from neuronwise.files import Lines, held


def refused(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.fixture(params=["flock", "missing", "refused", "idle"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Machines with flock, without it, where it fails, and where it does nothing."""
    fcntl = pytest.importorskip("fcntl")
    if request.param == "missing":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    elif request.param != "flock":
        monkeypatch.setattr(fcntl, "flock", refused if request.param == "refused" else lambda *_: None)
    return request.param


def test_one_at_a_time_everywhere(where: str, tmp_path: Path) -> None:
    path, folder = tmp_path / "rows.jsonl", tmp_path / "made"
    folder.mkdir()
    for _ in range(2):
        with Lines(path) as lines:
            assert (tmp_path / ".rows.jsonl.lock").exists() == (where != "flock")
            with pytest.raises(StudyError, match="another run") as said:
                Lines(path)
            assert ("delete" in str(said.value)) == (where != "flock")
            lines.append({"id": len(lines.rows)})
        with held(folder), pytest.raises(NeuronwiseError, match="Another process is writing into"), held(folder):
            pass
    assert sorted(one.name for one in tmp_path.iterdir()) == ["made", "rows.jsonl"]
    assert len(path.read_text().splitlines()) == 2


def test_a_dead_process_holds_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    mark = tmp_path / ".rows.jsonl.lock"
    mark.write_text(json.dumps({"host": socket.gethostname(), "pid": gone.pid}))
    with Lines(tmp_path / "rows.jsonl"):
        assert json.loads(mark.read_text())["pid"] == os.getpid()
    for other in ({"host": "another", "pid": gone.pid}, {"host": socket.gethostname(), "pid": os.getppid()}):
        mark.write_text(json.dumps(other))
        with pytest.raises(StudyError, match=r"delete '.*\.rows\.jsonl\.lock'"):
            Lines(tmp_path / "rows.jsonl")
    mark.write_text("")
    with pytest.raises(StudyError, match="delete"):
        Lines(tmp_path / "rows.jsonl")
