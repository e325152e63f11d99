"""A viewer that runs, over folders with one thing of each kind, with a tiny model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn

import neuronwise as nw
from edits import random_edit
from neuronwise.report import write_finding
from neuronwise.view.app import make_app
from neuronwise.view.serve import NAMES, bound
from neuronwise.view.viewer import Viewer
from wired import red_square
from wired_study import talking


@pytest.fixture(scope="module")
def speaker(tiny_tokenizer: Any) -> Any:
    """A tiny image-text model that says "dog mat" of red."""
    return talking(tiny_tokenizer)


@pytest.fixture
def shelf(tmp_path: Path, speaker: Any) -> Path:
    """A folder with a finding, a circuit and an edit."""
    folder = tmp_path / "shelf"
    photo, _ = red_square(7, 7)
    run = speaker.run(image=photo, prompt="the", max_new_tokens=2)
    write_finding(folder / "found" / "dog", nw.find(speaker, run, ["dog"], top=12, method="contribution"))
    nw.circuit(speaker, run, "dog", nodes=6).page(folder / "circuit")
    random_edit(speaker, seed=1).save(folder / "edit")
    return folder


@pytest.fixture
def photo_file(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    red_square(7, 7)[0].save(path)
    return path


class Running:
    """A viewer on a port of its own."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer, socket = viewer, bound(0)
        self.port = socket.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.base}/?token={viewer.token}"
        app = make_app(viewer, NAMES, cookie=f"neuronwise-{self.port}")
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, ws="none"))
        self.thread = threading.Thread(target=lambda: self.server.run(sockets=[socket]), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        self.viewer.worker.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """``start([folder], model, read_only=True) -> Running``."""
    running: list[Running] = []

    def begin(folders: list[Path], model: Any = None, **options: Any) -> Running:
        viewer = Viewer.of(
            folders,
            None if model is None else "tiny",
            lambda: cast("nw.Model", model),
            **{"read_only": False, **options},
        )
        running.append(Running(viewer))
        return running[-1]

    yield begin
    for one in running:
        one.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """``visit(running, "/path")`` opens a page; at the end none has complained, or asked another host."""
    contexts, complaints = [], []

    def visit(running: Any, path: str = "/", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)  # a busy machine
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on(
            "request",
            lambda request: request.url.startswith((running.base, "data:", "blob:")) or complaints.append(request.url),
        )
        page.goto(running.url)
        assert "token" not in page.url
        if path != "/":
            page.goto(running.base + path)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []
