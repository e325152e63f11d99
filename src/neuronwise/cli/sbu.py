"""The command that downloads SBU's photos."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from neuronwise.cli.app import Output, app, argument, command, option
from neuronwise.cli.progress import progress

photos = typer.Typer(no_args_is_help=True, help="Gather photos for studies.")
app.add_typer(photos, name="photos")


@command(photos)
def sbu(
    *,
    source: Annotated[Path, argument("SBU's list, sbu-captions-all.json.", metavar="LIST")],
    out: Annotated[Path, argument("The folder for photos, their captions and the dead links.")],
    limit: Annotated[int | None, option("Only the first entries of the list.", min=1, show_default="all")] = None,
    timeout: Annotated[float, option("Seconds to wait for each photo.", min=0.1)] = 20.0,
) -> Output:
    """Download photos of SBU captions; the same command resumes an interrupted download."""
    from neuronwise.data.photos.sbu import fetch_sbu

    with progress() as tell:
        found = fetch_sbu(
            source, out, limit=limit, timeout=timeout,
            progress=lambda now: tell("photos", now.there + now.dead, now.there + now.dead + now.left),
        )  # fmt: skip
    content = {"schema": "neuronwise.photos/1", "folder": str(out), **asdict(found)}
    return Output(content, lambda: print(f"{found}: {out}"))
