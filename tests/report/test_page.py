"""The page of a finding: what it holds, what it refuses to run, and what a reader with a browser gets."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neuronwise.errors import NonFiniteError
from neuronwise.report import ConceptHeat, write_page

HOSTILE = "</script><img src=x onerror=alert(1)>"
TEXT = f"A 🐈 dog chases a cat & a dog. {HOSTILE} {{{{script}}}}"
PHOTO = (300, 200)
BOX = (100.0, 20.0, 260.0, 180.0)  # a model that crops: 4 × 4 cells of 40 pixels


def spans(word: str) -> list[list[int]]:
    return [[m.start(), m.end()] for m in re.finditer(re.escape(word), TEXT)]


def neurons(first_layer: int, count: int = 30) -> list[dict[str, Any]]:
    return [
        {
            "layer": first_layer + k % 3,
            "unit": 100 + k,
            "expert": None if k else 7,
            "score": 5.0 - 0.1 * k,
            "activation": -1.5 if k == 2 else 2.5,
            "tokens": [" dog", "dog", "\n", HOSTILE, "", "x" * 300, "\u202e", "é", "猫", "\u2028<!--"],
        }
        for k in range(count)
    ]


def concept(word: str, first_layer: int, **more: Any) -> dict[str, Any]:
    return {
        "word": word, "token": f" {word}", "token_id": 3, "position": 2, "occurrences": spans(word),
        "neurons": neurons(first_layer), **more,
    }  # fmt: skip


def make_finding(**changes: Any) -> dict[str, Any]:
    finding = {
        "schema": "neuronwise.find/1", "model": f"org/{HOSTILE}", "prompt": HOSTILE, "chat": True, "text": TEXT,
        "method": "contribution", "meaning": f"what {HOSTILE} adds to {{token}}, exactly",
        "options": {"contrast": [HOSTILE]}, "activation": "ffn", "seed": 2**63 + 1,
        "versions": {"neuronwise": "0.1.0"}, "top": 30, "num_layers": 12,
        "concepts": [concept("dog", 2), concept("cat", 5, note=HOSTILE), concept(HOSTILE, 8)],
    }  # fmt: skip
    return {**finding, **changes}


def make_text_finding() -> dict[str, Any]:
    paris = {**concept(" Paris", 4, position=None), "token": " Paris", "occurrences": []}
    return make_finding(prompt="The capital of France is", chat=False, text="", concepts=[paris])


def grid(row: int, column: int, peak: float = 3.0) -> list[list[float]]:
    return [[peak if (r, c) == (row, column) else 0.0 for c in range(4)] for r in range(4)]


def make_heat() -> list[ConceptHeat | None]:
    dog = ConceptHeat(grid(2, 1), [grid(1, 1), grid(1, 2), grid(2, 2, peak=-3.0)], BOX)
    return [dog, ConceptHeat(note="A Q-Former has no grid."), None]


def write_photo_page(directory: Path) -> Path:
    return write_page(directory, make_finding(), Image.new("RGB", PHOTO, (90, 90, 90)), make_heat())


def embedded(page: str, name: str) -> Any:
    match = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert match
    return json.loads(match[1])


# The file


def test_page_is_one_file_that_holds_the_finding_unchanged(tmp_path: Path) -> None:
    path = write_photo_page(tmp_path / "new" / "folder")
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]
    assert embedded(path.read_text(encoding="utf-8"), "finding-json") == make_finding()


def test_no_hostile_markup_and_no_outside_resource(tmp_path: Path) -> None:
    page = write_photo_page(tmp_path).read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert page.count("</script>") == 3
    assert "<!-- <!--" not in page
    assert "\u2028" not in page
    assert "\u202e" not in page
    assert not re.search(r"https?://|//cdn|@import|url\(", page)
    assert all(value.startswith("data:") for value in Links.of(page))
    assert "default-src 'none'" in page
    assert "unsafe-inline" not in page
    assert "innerHTML" not in page
    assert "eval(" not in page


class Links(HTMLParser):
    """What the page's elements refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    @classmethod
    def of(cls, page: str) -> list[str]:
        links = cls()
        links.feed(page)
        assert len(links.found) == 2  # the photo and the empty icon
        return links.found


