"""The commands of the index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schema_guard import validated
from shell import refused, shell

TEXTS = "the cat sits on the mat\n\na dog runs\n\nParis is the capital of France\n"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text(TEXTS)
    return path


@pytest.fixture
def index(texts: Path, tiny_folder: Path, tmp_path: Path) -> Path:
    out = tmp_path / "index"
    shell("index", "--texts", texts, "--out", out, "--model", tiny_folder)
    return out


def test_an_index_is_built_and_shown(texts: Path, tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    done = shell("index", "--texts", texts, "--out", out, "--model", tiny_folder, "--json")
    content = json.loads(done.stdout)
    assert (content["items"], content["neurons"], content["left_out"]) == (3, 144, {})
    assert content["bytes"] == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    again = shell("index", "build", "--texts", texts, "--out", out, "--model", tiny_folder)
    assert "144 neurons" in again.stdout
    entry = json.loads(shell("index", "show", out, "L1.U3", "--json").stdout)
    validated(entry)
    assert len(entry["places"]["predicting"]["top"]) == 3
    shown = shell("index", "show", out, "L1.U3", "--out", tmp_path / "f.svg", "-k", 2).stdout
    assert "L1.U3 fires where" in shown
    assert "the cat sits on the mat" in shown
    assert (tmp_path / "f.svg").read_text().startswith("<?xml")


def test_shards_are_merged(texts: Path, tiny_folder: Path, index: Path, tmp_path: Path) -> None:
    for part in (1, 2):
        arguments = ("--texts", texts, "--model", tiny_folder, "--out", tmp_path / f"s{part}", "--shard", f"{part}/2")
        assert json.loads(shell("index", *arguments, "--json").stdout)["shard"] == f"{part}/2"
    assert "Missing: shard 2/2" in refused("index", "merge", tmp_path / "s1", "--out", tmp_path / "m")
    shell("index", "merge", tmp_path / "s1", tmp_path / "s2", "--out", tmp_path / "m")
    for path in index.rglob("*"):
        if path.is_file():
            assert (tmp_path / "m" / path.relative_to(index)).read_bytes() == path.read_bytes()


def test_a_word_is_located(index: Path, tiny_folder: Path) -> None:
    found = json.loads(shell("index", "locate", index, "dog", "--json", "--top", 4).stdout)
    assert len(found["neurons"]) == 4
    assert found["record"]["named"] == 1
    writes = shell("index", "locate", index, "dog", "--by", "writes", "--model", tiny_folder, "--top", 3).stdout
    assert writes.count("L") >= 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "{tmp}/new"), "nothing to index"),
        (("--data", "{tmp}/no", "--out", "{tmp}/new"), "There is no folder"),
        (("--texts", "{tmp}/no.txt", "--out", "{tmp}/new"), "There is no file or folder of text"),
        (("--texts", "{texts}", "--out", "{tmp}/new", "--prompt", "x"), "--prompt has no effect without --data"),
        (("--texts", "{texts}", "--out", "{tmp}/new", "--shard", "5/2"), "write 1/4"),
        (("--texts", "{texts}", "--out", "{texts}"), "is a file"),
        (("--texts", "{texts}", "--out", "{index}", "--model", "{tiny}", "--length", 7), "is of other settings"),
        (("show", "{tmp}", "L1.U3"), "There is no index in"),
        (("show", "{index}", "L9.U3"), "There is no neuron L9.U3"),
        (("show", "{index}", "L1.U3", "--place", "image"), "this index has predicting, text"),
        (("locate", "{index}", "house"), "No photo or text of this index names"),
        (("locate", "{index}", "dog", "--by", "smell"), "choose fires or writes"),
        (("locate", "{index}", "dog", "--model", "{tiny}"), "--model has no effect without --by writes"),
    ],
)  # fmt: skip
def test_bad_input_gets_a_sentence(
    arguments: tuple[Any, ...], said: str, index: Path, texts: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    names = {"tmp": tmp_path, "texts": texts, "index": index, "tiny": tiny_folder}
    assert said in refused("index", *(str(one).format(**names) for one in arguments))
    assert not (tmp_path / "new").exists()
