"""Plain texts from files, folders and rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuronwise.data.texts import read_texts
from neuronwise.errors import DataError


def test_texts_from_files_folders_and_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\nline\n\n\ntwo\n")
    (tmp_path / "b.jsonl").write_text('{"text": "three"}\n\n{"text": "four", "n": 1}\n')
    (tmp_path / "c.bin").write_bytes(b"\xff")
    assert list(read_texts(tmp_path)) == ["one\nline", "two", "three", "four"]
    assert list(read_texts([{"words": "five"}, "six", " "], field="words")) == ["five", "six"]
    with pytest.raises(DataError, match=r"line 1 of .*'words'"):
        list(read_texts(tmp_path / "b.jsonl", field="words"))
    (tmp_path / "b.jsonl").write_text("{\n")
    with pytest.raises(DataError, match="Line 1"):
        list(read_texts(tmp_path / "b.jsonl"))
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="UTF-8"):
        list(read_texts(tmp_path / "bad.txt"))
    with pytest.raises(DataError, match="no file or folder"):
        list(read_texts(tmp_path / "none.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no text"):
        list(read_texts(tmp_path / "empty"))
