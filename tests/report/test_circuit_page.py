"""The page of a circuit in a browser: what pointing, holding and moving show, on a phone, in the dark."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conformed import words
from families import tiny
from neuronwise.locate import Circuit, circuit
from neuronwise.model import Model, Run
from neuronwise.model.prompt import Prompted
from neuronwise.report.filled import filled, photo_element, write_index

pytestmark = pytest.mark.browser
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def found() -> Circuit:
    module, inputs = tiny("llama")
    run = Run.of(Model(module, words(), name=HOSTILE), Prompted("Which word?", False, inputs))
    return circuit(run.model, run, target=9, nodes=20, heads=60)


@pytest.fixture(scope="module")
def text_page(found: Circuit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return found.page(tmp_path_factory.mktemp("circuit"))


@pytest.fixture(scope="module")
def photo_page(found: Circuit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a photo whose four patches are the first positions."""
    content = found.to_dict()
    for leaf in content["leaves"][:4]:
        leaf["kind"] = "image"
    rows = [{**row, "raises": [" dog", HOSTILE], "lowers": ["\n"]} for row in content["nodes"]]
    grid = {"positions": [0, 1, 2, 3], "rows": 2, "columns": 2, "box": [0.1, 0.0, 0.9, 1.0]}
    content["note"] = "'dog' is 2 tokens."
    shown = {**content, "nodes": rows, "grid": grid, "num_layers": 3, "all_edges": len(content["edges"])}
    photo = photo_element(Image.new("RGB", (300, 200), (90, 90, 90)), "a dog")
    page = filled("circuit", ("circuit.js",), title="a circuit", photo=photo, circuit=shown)
    return write_index(tmp_path_factory.mktemp("photo"), page)


def detail(page: Any) -> str:
    return str(page.locator('[data-part="detail"]').inner_text())


def test_pointing_at_a_node_shows_what_it_gets(open_page: Any, text_page: Path, found: Circuit) -> None:
    page = open_page(text_page)
    assert page.locator(".node").count() == len(found.nodes) + len(found.leaves) + 1
    assert "Point at a node" in detail(page)
    strongest = str(found.nodes[0])
    page.locator(f'[data-place="{strongest}"]').hover()
    shown = detail(page)
    assert shown.startswith(strongest)
    assert f"relevance {found.nodes[0].score:.3f}" in shown
    assert "raises" in shown
    for head, weight in list(found.hops[strongest].items())[:5]:
        assert re.search(rf"{head}\s+{weight:.3f}", shown)
    page.mouse.move(2, 2)
    assert "Point at a node" in detail(page)


def test_an_edge_tells_its_heads(open_page: Any, text_page: Path, found: Circuit) -> None:
    page = open_page(text_page)
    edge = next(edge for edge in found.edges if edge.heads)
    page.locator(f'[data-edge="{edge.source} {edge.target}"]').dispatch_event("mouseenter")
    shown = detail(page)
    assert f"passes on {edge.weight:.3f}" in shown
    for head, weight in list(edge.heads.items())[:8]:
        assert re.search(rf"{head}\s+{weight:.3f}", shown)
    assert f"without any: {edge.weight - sum(edge.heads.values()):.3f}".replace("-0.000", "0.000") in shown.replace(
        "-0.000", "0.000"
    )


def test_a_node_is_held_until_it_is_let_go(open_page: Any, text_page: Path, found: Circuit) -> None:
    page = open_page(text_page)
    first, second = (page.locator(f'[data-place="{node}"]') for node in found.nodes[:2])
    first.click()
    second.hover(force=True)
    assert detail(page).startswith(str(found.nodes[0]))
    assert "held" in str(first.get_attribute("class"))
    page.keyboard.press("Escape")
    assert "Point at a node" in detail(page)
    second.focus()
    page.keyboard.press("Enter")
    page.mouse.move(2, 2)
    assert detail(page).startswith(str(found.nodes[1]))
    page.locator('[data-part="unpin"]').click()
    assert "Point at a node" in detail(page)


def test_fewer_edges_are_drawn_when_asked(open_page: Any, text_page: Path, found: Circuit) -> None:
    page = open_page(text_page)
    slider = page.locator('[data-part="count"]')
    slider.fill("10")
    assert page.locator(".edge").count() == 10
    assert page.locator('[data-part="shown"]').inner_text() == f"10 of {len(found.edges)}"


def test_patches_light_up_on_the_photo(open_page: Any, photo_page: Path, found: Circuit) -> None:
    page = open_page(photo_page)
    assert page.locator(".stage img").is_visible()
    cells = page.locator(".patches i")
    assert cells.count() == 4
    photo, first = page.locator(".stage img").bounding_box(), cells.nth(0).bounding_box()
    assert first["width"] == pytest.approx(0.4 * photo["width"], abs=1)
    assert first["x"] - photo["x"] == pytest.approx(0.1 * photo["width"], abs=1)
    assert page.locator('[data-part="about"]').inner_text().endswith("'dog' is 2 tokens.")
    page.locator('[data-place="target"]').click()
    given = [
        sum(edge.weight for edge in found.into("target") if edge.source == f"@{position}") for position in range(4)
    ]
    opacity = [float(cells.nth(at).evaluate("cell => getComputedStyle(cell).opacity")) for at in range(4)]
    largest = max(map(abs, given))
    assert opacity == pytest.approx([0.75 * abs(value) / largest for value in given], abs=1e-3)
    assert page.locator("img").count() == 1  # hostile tokens stay text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1300])
def test_it_fits_every_screen(open_page: Any, photo_page: Path, width: int, scheme: str) -> None:
    page = open_page(photo_page, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    light = [sum(map(int, re.findall(r"\d+", color)[:3])) for color in (ink, paper)]
    assert (light[0] > light[1]) == (scheme == "dark")
    if width == 1300:  # few columns: nothing is out of sight
        wide = page.locator(".wide")
        assert wide.evaluate("box => box.scrollWidth <= box.clientWidth + 1")


def test_options_are_words_and_the_root_is_what_the_contrast_makes_it(text_page: Path, open_page: Any) -> None:
    page = open_page(text_page)
    assert "a share of the target's logit over the mean of all tokens, " in page.text_content('[data-part="about"]')
    assert "nodes 20, heads 60, contrast none" in page.text_content('[data-part="made"]')
