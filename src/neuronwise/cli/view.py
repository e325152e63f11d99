"""The command that opens the viewer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from neuronwise.cli.app import Output, app, argument, command, option
from neuronwise.cli.options import MODEL, Placement, require_folder
from neuronwise.cli.output import note
from neuronwise.cli.progress import progress_bar
from neuronwise.errors import NeuronwiseError

if TYPE_CHECKING:
    from neuronwise.model import Model
    from neuronwise.view.viewer import Viewer

PORT = 7860


@command(app)
def view(
    *,
    folders: Annotated[list[Path] | None, argument("Folders that our commands wrote.", show_default="this one")] = None,
    model: Annotated[str | None, option(MODEL, "--model", "-m", show_default="none: nothing is live")] = None,
    index: Annotated[Path | None, option("An index to look neurons up in, beside those in the folders.")] = None,
    photos: Annotated[
        Path | None, option("The folder of an index's photos.", show_default="the opened folders")
    ] = None,
    port: Annotated[int, option("Port on this machine; the next free one is taken.", min=0, max=65535)] = PORT,
    read_only: Annotated[bool, option("Write no notes and no edits.", "--read-only")] = False,
    export: Annotated[
        Path | None, option("Write the index as a folder of files for any web host, and start nothing.")
    ] = None,
    browser: Annotated[bool, option("Open the page in a browser.", "--browser/--no-browser")] = True,
    placement: Placement,
) -> Output:
    """Look at findings, circuits, studies and edits in a browser, and with a model turn neurons up and down."""
    try:
        from neuronwise.view.serve import bound, serve
        from neuronwise.view.viewer import Viewer
    except ImportError as error:
        raise NeuronwiseError("The viewer needs FastAPI and uvicorn: pip install 'neuronwise[view]'.") from error
    opened = folders or ([] if index else [Path()])
    if index is not None:
        from neuronwise.index import Index

        Index.load(index)  # refuses what is none
        opened = [*opened, index]
    viewer = Viewer.of(opened, model, lambda: placement.load(model), read_only=read_only, photos=photos)
    if model is None and not viewer.folders.items():
        named = ", ".join(f"'{one}'" for one in opened)
        raise NeuronwiseError(
            f"{named} holds nothing that neuronwise wrote; name a folder of find --out, circuit --out, edit --out or a "
            "study, or give a --model to look into."
        )
    if export is not None:
        return _exported(viewer, export, None if model is None else placement.load(model))
    listening = bound(port)
    taken = listening.getsockname()[1]
    if port and taken != port:
        note(f"port {port} is in use; taking {taken}")

    def ready(url: str) -> None:
        note(f"open {url}")
        note("Ctrl-C ends the viewer")

    serve(viewer, listening, ready=ready, browser=browser)
    return Output({"port": taken}, lambda: None)


def _exported(viewer: Viewer, folder: Path, model: Model | None) -> Output:
    from neuronwise.view.export import export

    require_folder(folder, new=True)
    with progress_bar("writing neurons") as tell:
        page = export(viewer, folder, model, tell)
    return Output({"page": str(page)}, lambda: print(f"page: {page}"))
