"""The web application: pages, and what they ask for."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from neuronwise.errors import ImageError, NeuronError, NeuronwiseError, one_line
from neuronwise.files import shareable
from neuronwise.neurons import Neuron
from neuronwise.view import asked as forms
from neuronwise.view.compare_page import compare_page
from neuronwise.view.edit_page import apply_edit, edit_page, edit_state, make_edit, revert_edit
from neuronwise.view.finding_page import saved_circuit, saved_finding, thumbnail
from neuronwise.view.guard import Guard
from neuronwise.view.index_page import decoded, firing_on, index_page, indexes, similar, writing_alike
from neuronwise.view.index_page import photo as photo_of
from neuronwise.view.labels import labels_with
from neuronwise.view.live import Live
from neuronwise.view.neuron_page import neuron_page
from neuronwise.view.notes import notes_or_why, write_note
from neuronwise.view.on_photos import firing_on as fired_by
from neuronwise.view.on_photos import heat_on
from neuronwise.view.pages import Page, served, static
from neuronwise.view.session import found_of, lens_of, traced_of
from neuronwise.view.study_page import figure, study_page
from neuronwise.view.viewer import Viewer
from neuronwise.view.worker import Event, Job

A = TypeVar("A")
Answer = Callable[..., Awaitable[StreamingResponse]]
Change = Callable[[Viewer, Live, Job, forms.Changed], Event]


def make_app(viewer: Viewer, hosts: frozenset[str], cookie: str = "neuronwise") -> FastAPI:
    """The application of a viewer; ``hosts`` are the values of the header Host that it answers to."""

    @contextlib.asynccontextmanager
    async def opening(app: FastAPI) -> AsyncIterator[None]:
        if viewer.live is not None:  # meanwhile the first page is looked at
            viewer.worker.submit("opening the model", viewer.live.open, asyncio.get_running_loop())
        yield

    app = FastAPI(title="neuronwise", docs_url=None, redoc_url=None, openapi_url=None, lifespan=opening)
    _pages(app, viewer)
    _items(app, viewer)
    _files(app, viewer)
    _questions(app, viewer)
    _refusals(app, viewer)
    app.add_middleware(Guard, hosts=hosts, token=viewer.token, cookie=cookie)
    return app


def _html(viewer: Viewer, page: Page, status: int = 200) -> HTMLResponse:
    live = viewer.live
    bar = {
        "model": None if live is None else shareable(live.name),
        "folders": [root.name for root in viewer.folders.roots],
    }
    return HTMLResponse(served(page, bar), status)


def _pages(app: FastAPI, viewer: Viewer) -> None:
    @app.get("/")
    def home() -> Response:
        rows = [
            {
                "id": one.id,
                "kind": one.kind,
                "title": one.title,
                "about": one.about,
                "model": one.model,
                "broken": one.broken,
                "photo": one.photo and (one.path / "index.html").is_file(),
                "part_of": one.part_of,
            }
            for one in viewer.folders.items(fresh=True)
        ]
        notes, why = notes_or_why(viewer)
        data = {"items": rows, "notes": notes, "note": why, "live": viewer.live is not None}
        return _html(viewer, Page("home", "neuronwise", ("home",), {"home": data}))

    @app.get("/n/{address}")
    def neuron(address: str) -> Response:
        return _html(viewer, neuron_page(viewer, address))

    @app.get("/find")
    def find() -> Response:
        return _html(viewer, Page("find", "Find · neuronwise", ("find",), {"find": {"live": viewer.live is not None}}))

    @app.get("/search")
    def search(q: str = "") -> Response:
        data = {"asked": q, "live": viewer.live is not None, "indexed": bool(indexes(viewer))}
        return _html(viewer, Page("search", "Search · neuronwise", ("search",), {"search": data}))

    @app.get("/found/{number}")
    def found(number: str) -> Response:
        return _html(viewer, viewer.found(number).page)


def _items(app: FastAPI, viewer: Viewer) -> None:
    @app.get("/finding/{identity:path}")
    def finding(identity: str) -> Response:
        return _html(viewer, saved_finding(viewer.folders, viewer.item("finding", identity)))

    @app.get("/thumbnail/{identity:path}")
    def small(identity: str) -> Response:
        content = thumbnail(viewer.folders.item(identity))
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    @app.get("/circuit/{identity:path}")
    def circuit(identity: str) -> Response:
        return _html(viewer, saved_circuit(viewer.folders, viewer.item("circuit", identity)))

    @app.get("/study/{identity:path}")
    def study(identity: str) -> Response:
        return _html(viewer, study_page(viewer.item("study", identity)))

    @app.get("/evaluation/{identity:path}")
    def evaluation(identity: str) -> Response:
        return _html(viewer, study_page(viewer.item("evaluation", identity)))

    @app.get("/figure/{identity:path}")
    def drawn(identity: str, name: str) -> Response:
        return Response(figure(viewer.folders.item(identity), name), media_type="image/svg+xml")

    @app.get("/edit/{identity:path}")
    def edit(identity: str) -> Response:
        page = edit_page(viewer.folders, viewer.item("edit", identity), live=viewer.live is not None)
        return _html(viewer, page)

    @app.get("/index/{identity:path}")
    def index(identity: str) -> Response:
        return _html(viewer, index_page(viewer, viewer.item("index", identity)))

    @app.get("/compare")
    def compare(a: str = "", b: str = "") -> Response:
        return _html(viewer, compare_page(viewer, a, b))


def _files(app: FastAPI, viewer: Viewer) -> None:
    @app.get("/static/{tag}/{name}")
    def file(tag: str, name: str) -> Response:
        content = static(name)
        if content is None:
            raise HTTPException(404)
        kind = "text/javascript" if name.endswith(".js") else "text/css"
        return Response(content, media_type=kind, headers={"cache-control": "private, max-age=31536000, immutable"})

    @app.get("/photo/{identity:path}")
    def indexed_photo(identity: str, item: int) -> Response:
        content = photo_of(viewer, viewer.item("index", identity), item)
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    @app.get("/api/similar/{identity:path}")
    def alike(identity: str, neuron: str) -> Response:
        return JSONResponse({"neurons": similar(viewer.item("index", identity), Neuron.parse(neuron))})

    @app.get("/api/firing")
    def firing(word: str) -> Response:
        return JSONResponse(firing_on(viewer, word[:80]) or {})

    @app.get("/api/labels")
    def labels(words: str) -> Response:
        return JSONResponse({"labels": labels_with(viewer, words[:80])})

    @app.get("/api/photos/{number}")
    def photo(number: str) -> Response:
        return Response(viewer.photos.jpeg(number), media_type="image/jpeg")

    @app.post("/api/photos")
    async def send_photo(request: Request) -> Response:
        content = await request.body()
        number, image = await asyncio.to_thread(viewer.photos.add, content)
        return JSONResponse({"photo": number, "width": image.width, "height": image.height})

    @app.post("/api/notes/{address}")
    def note(address: str, noted: forms.Noted) -> Response:
        write_note(viewer, address, noted)
        return JSONResponse({})


def _questions(app: FastAPI, viewer: Viewer) -> None:
    """What the model is asked for: each answer is a stream of events that ends with a result or an error."""

    async def answered(name: str, work: Callable[[Live, Job, A], Event], asked: A) -> StreamingResponse:
        live = viewer.require_live()
        job = viewer.worker.submit(name, lambda job: work(live, job, asked), asyncio.get_running_loop())
        return StreamingResponse(_stream(job), media_type="text/event-stream")

    @app.post("/api/decode")
    async def decode(asked: forms.Decoded) -> Response:
        return await answered("reading neurons", lambda live, job, asked: decoded(viewer, live, job, asked), asked)

    @app.post("/api/fire")
    async def fire(asked: forms.Fired) -> Response:
        return await answered("reading a neuron", Live.fire, asked)

    @app.post("/api/scale")
    async def scale(asked: forms.Scaled) -> Response:
        return await answered("asking with a neuron changed", Live.scale, asked)

    @app.post("/api/heat")
    async def heat(asked: forms.Heated) -> Response:
        return await answered("reading a photo", lambda live, job, asked: heat_on(viewer, live, job, asked), asked)

    @app.post("/api/firing")
    async def firing_in(asked: forms.Seen) -> Response:
        return await answered("reading all neurons", lambda live, job, seen: fired_by(viewer, live, job, seen), asked)

    @app.post("/api/search")
    async def search(asked: forms.Searched) -> Response:
        return await answered("searching", Live.search, asked)

    @app.post("/api/find")
    async def find(asked: forms.Found) -> Response:
        return await answered("finding neurons", lambda live, job, asked: found_of(viewer, live, job, asked), asked)

    @app.post("/api/alike")
    async def alike(asked: forms.Alike) -> Response:
        return await answered("comparing neurons", lambda live, job, one: writing_alike(viewer, live, job, one), asked)

    @app.post("/api/circuit")
    async def circuit(asked: forms.Traced) -> Response:
        return await answered("tracing a circuit", lambda live, job, asked: traced_of(viewer, live, job, asked), asked)

    @app.post("/api/lens")
    async def lens(asked: forms.Traced) -> Response:
        return await answered("reading the layers", lambda live, job, asked: lens_of(viewer, live, job, asked), asked)

    for name, change in (("state", edit_state), ("apply", apply_edit), ("revert", revert_edit)):
        _edits(app, viewer, answered, name, change)

    @app.post("/api/make-edit")
    async def make(asked: forms.MadeEdit) -> Response:
        viewer.require_writable()
        return await answered("making an edit", lambda live, job, asked: make_edit(viewer, live, job, asked), asked)


def _edits(app: FastAPI, viewer: Viewer, answered: Answer, name: str, change: Change) -> None:
    @app.post(f"/api/edit/{name}")
    async def changed(asked: forms.Changed) -> Response:
        return await answered(f"{name} of an edit", lambda live, job, asked: change(viewer, live, job, asked), asked)


async def _stream(job: Job) -> AsyncIterator[str]:
    async for event in job.events():
        yield f"data: {json.dumps(event)}\n\n"


def _refusals(app: FastAPI, viewer: Viewer) -> None:
    """Whatever is refused is one sentence, in a page or as JSON."""

    def refused(request: Request, status: int, sentence: str) -> Response:
        if request.url.path.startswith(("/api/", "/static/")):
            return JSONResponse({"message": sentence}, status)
        return _html(viewer, Page("refused", "neuronwise", (), {"refused": sentence}), status)

    @app.exception_handler(NeuronwiseError)
    async def wrong(request: Request, error: NeuronwiseError) -> Response:
        return refused(request, 400 if isinstance(error, ImageError | NeuronError) else 404, str(error))

    @app.exception_handler(RequestValidationError)
    async def unfit(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(one) for one in first["loc"] if one != "body")
        return refused(request, 422, one_line(f"{place or 'The request'}: {first['msg']}."))

    @app.exception_handler(HTTPException)
    async def missing(request: Request, error: HTTPException) -> Response:
        return refused(request, error.status_code, "There is no such page here.")

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return PlainTextResponse(html.escape(f"This failed unexpectedly ({type(error).__name__})."), 500)