def test_numbers_that_are_not_finite_leave_the_old_page_alone(tmp_path: Path) -> None:
    path = write_photo_page(tmp_path)
    before = path.read_bytes()
    broken = make_finding()
    broken["concepts"][0]["neurons"][0]["score"] = float("nan")
    with pytest.raises(NonFiniteError):
        write_page(tmp_path, broken)
    heat = [ConceptHeat([[float("inf")]]), None, None]
    with pytest.raises(NonFiniteError):
        write_page(tmp_path, make_finding(), Image.new("RGB", PHOTO), heat)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_heat_keeps_its_place_and_its_range(tmp_path: Path) -> None:
    page = write_photo_page(tmp_path).read_text(encoding="utf-8")
    dog, cat, hostile = embedded(page, "heat-json")
    assert dog["box"] == pytest.approx([1 / 3, 0.1, 260 / 300, 0.9])
    assert (dog["rows"], dog["columns"], len(dog["neurons"])) == (4, 4, 3)
    assert (dog["mean"]["low"], dog["mean"]["high"]) == (0.0, 3.0)
    assert cat == {"note": "A Q-Former has no grid.", "mean": None}
    assert hostile is None


def test_large_photos_are_made_smaller(tmp_path: Path) -> None:
    large = Image.effect_noise((4000, 3000), 60)
    path = write_page(tmp_path, make_finding(), large, None)
    assert 'width="1280" height="960"' in path.read_text(encoding="utf-8")
    assert large.size == (4000, 3000)  # the caller's photo is not touched


# The browser


def settle(page: Any) -> None:
    """Heat is drawn with the next frame."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def hottest(page: Any) -> tuple[float, float]:
    """The brightest pixel that a reader sees over the gray photo, in the photo's own pixels."""
    settle(page)
    shot = Image.open(io.BytesIO(page.locator("[data-part=photo]").screenshot())).convert("RGB")
    light = np.asarray(shot, dtype=int).sum(axis=2)[12:-12, 12:-12]  # less the rounded corners
    y, x = np.unravel_index(light.argmax(), light.shape)
    return (int(x) + 12.5) * PHOTO[0] / shot.width, (int(y) + 12.5) * PHOTO[1] / shot.height


def cell_center(row: int, column: int) -> tuple[float, float]:
    return BOX[0] + (column + 0.5) * 40, BOX[1] + (row + 0.5) * 40


def addresses(page: Any) -> list[str]:
    return page.locator(".rows .address").all_text_contents()


def test_clicking_a_word_shows_its_neurons(tmp_path: Path, open_page: Any) -> None:
    page = open_page(write_photo_page(tmp_path))
    words = page.locator(".caption .word")
    # Spans count code points: the cat before the dog is one character to Python and two to a browser.
    assert words.all_text_contents() == ["dog", "cat", "dog", HOSTILE]
    assert page.locator("[data-part=caption]").text_content() == TEXT
    assert page.locator("h1").text_content() == "dog"
    explained = page.locator("[data-part=explained]").text_content()
    assert explained.startswith(f"Score: what {HOSTILE} adds to ␣dog, exactly. Below each neuron")
    assert addresses(page)[:2] == ["L2.E7.U100", "L3.U101"]
    assert len(addresses(page)) == 20
    words.nth(1).click()
    assert page.locator("h1").text_content() == "cat"
    assert page.url.endswith("#cat")
    assert addresses(page)[0] == "L5.E7.U100"
    assert page.locator("[data-part=note]").text_content() == HOSTILE
    page.get_by_role("button", name="Show all 30").click()
    assert len(addresses(page)) == 30
    page.go_back()
    assert page.locator("h1").text_content() == "dog"
    words.nth(3).click()
    assert page.locator("h1").text_content() == HOSTILE
    chips = page.locator(".rows li").first.locator(".chip").all_text_contents()
    assert chips[:3] == ["␣dog", "↵", HOSTILE.replace(" ", "␣")]  # "dog" and "" are among the first two
    assert chips[4] == "U+202E"


