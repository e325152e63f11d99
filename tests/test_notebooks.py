"""What a notebook shows of results: small, escaped, and without a flood of numbers."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import neuronwise as nw
from edits import random_edit
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron
from neuronwise.study.kind import Study
from wired import red_square
from wired_study import talking

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"
LARGEST = 60_000  # characters of HTML


@pytest.fixture(scope="module")
def shown(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One of each, with hostile strings where results have strings of users and models."""
    model, folder = talking(tiny_tokenizer), tmp_path_factory.mktemp("index")
    photo, _ = red_square(7, 7)
    photo.resize((1200, 900)).save(folder / "red.png")
    run = model.run(image=photo.resize((1200, 900)), prompt="the", max_new_tokens=2)
    found = nw.find(model, run, ["dog"], method="contribution", evidence="relp")
    index = nw.Index.build(model, [folder / "red.png"], prompt="the", out=folder / "index", max_new_tokens=2)
    assert index is not None
    assert found.concepts[0].heat is not None
    assert found.concepts[0].evidence is not None
    circuit = nw.circuit(model, run, "dog", nodes=20)
    many = tuple(ScoredNeuron(Neuron(0, unit), 1.0) for unit in range(5000))
    rows = [{"case": HOSTILE, "value": 1.5, "list": [1] * 1000}] * 300
    return {
        "set": NeuronSet(many, {"method": HOSTILE}),
        "finding": replace(found, concepts=tuple(replace(one, word=HOSTILE) for one in found.concepts)),
        "heat": replace(found.concepts[0].heat, note=HOSTILE),
        "evidence": replace(found.concepts[0].evidence, note=HOSTILE),
        "circuit": replace(circuit, record={**circuit.record, "target": HOSTILE}),
        "edit": replace(random_edit(model), record={"method": "x", "request": {"word": HOSTILE}}),
        "study": Study("x", {"recipe": {}}, rows, rows, {}, {}, 300),
        "entry": index["L1.U3"],
        "lens": nw.lens(model, run, "dog"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["set", "finding", "heat", "evidence", "circuit", "edit", "study", "entry"]
)  # fmt: skip
def test_html_is_small_and_hostile_strings_stay_text(shown: dict[str, Any], name: str) -> None:
    content = shown[name]._repr_html_()
    assert 0 < len(content) < LARGEST
    tags = Tags()
    tags.feed(content)
    assert not {"script", "iframe", "link"} & set(tags.names)
    assert all(source.startswith("data:image/jpeg") for source in tags.sources)
    assert not any("onerror" in names for names in tags.attributes)
    if name != "entry":
        assert HOSTILE in "".join(tags.texts)


class Tags(HTMLParser):
    """The tags of a piece of HTML, what they load, and its texts."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.sources: list[str] = []
        self.attributes: list[list[str]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes.append([name for name, _ in attrs])
        self.sources += [value or "" for name, value in attrs if name == "src"]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_nothing_prints_its_arrays(shown: dict[str, Any]) -> None:
    for name, one in shown.items():
        assert len(repr(one)) < 300, name
        assert "array(" not in repr(one)
        assert "tensor(" not in repr(one)


def test_a_table_says_how_many_more_there_are(shown: dict[str, Any], tmp_path: Path) -> None:
    assert "and 4990 more" in shown["set"]._repr_html_()
    assert shown["set"]._repr_html_().count("<tr>") == 11
