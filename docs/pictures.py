"""Make the pictures of docs/view.md with a browser: `make demo`, then `python docs/pictures.py`."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import sync_playwright

import neuronwise as nw
from neuronwise.view.app import make_app
from neuronwise.view.serve import NAMES, bound
from neuronwise.view.viewer import Viewer

ROOT = Path(__file__).resolve().parents[1]
DEMO, IMAGES = ROOT / "demo", ROOT / "docs" / "images"
NEURON = "L29.U808"


def main() -> int:
    viewer = Viewer.of([DEMO], "builtin", lambda: nw.load("builtin"), photos=DEMO / "photos", read_only=True)
    listening = bound(0)
    base = f"http://127.0.0.1:{listening.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(make_app(viewer, NAMES), log_level="warning", ws="none"))
    threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True).start()
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])

        def picture(name: str, path: str, act: Callable[[Any], None]) -> None:
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            page.set_default_timeout(300_000)
            page.goto(f"{base}/?token={viewer.token}")
            page.goto(base + path)
            act(page)
            page.wait_for_timeout(500)
            page.screenshot(path=IMAGES / f"{name}.png")
            page.close()

        picture("view-neuron", f"/n/{NEURON}", neuron)
        picture("view-slider", f"/n/{NEURON}", slider)
        browser.close()
    server.should_exit = True
    return 0


def neuron(page: Any) -> None:
    """When it fires: histogram and photos."""
    page.wait_for_selector(".raises .chip")
    page.wait_for_selector("[data-part=alike]:not([hidden])")
    loaded = "() => [...document.querySelectorAll('.examples img')].slice(0, 6).every((one) => one.complete)"
    page.wait_for_function(loaded)


def slider(page: Any) -> None:
    """Turned around, beside random neurons of its layer."""
    page.set_input_files("input[type=file]", DEMO / "photos" / "chelsea.jpg")
    page.wait_for_selector(".shade")
    page.locator("[data-part=factor]").fill("-5")
    page.wait_for_selector(".said-list li:nth-child(4)")
    page.wait_for_selector("[data-bar=doing]", state="hidden")
    page.locator("[data-part=live]").evaluate("(section) => scrollTo(0, section.offsetTop - 70)")


if __name__ == "__main__":
    sys.exit(main())