def test_heat_lies_where_the_grid_is_hottest(tmp_path: Path, open_page: Any) -> None:
    page = open_page(write_photo_page(tmp_path))
    assert hottest(page) == pytest.approx(cell_center(2, 1), abs=4)
    opaque = """(canvas) => {
        const context = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
        context.drawImage(canvas, 0, 0);
        const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((value, k) => k % 4 === 3 && value > 0).length;
    }"""
    assert page.locator("canvas").evaluate(opaque) > 1000
    page.locator("[data-part=opacity]").fill("0")
    settle(page)
    assert page.locator("canvas").evaluate(opaque) == 0
    page.locator("[data-part=contour]").check()
    settle(page)
    assert page.locator("canvas").evaluate(opaque) > 100  # the outline alone


def test_a_neuron_shows_its_own_heat_and_keeps_it_when_pinned(tmp_path: Path, open_page: Any) -> None:
    page = open_page(write_photo_page(tmp_path))
    rows = page.locator(".rows li")
    rows.nth(1).hover()
    assert hottest(page) == pytest.approx(cell_center(1, 2), abs=4)
    page.mouse.move(5, 5)
    assert hottest(page) == pytest.approx(cell_center(2, 1), abs=4)
    rows.nth(0).click()
    page.mouse.move(5, 5)
    assert hottest(page) == pytest.approx(cell_center(1, 1), abs=4)
    assert rows.nth(0).locator(".address").get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="let go").click()
    assert hottest(page) == pytest.approx(cell_center(2, 1), abs=4)
    rows.nth(2).hover()  # helps by a negative activation: brightest where it is most negative
    assert hottest(page) == pytest.approx(cell_center(2, 2), abs=4)
    rows.nth(5).hover()
    settle(page)
    assert "no map of its own" in page.locator("[data-part=showing]").text_content()


def test_what_the_word_depends_on_comes_first_and_is_told_from_heat(tmp_path: Path, open_page: Any) -> None:
    map_ = [[value if value else -9.0 for value in row] for row in grid(1, 2)]
    evidence = {
        "by": HOSTILE, "meaning": f"{HOSTILE} of {{token}}", "options": {}, "unit": "nats", "signed": True,
        "grid": map_, "box": list(BOX), "photo": list(PHOTO), "note": HOSTILE,
    }  # fmt: skip
    finding = make_finding(concepts=[concept("dog", 2, evidence=evidence), concept("cat", 5)])
    page = open_page(write_page(tmp_path, finding, Image.new("RGB", PHOTO, (90, 90, 90)), make_heat()[:2]))
    showing = page.locator("[data-part=showing]")
    assert hottest(page) == pytest.approx(cell_center(1, 2), abs=4)
    assert showing.text_content().startswith(f"What dog depends on, by {HOSTILE}")
    assert [page.locator(f"[data-part={end}]").text_content() for end in ("low", "high")] == ["0", "3.00 nats"]
    page.get_by_role("button", name="where these neurons fire").click()
    assert hottest(page) == pytest.approx(cell_center(2, 1), abs=4)
    assert "not what the word depends on" in showing.text_content()
    page.get_by_role("button", name="what the word depends on").click()
    page.locator(".rows li").nth(0).hover()
    assert hottest(page) == pytest.approx(cell_center(1, 1), abs=4)
    page.mouse.move(5, 5)
    assert hottest(page) == pytest.approx(cell_center(1, 2), abs=4)
    page.locator(".word").nth(1).click()
    settle(page)
    assert page.locator("[data-part=views]").is_hidden()


