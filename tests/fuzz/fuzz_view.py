"""What a browser asks of the viewer: its pages over damaged folders, and its questions with values of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from fuzz_images import encoded
from fuzz_spoil import TEXTS, spoil_file, spoiled
from fuzz_world import World
from hypothesis import strategies as st
from starlette.testclient import TestClient

from neuronwise.view.app import make_app
from neuronwise.view.viewer import Viewer

SHELF = ("finding", "circuit", "edit", "study", "evaluation", "index")
FILES = (
    "finding/finding.json", "finding/index.html", "circuit/circuit.json", "circuit/index.html", "edit/edit.json",
    "edit/deltas.safetensors", "study/manifest.json", "study/before.jsonl", "study/cases.jsonl",
    "evaluation/manifest.json", "evaluation/before.jsonl", "evaluation/cases.jsonl", "index/index.json",
    "index/items.jsonl", "index/items.safetensors", "index/layers/L1.safetensors",
)  # fmt: skip
PAGES = (
    "/", "/n/L1.U3", "/find", "/search?q=dog", "/compare?a=0/finding&b=0/finding", "/api/firing?word=dog",
    "/api/similar/0/index?neuron=L1.U3", "/photo/0/index?item=0", "/thumbnail/0/finding", "/thumbnail/0/circuit",
    "/figure/0/study?name=suppression.svg", *(f"/{kind}/0/{kind}" for kind in SHELF),
)  # fmt: skip
SEEN: dict[str, Any] = {"photo": None, "text": "the capital of"}
QUESTIONS: dict[str, dict[str, Any]] = {
    "decode": {"neurons": ["L1.U3"]},
    "fire": {**SEEN, "neuron": "L1.U3"},
    "scale": {**SEEN, "neuron": "L1.U3", "factor": 0.5, "mean": False, "randoms": 1, "seed": 1},
    "search": {"token": "dog"},
    "find": {**SEEN, "word": " Paris"},
    "alike": {"item": "0/index", "neuron": "L1.U3"},
    "circuit": {"found": "1", "concept": 0},
    "edit/state": {"item": "0/edit"},
    "make-edit": {"neuron": "L1.U3", "factor": 0.0, "name": "made"},
    "notes/L1.U3": {"note": "a note", "star": True},
}


class Browser:
    """A viewer of the present folder, and what asks it."""

    def __init__(self, world: World, model: str | None) -> None:
        self.viewer = Viewer.of([Path()], model, lambda: world.models[model or "text"], photos=Path("photos"))
        self.client = TestClient(make_app(self.viewer, frozenset({"testserver"})), "http://testserver")
        self.headers = {"authorization": f"Bearer {self.viewer.token}", "origin": "http://testserver"}

    def get(self, path: str) -> None:
        """Ask for a page."""
        _judged(self.client.get(path, headers=self.headers))

    def post(self, path: str, content: Any) -> Any:
        """Ask a question, in JSON or bytes; its answer is read to the end."""
        given: dict[str, Any] = {"content": content} if isinstance(content, bytes) else {"json": content}
        return _judged(self.client.post(path, headers=self.headers, **given))

    def close(self) -> None:
        """Let the worker end."""
        self.viewer.worker.close()


def _judged(answer: Any) -> Any:
    """The answer; raises ``AssertionError`` for one that says that something unexpected happened."""
    if answer.status_code >= 500 or "unexpectedly" in answer.text:
        raise AssertionError(f"{answer.status_code}: {answer.text[-500:]}")
    return answer


def pages(data: st.DataObject, world: World, parent: Path) -> None:
    """All pages over a folder one of whose files is damaged, or one page by a strange address."""
    spoil = data.draw(st.booleans())
    paths = PAGES if spoil else [_strange(data)]
    with world.fresh(parent, *SHELF, "photos"):
        if spoil:
            spoil_file(data, Path(data.draw(st.sampled_from(FILES))))

        def visited() -> None:
            browser = Browser(world, None)
            try:
                for path in paths:
                    browser.get(path)
            finally:
                browser.close()

        world.judge.call("pages" if spoil else paths, visited)


def _strange(data: st.DataObject) -> str:
    """An address of a page with one of its parts replaced."""
    path, _, query = data.draw(st.sampled_from(PAGES)).partition("?")
    parts = path.split("/")
    new = quote(data.draw(st.sampled_from(TEXTS)).encode(errors="surrogatepass"), safe="")[:3000]
    if query and data.draw(st.booleans()):
        name, _, _ = query.partition("=")
        return f"{path}?{name}={new}"
    parts[data.draw(st.integers(1, len(parts) - 1))] = new
    return "/".join(parts) + (f"?{query}" if query else "")


def questions(data: st.DataObject, world: World, parent: Path) -> None:
    """A question to the model with one or two values replaced, or a photo that is damaged."""
    name = data.draw(st.sampled_from([*QUESTIONS, "photos"]))
    content = encoded(data) if name == "photos" else spoiled(data, QUESTIONS[name])
    where = (
        f"/api/{name}"
        if data.draw(st.integers(0, 9))
        else f"/api/{name}{data.draw(st.sampled_from(('/', '%00', '/x')))}"
    )
    with world.fresh(parent, "edit", "index"):

        def asked() -> None:
            browser = Browser(world, "text")
            try:
                if name == "circuit":
                    browser.post("/api/find", QUESTIONS["find"])
                answer = browser.post(where, content)
                if name == "photos" and answer.status_code == 200:
                    seen = {"photo": answer.json()["photo"]}
                    browser.get(f"/api/photos/{seen['photo']}")
                    browser.post("/api/fire", {**seen, "neuron": "L1.U3"})
            finally:
                browser.close()

        world.judge.call((where, content), asked)
