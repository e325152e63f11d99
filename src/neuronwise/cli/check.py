"""The command that tries the whole chain on the user's own checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuronwise.cli.app import DeviceOption, DtypeOption, JsonOption, app, load_model
from neuronwise.cli.output import print_json, print_table, progress_bar, stdout_kept

if TYPE_CHECKING:
    from neuronwise.check import Report

PROMPT = "The capital of France is"
FAILURE = 1  # the exit status when a check fails


@app.command()
def check(
    model: Annotated[str, typer.Argument(help="Hub id, folder, .gguf file, builtin or builtin-text.")],
    image: Annotated[Path | None, typer.Option(help="A photo, for a model that reads photos.")] = None,
    prompt: Annotated[
        str | None, typer.Option(help=f"What it is asked; '{PROMPT}' or the model's own habit by default.")
    ] = None,
    dtype: DtypeOption = None,
    device_map: DeviceOption = None,
    seed: Annotated[int, typer.Option(help="The edit that is tried hangs on it.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Check that everything neuronwise does holds for a model; exit status 1 when something fails."""
    from neuronwise.images import open_image

    if image is not None:
        open_image(image)  # a wrong file is said before a model is loaded
    with stdout_kept():
        from neuronwise.check import conform, require_image

        loaded = load_model(model, dtype, device_map)
        require_image(loaded, image)
        prompted, picture = loaded.read(image, prompt or (None if image is not None else PROMPT))
        with progress_bar("checking") as progress:
            report = conform(loaded, prompted, picture, seed=seed, progress=progress)
    if as_json:
        print_json(report.to_dict())
    else:
        _show(report)
    if not report.passed:
        raise typer.Exit(FAILURE)


def _show(report: Report) -> None:
    from neuronwise.check import FAILED, NOT_APPLICABLE, PASSED

    record = report.record
    print_table(
        f"{report.model}: {record['architecture']} in {record['dtype']}",
        ["check", "what holds", "result", "measured, or why not"],
        [[one.name, one.title, one.outcome, one.detail] for one in report.results],
    )
    counts = [f"{report.count(outcome)} {outcome}" for outcome in (PASSED, FAILED, NOT_APPLICABLE)]
    print(", ".join(counts))