def test_both_ends_of_a_neuron_are_shown_and_like_tokens_once(tmp_path: Path, open_page: Any) -> None:
    ends = {"raises": [" dog", "Dog", "\ufffd", "\ufffd\ufffd", "puppy"], "lowers": [" tax", HOSTILE]}
    listed = [{**neuron, **ends, "baseline": 1.0 if k else None} for k, neuron in enumerate(neurons(2))]
    finding = make_finding(schema="neuronwise.find/2", form="cosine", concepts=[concept("dog", 2, neurons=listed)])
    page = open_page(write_page(tmp_path, finding))
    row = page.locator(".rows li").nth(1)
    assert row.locator(".raises .chip").all_text_contents() == ["␣dog", "\ufffd", "puppy"]
    assert row.locator(".raises .chip").nth(0).get_attribute("title") == '" dog" "Dog"'
    assert row.locator(".raises .chip.own").count() == 1
    assert row.locator(".lowers .chip").count() == 2
    assert row.locator(".activation .beside").text_content() == "usually 1.00"
    assert page.locator(".activation .beside").count() == 19  # of the 20 that are shown; the first has none
    assert "raises and lowers here" in page.locator("[data-part=explained]").text_content()
    published = open_page(write_page(tmp_path / "published", {**finding, "form": "logits"}))
    assert published.locator(".rows li").nth(1).locator(".raises").count() == 0
    assert published.locator(".rows li").nth(1).locator(".chip").count() == len({*map(str.strip, listed[0]["tokens"])})


def test_missing_heat_is_explained(tmp_path: Path, open_page: Any) -> None:
    page = open_page(write_photo_page(tmp_path), "#cat")
    assert page.locator("[data-part=heat-note]").text_content() == "A Q-Former has no grid."
    assert not page.locator("canvas").is_visible()
    assert not page.locator("[data-part=opacity]").is_visible()


def test_layers_are_counted_and_filter(tmp_path: Path, open_page: Any) -> None:
    page = open_page(write_photo_page(tmp_path))
    assert page.locator("svg g").count() == 12
    assert page.locator("svg [role=button]").count() == 3
    page.locator("svg [data-layer='9']").hover()
    assert page.locator("[data-part=readout]").text_content() == "Layer 9: 0 of 30 neurons"
    page.locator("svg [data-layer='3']").click()
    assert len(addresses(page)) == 10
    assert all(a.startswith("L3.") for a in addresses(page))
    page.get_by_role("button", name="all layers").click()
    assert len(addresses(page)) == 20


def test_everything_is_reached_by_keyboard(tmp_path: Path, open_page: Any) -> None:
    page = open_page(write_photo_page(tmp_path))
    focused = "() => document.activeElement.textContent"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "dog"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator("h1").text_content() == "cat"
    page.locator("svg [tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert all(a.startswith("L6.") for a in addresses(page))
    page.keyboard.press("Escape")
    assert len(addresses(page)) == 20
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == "L6.U101"
    page.keyboard.press("Enter")
    assert page.locator(".address[aria-pressed=true]").text_content() == "L6.U101"
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.getAttribute('aria-label')") == "Copy L6.U101"
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('[role=status]').textContent === 'Copied L6.U101'")


def test_deep_link_and_download(tmp_path: Path, open_page: Any) -> None:
    page = open_page(write_photo_page(tmp_path), "#cat")
    assert page.locator("h1").text_content() == "cat"
    with page.expect_download() as started:
        page.get_by_role("button", name="Download the JSON").click()
    assert json.loads(Path(started.value.path()).read_text(encoding="utf-8")) == make_finding()


def test_a_sentence_without_photo(tmp_path: Path, open_page: Any) -> None:
    page = open_page(write_page(tmp_path, make_text_finding()))
    assert page.locator("[data-part=caption]").text_content() == "The capital of France is Paris"
    assert not page.locator("[data-part=seen]").is_visible()
    assert len(addresses(page)) == 20
    page.locator(".rows li").first.click()
    assert page.locator(".rows li.pinned").count() == 1


def test_nothing_found(tmp_path: Path, open_page: Any) -> None:
    page = open_page(write_page(tmp_path, make_finding(concepts=[]), Image.new("RGB", PHOTO), []))
    assert "No noun was found" in page.locator("[data-part=found]").text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [340, 1200])
