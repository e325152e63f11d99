"""What an index says, on a neuron's page, on its own and in a search; with its photos and without them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

import neuronwise as nw
from wired_study import write_photos

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def built(speaker: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, and an index of them and of two texts."""
    folder = tmp_path_factory.mktemp("built")
    write_photos(folder / "photos")
    texts = ["the dog sits on the mat", "the cat sits on the house"]
    nw.Index.build(speaker, folder / "photos", texts, out=folder / "index", prompt="the", max_new_tokens=2)
    return folder


def test_a_neuron_shows_when_it_fires_and_on_what(start: Any, built: Path, visit: Any) -> None:
    running = start([built / "index"], photos=built / "photos")
    page = visit(running, "/n/L1.U3")  # one that fires with red
    entry = nw.Index.load(built / "index")["L1.U3"]
    image = entry.at("image")
    assert page.locator("[data-part=places-of] [aria-pressed=true]").text_content() == "on the photo"
    assert page.locator(".stats dd").first.text_content() == f"{image.mean:.3g}"
    assert page.locator("[data-part=histogram] rect").count() == 64
    counts = page.locator("[data-part=histogram] rect title").all_text_contents()
    assert [int(text.split()[0]) for text in counts] == image.histogram.counts.tolist()
    shown = page.locator(".examples li")
    assert shown.count() == 10
    assert "dog" in shown.first.text_content()
    page.wait_for_function("() => document.querySelector('.examples img').naturalWidth > 0")
    box = shown.first.locator(".spot").evaluate("(spot) => [spot.style.left, spot.style.top]")
    example = image.top(1)[0]
    assert example.region is not None
    assert [float(edge.rstrip("%")) / 100 * 28 for edge in box] == pytest.approx(example.region[:2], abs=0.01)
    page.get_by_role("button", name="most negatively").click()
    lowest = float(page.locator(".examples .number").first.text_content().replace("−", "-"))
    assert lowest == pytest.approx(image.bottom(1)[0].value, rel=0.05)
    page.get_by_role("button", name="where the model predicts").click()
    assert page.locator("[data-part=words]").is_visible()
    page.get_by_role("button", name="where the model predicts").click()
    page.reload()  # the address leads back here
    assert page.locator("[data-part=places-of] [aria-pressed=true]").text_content() == "where the model predicts"
    assert page.locator("[data-part=signs] [aria-pressed=true]").text_content() == "most negatively"
    alike = page.locator("[data-part=alike-list] a")
    alike.first.wait_for()
    assert alike.first.text_content() == str(nw.Index.load(built / "index").similar("L1.U3")[0].neuron)


def test_words_are_searched_in_the_index(start: Any, built: Path, visit: Any) -> None:
    page = visit(start([built / "index"], photos=built / "photos"), "/index/0")
    assert page.locator(".examples .photo").count() == 10
    page.locator("[data-part=word]").fill("dog")
    page.keyboard.press("Enter")
    first = page.locator("[data-part=fires] a").first
    first.wait_for()
    best = nw.Index.load(built / "index").locate("dog")[0]
    assert first.text_content().startswith(str(best.neuron))


def test_photos_are_served_from_their_folder_alone(start: Any, built: Path, tmp_path: Path) -> None:
    running = start([built / "index"], photos=built / "photos")
    with httpx.Client(base_url=running.base, headers={"authorization": f"Bearer {running.viewer.token}"}) as client:
        assert client.get("/photo/0?item=0").headers["content-type"] == "image/jpeg"
        for wrong in ("/photo/0?item=99", "/photo/0?item=-1", "/photo/0?item=11", "/photo/0?item=x", "/photo/1?item=0"):
            assert client.get(wrong).status_code in (400, 404, 422)
    copy = tmp_path / "copy"
    shutil.copytree(built / "index", copy)
    text = (copy / "items.jsonl").read_text()
    inside = '"name": "dog0.png"'
    assert inside in text
    (copy / "items.jsonl").write_text(text.replace(inside, '"name": "../u.png"'))
    (tmp_path / "u.png").write_bytes((built / "photos" / "dog0.png").read_bytes())
    outside = start([copy], photos=built / "photos")
    headers = {"authorization": f"Bearer {outside.viewer.token}"}
    assert httpx.get(f"{outside.base}/photo/0?item=0", headers=headers).status_code == 400


