"""The command that labels neurons, on a wired model in a folder."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from neuronwise.index import Index
from shell import refused, shell
from wired_words import WORDS, texts, wired_words


@pytest.fixture(scope="module")
def folder(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model and its texts."""
    folder = tmp_path_factory.mktemp("words")
    wired = wired_words(tiny_tokenizer)
    wired.module.save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    (folder / "texts.txt").write_text("\n\n".join(texts()))
    return folder


@pytest.fixture
def index(folder: Path, tmp_path: Path) -> Path:
    shell("index", "--texts", folder / "texts.txt", "--model", folder / "model", "--out", tmp_path / "index")
    return tmp_path / "index"


def test_labels_are_printed_and_kept(folder: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = folder / "model"
    named = ["explain", "L0.U1", "L0.U5", "--index", index, "--model", model, "--explainer", model]
    found = json.loads(shell(*named, "--json").stdout)
    schema = json.loads(resources.files("neuronwise.index").joinpath("labels.schema.json").read_text())
    jsonschema.validate(found, schema)
    assert [row["text"] for row in found["labels"]] == [WORDS[1], WORDS[5]]
    assert found["labels"][0]["raises"]
    assert json.loads((index / "labels.json").read_text()) == found
    printed = shell(*named).stdout
    assert "dog" in printed
    assert "1.00 [1.00, 1.00]" in printed
    monkeypatch.chdir(index.parent)  # where it is the only index
    shell("explain", "--top", 3, "--model", model, "--explainer", model)
    assert 3 <= len(Index.load(index).labels) <= 5


def test_bad_input_gets_a_sentence(folder: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = folder / "model"
    monkeypatch.chdir(folder)
    assert "here there is none" in refused("explain", "L0.U1")
    assert "Give neurons or --top" in refused("explain", "L0.U1", "--top", 3, "--index", index)
    assert "There is no neuron L9.U1" in refused("explain", "L9.U1", "--index", index)
    assert "There is no index in" in refused("explain", "L0.U1", "--index", tmp_path)
    assert "this index has predicting" in refused(
        "explain", "L0.U1", "--index", index, "--place", "image", "--model", model
    )
    assert "no-such" in refused("explain", "L0.U1", "--index", index, "--model", model, "--explainer", "no-such")
    done = shell("explain", "L0.U15", "--index", index, "--model", model, "--explainer", model, expect=2)
    assert "L0.U15 has no label: L0.U15 fires on 0 different texts" in done.stderr
    assert not (index / "labels.json").exists()
