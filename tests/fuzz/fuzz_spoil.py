"""Ways in which what a user gives goes wrong: values of another kind, damaged JSON, damaged bytes, strange names."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

RAW = "\ue000"  # around what goes into JSON as it is
TEXTS = (
    "", " ", "\n", "a\nb", "\x1b[31mred", "\u202e\u2028x", "\ud800", "🐈", "猫", "dog", "the", "{}", "{", "{0}", "{x}",
    "%s", "9" * 5000, "²",
    "<script>", "`code`", "x" * 5000, "../../x", "nan", "1e400", "-1", "0", "true", "null", "a\tb", "é", "e\u0301",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 7, 255, 10**6, 2**31, 2**63, -(2**63), 10**20, 0.5, -0.5, 1e-30, 1e30)
WRITTEN = ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 5000, "[" * 5000 + "]" * 5000, "1e-400")
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.sampled_from([f"{RAW}{one}{RAW}" for one in WRITTEN]),
    st.sampled_from([[], {}, [[]], [None], [{}], {"": None}, [1, "a", None], [[1, 2], [3]], {"a": {"b": 1}}]),
)
NAMES = (
    "no such", "folder", "fifo", "loop", "x" * 300, "a\nb", "a\x1b[31mb", os.fsdecode(b"\xff\xfe"), "", ".", "exp:1",
    "s3://b/c", "~nobody", "text.txt", "photo.png", "facts.json", "-", "--", "/dev/null/x", "/proc/self/mem/x", "a/b/c",
    "photo.png/x", "fifo/x", "mask.png", "set.json", "edit", "study", "evaluation", "statistics", "photos", "model",
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all parts of a JSON value, the whole one first."""
    found = [path]
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in parts:
        found += places(one, (*path, key))
    return found


def spoiled(data: st.DataObject, value: Any) -> Any:
    """A JSON value with one or two of its parts replaced, removed, doubled or added."""
    value = copy.deepcopy(value)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(places(value)))
        if not path:
            if data.draw(st.integers(0, 9)) == 0:
                return copy.deepcopy(data.draw(VALUES))
            continue
        owner = value
        for key in path[:-1]:
            owner = owner[key]
        how = data.draw(st.sampled_from(["replace", "replace", "replace", "remove", "double", "add"]))
        if how == "remove":
            del owner[path[-1]]
        elif how == "double" and isinstance(owner, list):
            owner.append(copy.deepcopy(owner[path[-1]]))
        elif how == "add" and isinstance(owner, dict):
            owner[data.draw(st.sampled_from(TEXTS[:12]))] = copy.deepcopy(data.draw(VALUES))
        else:
            owner[path[-1]] = copy.deepcopy(data.draw(VALUES))
    return value


def as_json(value: Any) -> str:
    """JSON with what stands between two ``RAW`` written as it is."""
    parts = json.dumps(value).split(f'"{json.dumps(RAW)[1:-1]}')
    return parts[0] + "".join(part.replace(f'{json.dumps(RAW)[1:-1]}"', "", 1) for part in parts[1:])


def damaged(data: st.DataObject, content: bytes) -> bytes:
    """Bytes that were cut off, changed, filled up or emptied."""
    how = data.draw(st.sampled_from(["cut", "change", "change", "insert", "empty", "zeros", "tail", "bom", "utf16"]))
    place = data.draw(st.integers(0, max(len(content) - 1, 0)))
    if how == "cut":
        return content[:place]
    if how == "empty":
        return b""
    if how == "zeros":
        return content[:place] + bytes(len(content) - place)
    if how == "tail":
        return content + b"\0" * 9
    if how == "bom":
        return b"\xef\xbb\xbf" + content
    if how == "utf16":
        return content.decode("latin-1").encode("utf-16")
    new = data.draw(st.binary(min_size=1, max_size=8))
    return content[:place] + new + content[place + (len(new) if how == "change" else 0) :]


def spoil_file(data: st.DataObject, path: Path) -> None:
    """Damage a file: its JSON (lines), its bytes, or what is at its place at all."""
    how = data.draw(st.sampled_from(["values"] * 6 + ["bytes"] * 2 + ["place"]))
    if how == "place":
        _misplace(path, data.draw(st.sampled_from(["gone", "folder", "fifo", "loop", "empty"])))
        return
    content = path.read_bytes()
    if path.suffix == ".safetensors" and how == "values":
        path.write_bytes(_with_header(data, content))
    elif how == "bytes" or path.suffix not in (".json", ".jsonl", ".yaml"):
        path.write_bytes(damaged(data, content))
    elif path.suffix == ".jsonl":
        rows = spoiled(data, [json.loads(line) for line in content.decode().split("\n") if line.strip()])
        path.write_text("\n".join(map(as_json, rows if isinstance(rows, list) else [rows])) + "\n", errors="replace")
    else:
        path.write_text(as_json(spoiled(data, json.loads(content))), errors="replace")


def _with_header(data: st.DataObject, content: bytes) -> bytes:
    """A file of safetensors whose header says something else of its tensors."""
    size = int.from_bytes(content[:8], "little")
    header = as_json(spoiled(data, json.loads(content[8 : 8 + size]))).encode(errors="replace")
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def _misplace(path: Path, how: str) -> None:
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "empty":
        path.touch()
