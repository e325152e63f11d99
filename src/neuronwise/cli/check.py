"""The command that tries the whole chain on the user's own checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from neuronwise.cli.app import Output, app, command, option
from neuronwise.cli.options import ModelArgument, Placement, SeedOption, require_photos
from neuronwise.cli.output import print_table
from neuronwise.cli.progress import progress_bar

if TYPE_CHECKING:
    from neuronwise.check import Report

PROMPT = "The capital of France is"
FAILURE = 1  # the exit status when a check fails


@command(app)
def check(
    *,
    model: ModelArgument,
    image: Annotated[Path | None, option("A photo, for a model that reads photos.")] = None,
    prompt: Annotated[
        str | None,
        option("What to ask.", show_default=f"'{PROMPT}', or for a photo the model's default prompt"),
    ] = None,
    placement: Placement,
    seed: SeedOption = 0,
) -> Output:
    """Check that everything neuronwise does holds for a model; exit status 1 when something fails."""
    require_photos([image])
    from neuronwise.check import conform, require_image

    loaded = placement.load(model)
    require_image(loaded, image)
    prompted, picture = loaded.prepare(image, prompt or (None if image is not None else PROMPT))
    with progress_bar("checking") as progress:
        report = conform(loaded, prompted, picture, seed=seed, progress=progress)
    return Output(report.to_dict(), lambda: _show(report), 0 if report.passed else FAILURE)


def _show(report: Report) -> None:
    from neuronwise.check import FAILED, NOT_APPLICABLE, PASSED

    print_table(
        f"{report.model}: {report.record['architecture']} in {report.record['dtype']}",
        ["check", "what holds", "result", "measured, or why not"],
        [[one.name, one.title, one.outcome, one.detail] for one in report.results],
    )
    print(", ".join(f"{report.count(outcome)} {outcome}" for outcome in (PASSED, FAILED, NOT_APPLICABLE)))
