"""An index as a folder of files: served by any web server, drawn as the viewer draws it."""

from __future__ import annotations

import functools
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import neuronwise as nw
from neuronwise.cli import app
from neuronwise.errors import NeuronwiseError
from neuronwise.read import effects
from neuronwise.view.export import export
from neuronwise.view.viewer import Viewer
from wired_study import write_photos

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(speaker: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    photos = write_photos(folder / "photos")
    hostile = ["the dog sits on </script><img src=x onerror=alert(1)>"]
    nw.Index.build(speaker, photos, hostile, out=folder / "index", prompt="the", max_new_tokens=2)
    viewer = Viewer.of([folder / "index"], None, lambda: speaker, photos=photos)
    export(viewer, folder / "out", speaker, lambda done, total: None)
    viewer.worker.close()
    return folder


@pytest.fixture
def served(site: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(site / "out"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_neuron_of_the_site_is_that_of_the_index(site: Path, served: str, browser: Any, speaker: Any) -> None:
    page, said = browser.new_page(), []
    page.set_default_timeout(120_000)  # a busy machine
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: request.url.startswith((served, "data:")) or said.append(request.url))
    page.goto(f"{served}/index.html")
    assert page.locator(".examples .photo").count() == 10
    page.get_by_role("link", name="L1", exact=True).click()
    page.wait_for_url("**/neuron.html?n=L1.U0*")
    page.wait_for_selector("[data-part=histogram] rect", state="attached")
    page.keyboard.press("/")
    page.keyboard.type("l1.u3")
    page.keyboard.press("Enter")
    page.wait_for_url("**/neuron.html?n=L1.U3*")
    page.wait_for_selector("[data-part=histogram] rect", state="attached")
    image = nw.Index.load(site / "index")["L1.U3"].at("image")
    counts = page.locator("[data-part=histogram] rect title").all_text_contents()
    assert [int(text.split()[0]) for text in counts] == image.histogram.counts.tolist()
    assert page.locator(".examples li").count() == 6
    page.get_by_role("button", name="where the model predicts").click()
    shown = [text.replace("−", "-") for text in page.locator(".examples li").all_text_contents()]
    for text, one in zip(shown, nw.Index.load(site / "index")["L1.U3"].at("predicting").top(6), strict=True):
        around = [one.item.tokens[: one.position], one.item.tokens[one.position + 1 :]]
        before, after = ("".join(tokens) for tokens in around)
        assert float(text[:5].rstrip("abcdefghijklmnopqrstuvwxyz< ")) == pytest.approx(one.value, rel=0.1)
        assert f"{re.sub('<[^<>]*>', ' ', before[-100:]).lstrip()}{one.token}{after[:100]}" in text
    page.get_by_role("button", name="on the photo").click()
    page.wait_for_function("() => document.querySelector('.examples img').naturalWidth > 0")
    raised = page.locator(".raises .chip").all_text_contents()
    assert [one.replace("␣", " ") for one in raised] == effects(speaker, ["L1.U3"], 12)[0].raises
    page.keyboard.press("]")
    page.wait_for_url("**/neuron.html?n=L1.U4*")
    page.goto(f"{served}/neuron.html?n=L1.U3000")
    page.wait_for_selector("text=There is no neuron L1.U3000 here.")
    assert [one for one in said if "404" not in one] == []
    page.close()


def test_nothing_of_this_machine_is_in_it(site: Path) -> None:
    for path in (site / "out").rglob("*"):
        if path.suffix in (".json", ".html", ".js"):
            assert str(site) not in path.read_text(encoding="utf-8")
    rows = json.loads((site / "out" / "data" / "L0" / "0.json").read_text())
    assert len(rows) == 48
    assert all(len(place["top"]) <= 6 for row in rows.values() for place in row["places"].values())


def test_it_is_refused_without_an_index_and_into_a_folder_that_holds_something(site: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    run = CliRunner().invoke
    result = run(app, ["view", str(site / "index"), "--export", str(tmp_path)])
    assert isinstance(result.exception, NeuronwiseError)
    assert "new folder" in str(result.exception)
    result = run(app, ["view", str(site / "photos"), "--export", str(tmp_path / "new")])
    assert isinstance(result.exception, NeuronwiseError)
    assert not (tmp_path / "new").exists()