def test_heat_over_the_examples_is_that_of_the_model(start: Any, built: Path, speaker: Any, visit: Any) -> None:
    running = start([built / "index"], speaker, photos=built / "photos")
    page = visit(running, "/n/L1.U3#image/top")
    frames = page.locator(".examples .frame")
    assert frames.locator("canvas").count() == 0
    page.get_by_label("show how it fires all over each photo").check()
    page.wait_for_function("() => document.querySelectorAll('.frame.heated canvas').length === 10")
    example = nw.Index.load(built / "index")["L1.U3"].at("image").top(1)[0]
    photo = built / "photos" / example.item.name
    expected = nw.heatmap(speaker, speaker.run(photo, "the", max_new_tokens=0), ["L1.U3"]).grid
    headers = {"authorization": f"Bearer {running.viewer.token}", "origin": running.base}
    asked = {"item": "0", "neuron": "L1.U3", "number": example.item.number}
    answer = httpx.post(f"{running.base}/api/heat", json=asked, headers=headers, timeout=120)
    event = json.loads(answer.text.split("data: ")[-1])
    assert event["heat"]["mean"]["high"] == pytest.approx(float(expected.max()), rel=1e-3)
    assert event["heat"]["mean"]["high"] == pytest.approx(example.value, rel=1e-3)
    page.get_by_role("button", name="where the model predicts").click()
    assert frames.locator("canvas").count() == 0
    assert page.get_by_label("show how it fires all over each photo").is_hidden()
    without = visit(start([built / "index"], photos=built / "photos"), "/n/L1.U3#image/top")
    assert without.get_by_label("show how it fires all over each photo").is_hidden()
    assert without.locator(".spot").count() > 0


def test_neurons_are_searched_by_a_photo(start: Any, built: Path, speaker: Any, photo_file: Path, visit: Any) -> None:
    running = start([built / "index"], speaker, photos=built / "photos")
    page = visit(running, "/search")
    page.locator("input[type=file]").set_input_files(photo_file)
    hits = page.locator("[data-part=given-fires] a")
    hits.first.wait_for()
    run = speaker.run(photo_file, max_new_tokens=40)
    expected = nw.Index.load(built / "index").firing_in(run, top=30)
    assert hits.all_text_contents() == [str(one) for one in expected.neurons]
    assert "dog" in page.locator("[data-part=given-note]").text_content()
    page.keyboard.press("ArrowDown")
    assert visit(start([built / "index"]), "/search?q=dog").locator("[data-part=by-photo]").is_hidden()


def test_a_neuron_that_no_index_has(start: Any, built: Path, visit: Any) -> None:
    page = visit(start([built / "index"]), "/n/L1.U4000")
    assert page.locator("[data-part=indexed]").is_hidden()


def test_neurons_that_write_alike_and_an_index_of_another_model(
    start: Any, built: Path, speaker: Any, tiny_model: Any, visit: Any
) -> None:
    page = visit(start([built / "index"], speaker, photos=built / "photos"), "/n/L1.U3")
    page.wait_for_selector(".raises .chip")
    page.locator("[data-part=look-alike]").click()
    alike = page.locator("[data-part=writing-list] a")
    alike.first.wait_for()
    index = nw.Index.load(built / "index")
    expected = [str(one.neuron) for one in index.similar("L1.U3", by="writes", model=speaker, top=12)]
    assert alike.all_text_contents() == expected
    assert page.locator("[data-part=index-note]").is_hidden()
    other = visit(start([built / "index"], tiny_model, photos=built / "photos"), "/n/L1.U3")
    other.wait_for_selector(".raises .chip")
    other.reload()
    assert "not of" in other.locator("[data-part=index-note]").text_content()


def test_without_its_photos_their_names_stand_there_and_nothing_is_asked_for(
    start: Any, built: Path, tmp_path: Path, visit: Any
) -> None:
    shutil.copytree(built / "index", tmp_path / "index")
    running = start([tmp_path / "index"])
    for address in ("/n/L1.U3", "/index/0"):
        page = visit(running, address)
        page.locator(".no-photo").first.wait_for()
        assert page.locator(".no-photo").first.text_content().endswith(".png")
        assert page.locator(".examples img").count() == 0
