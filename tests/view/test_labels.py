"""Labels of neurons on a neuron's page, on an index's, in the search and in an exported index."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import neuronwise as nw
from neuronwise.view.export import export
from neuronwise.view.viewer import Viewer
from wired_words import texts, wired_words

pytestmark = pytest.mark.browser
HOSTILE = '<img src=x onerror="alert(1)"> dogs'


@pytest.fixture
def built(tiny_tokenizer: Any, tmp_path: Path) -> Path:
    """An index with labels of three neurons, one of them hostile."""
    model, folder = wired_words(tiny_tokenizer), tmp_path / "index"
    index = nw.Index.build(model, texts=texts(), out=folder)
    assert index is not None
    nw.explain(index, ["L0.U0", "L0.U1", "L0.U2"], explainer=model)
    labels = index.labels
    labels.put(replace(labels["L0.U2"], text=HOSTILE))
    labels.write(folder)
    return folder


def test_a_neuron_says_its_label_and_what_it_is_worth(start: Any, built: Path, visit: Any) -> None:
    running = start([built])
    page = visit(running, "/n/L0.U1")
    label = nw.Index.load(built).labels["L0.U1"]
    assert page.locator("[data-part=label]").text_content() == "dog"
    worth = page.locator("[data-part=worth]").text_content()
    assert "wired words" in worth
    assert "1.00 [1.00, 1.00]" in worth
    assert label.control is not None
    assert f"another neuron's label {label.control.detection.auc.mean:.2f}".replace(" 0.", " .") in worth
    assert visit(running, "/n/L0.U2").locator("[data-part=label]").text_content() == HOSTILE
    assert visit(running, "/n/L0.U3").locator("[data-part=labelled]").is_hidden()


def test_labels_are_searched(start: Any, built: Path, visit: Any) -> None:
    running = start([built])
    page = visit(running, "/search?q=dog")
    page.locator("[data-part=labels] li").nth(1).wait_for()
    assert sorted(page.locator("[data-part=labels] a").all_text_contents()) == ["L0.U1", "L0.U2"]
    assert page.locator("[data-part=labels] img").count() == 0
    page.locator("[data-part=labels] a").first.click()
    page.wait_for_url("**/n/L0.U*")
    page = visit(running, "/index/0")
    assert page.locator("[data-part=labels] li").count() == 3
    page.locator("[data-part=wanted]").fill("CAT")
    assert page.locator("[data-part=labels] a").all_text_contents() == ["L0.U0"]
    page.locator("[data-part=wanted]").fill("zebra")
    assert page.locator("[data-part=labels] li").count() == 0
    assert page.locator("[data-part=labels-note]").text_content().startswith("None")


def test_a_damaged_file_of_labels_is_said_and_the_rest_is_shown(start: Any, built: Path, visit: Any) -> None:
    (built / "labels.json").write_text("{}")
    running = start([built])
    page = visit(running, "/n/L0.U1")
    assert "labels" in page.locator("[data-part=index-note]").text_content()
    assert page.locator(".stats dd").first.is_visible()
    page = visit(running, "/index/0")
    assert "labels" in page.locator("[data-part=note]").text_content()
    assert page.locator("[data-part=items] li").count() == len(texts())


def test_an_exported_index_has_them(built: Path, tmp_path: Path) -> None:
    page = export(Viewer.of([built], None, lambda: pytest.fail("no model")), tmp_path / "site", None, lambda *_: None)
    rows = json.loads((page.parent / "data" / "L0" / "0.json").read_text())
    assert rows["L0.U1"]["label"]["text"] == "dog"
    assert rows["L0.U3"]["label"] is None
    assert HOSTILE not in page.read_text()
