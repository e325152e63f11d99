"""Files and folders: whole or not at all, torn ends, full disks, other processes."""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuronwise.errors import DataError, EditError, NeuronwiseError, StudyError
from neuronwise.files import (
    Lines,
    below,
    expanded,
    from_json,
    ordinary,
    read_lines,
    sha256,
    versions,
    whole_file,
    write_folder,
    write_json,
    write_text,
)

ROWS = [{"id": "a", "x": 1 / 3}, {"id": "b", "text": "zwei\nZeilen, ü \u2028"}, {"id": "c"}]


def filled(path: Path) -> bytes:
    with Lines(path) as lines:
        for row in ROWS:
            lines.append(row)
    return path.read_bytes()


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": [1, "ü", "\ud800"]})
    before = path.read_bytes()
    assert json.loads(before) == {"x": [1, "ü", "\ud800"]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": float("nan")})
    with pytest.raises(KeyboardInterrupt), whole_file(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert sha256(path) == hashlib.sha256(before).hexdigest()


@pytest.mark.parametrize("path", ["", ".", "/"])
def test_a_file_needs_a_name(path: str) -> None:
    with pytest.raises(NeuronwiseError, match="is not the path of a file"):
        write_text(path, "words")


def test_what_the_disk_refuses_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    with pytest.raises(EditError, match=r"'.*none/a.txt' cannot be written: No such file or directory"):
        write_text(tmp_path / "none" / "a.txt", "x", EditError)
    with pytest.raises(NeuronwiseError, match=r"'.*b.safetensors' cannot be written: .*I/O error"):
        with whole_file(tmp_path / "b.safetensors") as temporary:
            save_file({"a": torch.zeros(1)}, temporary / "below")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_filled_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"

    def half(into: Path) -> None:
        (into / "a.txt").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_folder(folder, half)
    assert list(tmp_path.iterdir()) == []

    def meanwhile(into: Path) -> None:
        (into / "a.txt").write_text("ours")
        (folder / "a.txt").write_text("theirs")  # another process was faster

    folder.mkdir(parents=True)
    with pytest.raises(NeuronwiseError, match="there already"):
        write_folder(folder, meanwhile)
    assert (folder / "a.txt").read_text() == "theirs"
    assert list(folder.parent.iterdir()) == [folder]


def test_versions() -> None:
    assert list(versions()) == ["neuronwise", "torch", "transformers", "python"]


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    filled(tmp_path / "rows.jsonl")
    with Lines(tmp_path / "rows.jsonl") as lines:
        assert lines.rows == ROWS


def test_a_file_cut_anywhere_loses_the_torn_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    whole = filled(path)
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends)
        with Lines(path) as lines:
            assert lines.rows == ROWS[:kept]
            for row in ROWS[kept:]:
                lines.append(row)
        assert path.read_bytes() == whole


def test_damage_in_the_middle_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    damaged = filled(path).replace(b'{"id": "b"', b'{"id": \0b"')
    path.write_bytes(damaged)
    with pytest.raises(StudyError, match="Line 2"):
        Lines(path)
    assert path.read_bytes() == damaged


def test_a_full_disk_leaves_whole_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room_for: Callable[[int], None]
) -> None:
    path = tmp_path / "rows.jsonl"
    with Lines(path) as lines:
        room_for(25)
        lines.append({"id": "a"})
        with pytest.raises(StudyError, match="No space left on device"):
            lines.append({"id": "b", "text": "long" * 20})
        monkeypatch.undo()
    with Lines(path) as lines:
        assert lines.rows == [{"id": "a"}]


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with Lines(tmp_path / "rows.jsonl"), pytest.raises(StudyError, match="another run"):
        Lines(tmp_path / "rows.jsonl")


def test_numbers_that_json_lacks_are_not_written(tmp_path: Path) -> None:
    with Lines(tmp_path / "rows.jsonl") as lines, pytest.raises(ValueError, match="not JSON compliant"):
        lines.append({"x": float("nan")})
    assert (tmp_path / "rows.jsonl").read_bytes() == b""


def test_rows_written_together_are_all_there_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room_for: Callable[[int], None]
) -> None:
    path, waited = tmp_path / "rows.jsonl", []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (waited.append(file), fsync(file)))
    taken: list[tuple[dict[str, Any], int]] = []
    with Lines(path, take=lambda row, start: taken.append((row, start))) as lines:
        lines.extend(ROWS)
        assert len(waited) == 1
        assert lines.rows == []
        room_for(40)
        with pytest.raises(StudyError, match="No space left on device"):
            lines.extend([{"id": "d"}, {"id": "e", "text": "long" * 20}])
        monkeypatch.undo()
    assert [row for row, _ in taken] == ROWS
    content = path.read_bytes()
    assert [json.loads(content[start:].split(b"\n")[0]) for _, start in taken] == ROWS
    assert content.count(b"\n") == len(ROWS)


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", '{"a": 1e400}', "[[-1e999]]"])
def test_numbers_that_json_lacks_are_not_read_where_they_must_be_finite(text: str) -> None:
    from_json(text)
    with pytest.raises(ValueError, match="it holds"):
        from_json(text, finite=True)


def test_half_a_surrogate_pair_is_kept_as_its_escape(tmp_path: Path) -> None:
    with Lines(tmp_path / "rows.jsonl") as lines:
        lines.append({"text": "a \ud800 b"})
    with Lines(tmp_path / "rows.jsonl") as lines:
        assert lines.rows == [{"text": "a \ud800 b"}]


def test_what_is_no_place_in_a_folder_is_none(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").touch()
    (tmp_path / "in" / "loop").symlink_to("loop")
    (tmp_path / "in" / "out").symlink_to(tmp_path)
    assert below(tmp_path / "in", "a") == tmp_path / "in" / "a"
    for name in ("b", "loop", "out", "../in/../..", "x" * 5000, "a\0b", "/etc/passwd"):
        assert below(tmp_path / "in", name) is None


def test_the_home_of_nobody_is_no_path() -> None:
    assert expanded("~/a") == Path.home() / "a"
    with pytest.raises(DataError, match="'~nobody-here/a' is no path"):
        expanded("~nobody-here/a", DataError)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no ordinary file"):
        ordinary(tmp_path / "pipe")
    with pytest.raises(OSError, match="no ordinary file"):
        list(read_lines(tmp_path / "pipe"))
    assert ordinary(tmp_path) == tmp_path


def test_tensors_are_read_from_ordinary_files_alone() -> None:
    """safetensors waits on a pipe in code that no signal ends."""
    calls = [
        (path.name, ast.unparse(node))
        for path in (Path(__file__).parents[1] / "src" / "neuronwise").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("load_file", "safe_open")
    ]
    assert len(calls) > 5
    assert [call for call in calls if "(ordinary(" not in call[1]] == []
