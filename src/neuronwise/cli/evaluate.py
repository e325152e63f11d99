"""The command that measures an editor on many facts."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuronwise.cli.app import DeviceOption, DtypeOption, JsonOption, ModelOption, app, load_model
from neuronwise.cli.edit import SetOption, _statistics, parse_settings
from neuronwise.cli.output import print_json, print_table, progress_bar, stdout_kept
from neuronwise.edit import EDITORS
from neuronwise.errors import NeuronwiseError

if TYPE_CHECKING:
    from neuronwise.study import Evaluation

SCHEMA = "neuronwise.evaluated/1"


@app.command()
def evaluate(
    facts: Annotated[str, typer.Argument(help="Facts (file, folder, hub data set), or the folder of an evaluation.")],
    out: Annotated[
        Path | None, typer.Option(help="Keep every case there; the same command goes on where it stopped.")
    ] = None,
    editor: Annotated[str, typer.Option(help=f"One of {', '.join(EDITORS)}.")] = "fine",
    model: ModelOption = None,
    settings: SetOption = None,
    statistics: Annotated[Path | None, typer.Option(help="Key statistics, as `neuronwise statistics` wrote.")] = None,
    known: Annotated[
        bool, typer.Option("--known", help="Only facts whose true answer the model gives itself.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many of them.")] = None,
    sequential: Annotated[int, typer.Option(min=1, help="Edits made in a row and kept at once.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Facts in one edit.")] = 1,
    others: Annotated[int, typer.Option(min=0, help="Other facts that are asked after each edit.")] = 50,
    free: Annotated[bool, typer.Option("--free/--no-free", help="Generate too, beside teacher forcing.")] = True,
    fluency: Annotated[bool, typer.Option("--fluency", help="Generate 100 tokens for fluency (slow).")] = False,
    like: Annotated[
        Path | None, typer.Option(help="Take the answers before from this evaluation of another editor.")
    ] = None,
    dtype: DtypeOption = None,
    device_map: DeviceOption = None,
    seed: Annotated[int, typer.Option(help="Every random choice hangs on it.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Edit facts one by one and measure what each edit did; a folder of an evaluation is summed up again."""
    with stdout_kept():
        from neuronwise.report.evaluation import write_summary
        from neuronwise.study import evaluate as run
        from neuronwise.study import is_evaluation, read_evaluation

        if is_evaluation(facts):
            found = read_evaluation(facts)
        else:
            if out is None:
                raise NeuronwiseError("Name a folder to keep the cases in: --out DIR.")
            from neuronwise.data.facts import load_facts

            changes = EDITORS[editor].options(parse_settings(settings), statistics=statistics)
            cases = load_facts(facts, seed=seed)
            print(f"neuronwise: {cases}", file=sys.stderr)
            loaded = load_model("builtin-text" if model is None else model, dtype, device_map)
            given = None if statistics is None else _statistics(statistics)
            with progress_bar("evaluating") as bar:
                found = run(
                    loaded, cases, editor, statistics=given, out=out, known=known, limit=limit, seed=seed,
                    sequential=sequential, batch=batch, others=others, free=free, fluency=fluency, like=like,
                    progress=lambda what, done, total: bar(done, total), changes=changes,
                )  # fmt: skip
        summary = write_summary(found)
    if as_json:
        print_json(content(found))
    else:
        _print(found, summary)
    if found.failed and len(found.failed) == len(found.rows):
        raise NeuronwiseError(f"All {len(found.rows)} cases failed, the first: {found.failed[0]['reason']}")


def content(evaluation: Evaluation) -> dict[str, Any]:
    """What ``--json`` prints: recipe, means with intervals before and after, costs, failed cases."""
    groups = {name: evaluation.means(which) for name, which in
              (("before", "before"), ("after", "figures"), ("cost", "cost"))}  # fmt: skip
    return {
        "schema": SCHEMA,
        "recipe": dict(evaluation.recipe),
        "folder": str(evaluation.folder),
        "cases": len(evaluation.rows) - len(evaluation.failed),
        "failed": [{"id": row["id"], "reason": row["reason"]} for row in evaluation.failed],
        **{group: {name: asdict(mean) for name, mean in found.items()} for group, found in groups.items()},
    }


def _print(evaluation: Evaluation, summary: Path) -> None:
    from neuronwise.study.evaluation.tables import COLUMNS, figure_rows

    print_table("", list(COLUMNS), [list(row) for row in figure_rows(evaluation)])
    for row in evaluation.failed:
        print(f"neuronwise: case {row['id']} failed: {row['reason']}", file=sys.stderr)
    print(f"summary: {summary}")