def test_page_fits_and_is_not_blank(tmp_path: Path, open_page: Any, scheme: str, width: int) -> None:
    page = open_page(write_photo_page(tmp_path), viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    colors = shot.getcolors(shot.width * shot.height) or []
    assert len(colors) > 100
    paper = max(colors)[1]
    assert isinstance(paper, tuple)
    assert (sum(paper) > 600) == (scheme == "light")


def test_an_injected_script_does_not_run_and_nothing_is_sent(tmp_path: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto(write_photo_page(tmp_path).as_uri())
    blocked = page.evaluate(
        """async () => {
            const blocked = [];
            addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            await fetch("http://127.0.0.1:9/").catch(() => {});
            await new Promise((done) => setTimeout(done, 50));
            return [window.ran === undefined, ...blocked];
        }"""
    )
    page.close()
    assert blocked == [True, "script-src-elem", "connect-src"]


@pytest.mark.browser
def test_attention_heads_are_listed_where_the_finding_has_them(open_page: Any, tmp_path: Path) -> None:
    heads = [
        {"layer": 5, "head": 3, "score": 2.5, "raises": [" dog", HOSTILE], "lowers": ["\n"]},
        {"layer": 0, "head": 1, "score": -1.25, "raises": ["é"], "lowers": ["猫"]},
    ]
    finding = make_finding(concepts=[concept("dog", 2, heads=heads), concept("cat", 5)])
    page = open_page(write_page(tmp_path, finding), fragment="#dog")
    rows = page.locator('[data-part="head-rows"] li')
    assert [row.split("\n")[1] for row in rows.all_inner_texts()] == ["L5.H3", "L0.H1"]
    assert "2.5" in rows.nth(0).inner_text()
    assert rows.nth(0).locator(".chip.own").inner_text().endswith("dog")
    assert page.locator("img").count() == 0
    page.locator(".word", has_text="cat").first.click()
    assert not page.locator('[data-part="attention"]').is_visible()


@pytest.mark.browser
def test_a_word_is_read_layer_by_layer_where_the_finding_has_the_lens(open_page: Any, tmp_path: Path) -> None:
    lens = {
        "positions": [0, 7],
        "tokens": ["A", HOSTILE],
        "log_probs": [[-30.0, -9.0], [-4.0, -0.5]],
        "ranks": [[900, 40], [3, 1]],
        "likeliest": [["the", " cat"], [HOSTILE, " dog"]],
    }
    finding = make_finding(concepts=[concept("dog", 2, lens=lens), concept("cat", 5)])
    page = open_page(write_page(tmp_path, finding), fragment="#dog")
    said, cells = page.locator('[data-part="lens-readout"]'), page.locator('[data-part="lens-cells"]')
    assert said.inner_text().startswith("Layer 1 at")
    assert "−0.500, rank 1" in said.inner_text()
    assert "likeliest" not in said.inner_text()
    assert [float(cell.get_attribute("fill-opacity")) for cell in cells.locator(".cell").all()] == pytest.approx(
        [0, 0.4, 1 - 4 / 15, 1 - 0.5 / 15], abs=1e-3
    )
    assert cells.locator(".first").count() == 1
    cells.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    assert said.inner_text().startswith("Layer 0 at")
    assert "rank 900" in said.inner_text()
    assert page.locator("img").count() == 0
    page.locator(".word", has_text="cat").first.click()
    assert not page.locator('[data-part="lens"]').is_visible()
