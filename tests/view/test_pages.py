"""The viewer in a real browser: every page, the keys, the slider with a live model, a dropped photo, two tabs."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from neuronwise.intervene import scale
from neuronwise.read import neurons_writing
from neuronwise.read.findings import find_in_each
from neuronwise.report import write_findings, write_page
from wired import PLANTED, red_square

pytestmark = pytest.mark.browser
HOSTILE = "</script><img src=x onerror=alert(1)>"
SHOWN = "(images) => [...document.querySelectorAll(images)].every((one) => one.naturalWidth > 0)"
NEURON = f"L1.U{next(iter(PLANTED))}"


def drop(page: Any, photo: Path, selector: str = ".zone") -> None:
    """Let a file go above a part of the page."""
    data = base64.b64encode(photo.read_bytes()).decode()
    moved = page.evaluate_handle(
        """(data) => {
            const moved = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
            moved.items.add(new File([bytes], "red.png", { type: "image/png" }));
            return moved;
        }""",
        data,
    )
    page.dispatch_event(selector, "drop", {"dataTransfer": moved})


def test_home_leads_to_every_kind_of_thing(start: Any, shelf: Path, visit: Any) -> None:
    page = visit(start([shelf]))
    assert page.locator("[data-part=lists] h2").all_text_contents() == ["Findings 1", "Circuits 1", "Edits 1"]
    page.wait_for_function(SHOWN, arg=".items img")
    assert page.locator(".items img").count() > 0
    page.get_by_role("link", name="dog mat").first.click()
    page.wait_for_url("**/finding/**")
    assert page.locator(".word[aria-current]").text_content() == "dog"
    assert page.locator("[data-part=photo]").evaluate("(image) => image.naturalWidth") > 0
    first = page.locator(".rows .address").first.text_content()
    page.locator(".rows li").first.hover()
    page.get_by_role("link", name=f"The page of {first}").click()
    page.wait_for_url("**/n/*")
    assert page.locator("h1").text_content() == first
    assert "number 1 of 12 for “dog”" in page.locator("[data-part=places]").text_content()
    page.goto(page.url.split("/n/")[0] + "/circuit/0/circuit")
    page.locator(".node").first.focus()
    assert "relevance" in page.locator("[data-part=detail]").text_content()
    page.goto(page.url.split("/circuit/")[0] + "/edit/0/edit")
    assert "layer" in page.locator("[data-part=about]").text_content()


def test_a_finding_over_several_photos_is_one_entry_with_its_photos_inside(
    start: Any, shelf: Path, speaker: Any, visit: Any
) -> None:
    runs = {f"photo-{n}": speaker.run(red_square(n, 7)[0], "the", max_new_tokens=2) for n in (1, 7, 14)}
    files = {name: f"{name}.png" for name in runs}
    words = {name: {"dog": "dog"} for name in runs}
    write_findings(shelf / "found" / "many", find_in_each(runs, words, files=files, method="contribution", top=5))
    running = start([shelf])
    page = visit(running)
    assert page.locator("[data-part=lists] h2").first.text_content() == "Findings 2"
    entry = page.locator(".items li", has_text="3 photos together: dog")
    page.wait_for_function(SHOWN, arg=".item-parts img")
    assert entry.locator(".item-parts a").count() == 3
    entry.locator("a.item-title").click()
    page.wait_for_url("**/finding/0/found/many")
    inside = page.locator(".gallery a")
    assert inside.count() == 3
    page.wait_for_function(SHOWN, arg=".gallery img")
    inside.first.click()
    page.wait_for_url("**/finding/0/found/many/photo-*")
    first = page.url
    assert page.get_by_role("link", name="3 photos together: dog").is_visible()
    page.keyboard.press("]")
    page.wait_for_url(lambda url: url.startswith(running.base) and url != first)
    page.keyboard.press("[")
    page.wait_for_url(first)
    page.get_by_role("link", name="3 photos together: dog").click()
    page.wait_for_url("**/finding/0/found/many")
    neuron = page.locator(".rows .address").first.text_content()
    page.goto(f"{running.base}/n/{neuron}")
    listed = page.locator("[data-part=places] li").all_text_contents()
    assert sum("one of 3 photos together" in one for one in listed) > 0
    assert not any("one of 3" in one for one in listed[:1])
    page.goto(f"{running.base}/compare")
    assert page.locator("[data-part=a] optgroup option").count() == 3


def test_the_address_says_what_is_seen(start: Any, shelf: Path, speaker: Any, visit: Any) -> None:
    page = visit(start([shelf], speaker), f"/n/{NEURON}?text=the&factor=-3")
    page.wait_for_selector(".said-list li:nth-child(4)")
    assert page.locator("[data-part=factor-said]").text_content() == "−3"
    home = page.url.split("/n/")[0]
    page.goto(f"{home}/")
    page.locator("[data-part=filter]").fill("relevance")
    page.wait_for_url("**/?filter=relevance")
    page.locator("[data-part=filter]").fill("neurons")
    page.reload()
    assert page.locator("[data-part=lists] h2").all_text_contents() == ["Circuits 1"]
    page.goto(f"{home}/find?text=the%20dog&word=mat")
    assert page.locator("textarea").input_value() == "the dog"
    assert page.locator("[data-part=wanted]").input_value() == "mat"
    page.goto(f"{home}/n/{NEURON}?factor=1e9&text=%3Cimg%20src=x%3E#<img>")
    page.wait_for_selector(".said-list li:nth-child(4)")
    assert page.locator("[data-part=factor-said]").text_content() == "5"


def test_what_is_not_there_is_said(start: Any, shelf: Path, speaker: Any, visit: Any) -> None:
    page = visit(start([shelf]), "/n/L2.U47")
    assert "Nothing in the opened folders has this neuron" in page.locator("[data-part=absent]").text_content()
    page = visit(start([shelf], speaker), "/n/L99.U4")
    page.wait_for_selector("[data-part=absent]:not([hidden])")
    assert "L99" in page.locator("[data-part=absent]").text_content()


def test_keys_search_and_step(start: Any, shelf: Path, speaker: Any, visit: Any) -> None:
    page = visit(start([shelf], speaker))
    page.keyboard.press("/")
    page.keyboard.type("l1.u5")
    page.keyboard.press("Enter")
    page.wait_for_url("**/n/L1.U5")
    page.wait_for_selector(".raises .chip")
    page.keyboard.press("]")
    page.wait_for_url("**/n/L1.U6")
    page.keyboard.press("[")
    page.wait_for_url("**/n/L1.U5")
    page.keyboard.press("/")
    page.keyboard.type("dog")
    page.keyboard.press("Enter")
    page.wait_for_selector(".hits li")
    hits = page.locator("[data-part=raises] .address").all_text_contents()
    assert hits[:5] == [str(one) for one in neurons_writing(speaker, "dog", 5).neurons]
    page.locator(".hits .address").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") == hits[1]


def test_the_slider_turns_a_neuron_of_a_dropped_photo(
    start: Any, shelf: Path, speaker: Any, visit: Any, photo_file: Path
) -> None:
    page = visit(start([shelf], speaker), f"/n/{NEURON}")
    drop(page, photo_file)
    page.wait_for_selector(".fires:not([hidden]) .shade")
    assert page.locator("canvas").is_visible()
    page.locator("[data-part=factor]").fill("-3")
    page.wait_for_selector(".said-list li:nth-child(4)")
    said = page.locator(".said-list .answer").all_text_contents()
    before = speaker.run(image=photo_file, max_new_tokens=40)
    with scale(speaker, NEURON, -3.0):
        changed = before.again()
    assert said[:2] == [before.text, changed]
    assert NEURON in page.locator(".said-list .changed .who").text_content()
    assert page.locator(".said-list .random").count() == 2
    page.locator("[data-part=edit]").click()
    page.wait_for_url("**/edit/0/edits/**")
    page.wait_for_selector("[data-part=apply]:not([hidden])")
    page.locator("[data-part=apply]").click()
    page.wait_for_selector("[data-part=revert]:not([hidden])")
    assert speaker.run(image=photo_file, max_new_tokens=40).text == changed
    page.locator("[data-part=revert]").click()
    page.wait_for_selector("[data-part=apply]:not([hidden])")
    assert speaker.edits == ()


def test_find_leads_from_a_photo_to_its_words_their_layers_and_their_circuit(
    start: Any, shelf: Path, speaker: Any, visit: Any, photo_file: Path
) -> None:
    page = visit(start([shelf], speaker), "/find")
    drop(page, photo_file)
    page.wait_for_selector("[data-part=go]:not([disabled])")
    page.locator("[data-part=wanted]").fill("dog")
    page.locator("[data-part=go]").click()
    page.wait_for_url("**/found/*")
    assert page.locator("[data-part=word]").text_content() == "dog"
    page.get_by_role("button", name="layer by layer").click()
    page.wait_for_selector("[data-part=lens]:not([hidden])")
    assert page.locator(".lens .cell").count() % speaker.num_layers == 0
    page.get_by_role("button", name="Trace the circuit").click()
    page.wait_for_selector(".node")
    assert "Circuit of “dog”" in page.locator("h1").text_content()


def test_two_tabs_wait_for_each_other_and_a_closed_one_is_not_waited_for(
    start: Any, shelf: Path, speaker: Any, visit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = start([shelf], speaker)
    first, second = (visit(running, f"/n/{NEURON}") for _ in range(2))
    for page in (first, second):
        page.wait_for_selector(".raises .chip")
    import threading

    from neuronwise.view.live import Live

    held, begun, ended, answer = threading.Event(), threading.Event(), threading.Event(), Live.search

    def slow(live: Any, job: Any, asked: Any) -> Any:
        begun.set()
        try:
            while not held.wait(0.02):
                job.tell("holding", 1, 2)
        finally:
            ended.set()
        return answer(live, job, asked)

    monkeypatch.setattr("neuronwise.view.live.Live.decode", slow)
    first.reload()
    assert begun.wait(60)
    second.goto(running.base + "/search?q=dog")
    second.wait_for_selector("text=waiting: 1 before this")
    first.close()
    assert ended.wait(60)
    second.wait_for_selector(".hits li")


def test_hostile_strings_stay_text(start: Any, tmp_path: Path, visit: Any) -> None:
    neurons = [{"layer": 1, "unit": 2, "expert": None, "score": 1.0, "activation": 1.0, "tokens": [HOSTILE],
                "raises": [HOSTILE], "lowers": [HOSTILE]}]  # fmt: skip
    concept = {
        "word": HOSTILE,
        "token": HOSTILE,
        "token_id": 1,
        "position": None,
        "occurrences": [],
        "neurons": neurons,
    }
    finding = {"schema": "neuronwise.find/2", "model": HOSTILE, "prompt": HOSTILE, "text": HOSTILE, "method": HOSTILE,
               "chat": False, "options": {}, "activation": "ffn", "seed": 0, "top": 1, "num_layers": 3,
               "form": "cosine", "versions": {}, "concepts": [concept]}  # fmt: skip
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    write_page(folder, finding)
    (folder / "finding.json").write_text(json.dumps(finding))
    page_file = folder / "index.html"
    page_file.write_text(
        page_file.read_text().replace(
            "<header>", '<img data-part="photo" width="1" height="1" alt=""><script>alert(1)</script><header>'
        )
    )
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "finding.json").write_text("{")
    running = start([tmp_path])
    page = visit(running)
    assert page.locator(".broken").count() == 1
    page.locator("a.item-title").click()
    page.wait_for_selector("[data-part=caption]:not(:empty)")
    assert page.locator("[data-part=caption]").text_content().strip() == HOSTILE
    page.goto(running.base + "/n/L1.U2")
    assert HOSTILE in page.locator("[data-part=places]").text_content()
    page.goto(running.base + "/search?q=" + "%3Cimg%20src%3Dx%3E")
    assert "--model" in page.locator("[data-part=problem]").text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [340, 1200])
def test_pages_fit(start: Any, shelf: Path, speaker: Any, visit: Any, scheme: str, width: int) -> None:
    running = start([shelf], speaker)
    page = visit(running, viewport={"width": width, "height": 800}, color_scheme=scheme)
    for path in (
        "/",
        "/find",
        "/compare?a=0/found/dog&b=0/found/dog",
        f"/n/{NEURON}",
        "/finding/0/found/dog",
        "/edit/0/edit",
    ):
        page.goto(running.base + path)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width, path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_seen_is_saved_as_one_file(
    start: Any, shelf: Path, visit: Any, tmp_path: Path, browser: Any, scheme: str
) -> None:
    page = visit(start([shelf]), "/finding/0/found/dog", color_scheme=scheme)
    page.wait_for_function("() => document.querySelector('[data-part=photo]').complete")
    saved = {}
    for kind in ("html", "svg", "png"):
        page.locator(".save summary").click()
        with page.expect_download() as started:
            page.locator(f"[data-save={kind}]").click()
        saved[kind] = tmp_path / started.value.suggested_filename
        started.value.save_as(saved[kind])
    picture = Image.open(saved["png"]).convert("RGB")
    assert picture.width == 2400
    assert (sum(picture.getpixel((5, picture.height - 5))) < 300) == (scheme == "dark")  # type: ignore[arg-type]
    content = saved["html"].read_text(encoding="utf-8")
    assert "<script" not in content
    assert "http://" not in content.replace("http://www.w3.org/", "")
    context = browser.new_context(offline=True)
    opened, asked = context.new_page(), []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: asked.append(message.text))
    opened.goto(saved["html"].as_uri())
    assert "dog mat" in opened.locator("[data-part=caption]").text_content()
    assert opened.locator(".stage img").first.evaluate("(image) => image.naturalWidth") > 0
    assert [one for one in asked if not one.startswith(("data:", "file:"))] == []
    context.close()
