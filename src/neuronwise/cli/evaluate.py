"""The command that measures an editor on many facts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from neuronwise.answers.protocols.table import PROTOCOLS
from neuronwise.cli.app import Names, Output, app, argument, command, option, refuse
from neuronwise.cli.comparison import compared
from neuronwise.cli.fact_source import FactSource
from neuronwise.cli.options import EditorChoice, ModelOption, Placement, SeedOption
from neuronwise.cli.output import note, print_table
from neuronwise.cli.progress import progress_bar
from neuronwise.cli.workforce import ShardOption, Workforce
from neuronwise.data.facts.load import FORMS
from neuronwise.errors import NeuronwiseError, StudyError, told
from neuronwise.study.evaluation.sequence import parse_every

if TYPE_CHECKING:
    from neuronwise.study import Evaluation

SCHEMA = "neuronwise.evaluated/1"
FAILURE = 2  # the exit status when every case fails


@dataclass(frozen=True)
class Protocol:
    """Which facts are edited, how, and what is asked afterwards."""

    known: Annotated[bool, option("Use only facts whose true answer the model gives by itself.", "--known")] = False
    limit: Annotated[int | None, option("Use only the first N facts.", min=1)] = None
    sequential: Annotated[int, option("Edits made one after another and kept together.", min=1)] = 1
    every: Annotated[
        str | None,
        option("Measure the facts so far after every N edits in a row too, or after these numbers: 1,10,100,1000."),
    ] = None
    batch: Annotated[int, option("Facts in one edit.", min=1)] = 1
    others: Annotated[int, option("Other facts to ask about after each edit.", min=0)] = 50
    free: Annotated[bool, option("Generate too, beside teacher forcing.", "--free/--no-free")] = True
    fluency: Annotated[bool, option("Generate 100 tokens to measure fluency (slow).", "--fluency")] = False
    protocols: Annotated[
        list[str] | None,
        option("A published way to ask freely, besides; one listed below, repeat for several.", "--protocol"),
        Names("Protocols", PROTOCOLS),
    ] = None
    perplexity: Annotated[
        Path | None, option("A text file: its perplexity is measured before the edits and with each.")
    ] = None
    tasks: Annotated[
        list[str] | None,
        option("Tasks of lm-evaluation-harness, by name or YAML file; repeat for several. Before and with each edit."),
    ] = None
    tasks_limit: Annotated[int | None, option("Use only the first N examples of each task.", min=1)] = None
    like: Annotated[
        Path | None, option("Take the unedited model's answers from this evaluation of another editor.")
    ] = None
    seed: SeedOption = 0


@command(app)
def evaluate(
    *,
    facts: Annotated[
        list[str],
        argument(
            "Facts: file, folder or hub dataset in a form listed below; or the folder of an evaluation, or several to "
            "compare."
        ),
        Names("Forms of facts", FORMS),
    ],
    out: Annotated[
        Path | None, option("Keep every case there; the same command resumes an interrupted evaluation.")
    ] = None,
    origin: FactSource,
    choice: EditorChoice,
    model: ModelOption = None,
    protocol: Protocol,
    placement: Placement,
    workforce: Workforce,
    shard: ShardOption = None,
) -> Output:
    """Edit facts and measure what each edit did; or sum up the folder of an evaluation again, or compare several."""
    if len(facts) > 1:
        refuse("where folders are compared", "out", "model", "like")
        return compared(facts)
    (source,) = facts
    from neuronwise.report.evaluation import write_summary
    from neuronwise.study import is_evaluation, read_evaluation

    if is_evaluation(source):
        with told(StudyError, f"'{source}' cannot be summed up; its rows may be damaged"):
            found = read_evaluation(source)
            summary = write_summary(found)
            shown = content(found)
    else:
        if out is None:
            raise NeuronwiseError("Name a folder to keep the cases in: --out DIR.")
        found = _evaluated(source, origin, out, choice, model, protocol, placement, workforce, shard)
        summary = write_summary(found)
        shown = content(found)
    failed = len(found.failed) == len(found.rows) > 0
    if failed:
        note(f"All {len(found.rows)} cases failed, the first: {found.failed[0]['reason']}")
    return Output(shown, lambda: _show(found, summary), FAILURE if failed else 0)


def _evaluated(
    facts: str,
    origin: FactSource,
    out: Path,
    choice: EditorChoice,
    model: str | None,
    protocol: Protocol,
    placement: Placement,
    workforce: Workforce,
    shard: str | None,
) -> Evaluation:
    changes, workers = choice.changes(), workforce.checked()
    every = None if protocol.every is None else parse_every(protocol.every)
    for name in protocol.protocols or ():
        _ = PROTOCOLS[name]  # an unknown one is refused before anything is read
    from neuronwise.study import evaluate as run

    cases = origin.load(facts, protocol.seed)
    loaded = workforce.open(placement, model, "builtin-text")
    with progress_bar("evaluating") as bar:
        return run(
            loaded, cases, choice.editor, statistics=choice.read_statistics(), out=out, changes=changes,
            executor=workforce.executor, workers=workers, shard=shard,
            progress=lambda what, done, total: bar(done, total),
            **{**vars(protocol), "every": every, "protocols": protocol.protocols or (), "tasks": protocol.tasks or ()},
        )  # fmt: skip


def content(evaluation: Evaluation) -> dict[str, object]:
    """What ``--json`` prints: recipe, means with intervals before and after, costs, failed cases; of edits in a row
    that were measured on the way the means by the number of edits."""
    from neuronwise.study.evaluation.curve import means_by_edits

    curve = means_by_edits({"": evaluation})[""]
    groups = {"before": "before", "after": "figures", "cost": "cost"}
    return {
        "schema": SCHEMA,
        "recipe": dict(evaluation.recipe),
        "folder": str(evaluation.folder),
        "cases": len(evaluation.rows) - len(evaluation.failed),
        "failed": [{"id": row["id"], "reason": row["reason"]} for row in evaluation.failed],
        **{
            group: {name: asdict(mean) for name, mean in evaluation.means(which).items()}
            for group, which in groups.items()
        },
        **(
            {"curve": {n: {name: asdict(mean) for name, mean in at.items()} for n, at in curve.items()}}
            if curve
            else {}
        ),
    }


def _show(evaluation: Evaluation, summary: Path) -> None:
    from neuronwise.study.evaluation.curve import curve_tables
    from neuronwise.study.evaluation.tables import COLUMNS, figure_rows

    print_table("", list(COLUMNS), [list(row) for row in figure_rows(evaluation)])
    for table in curve_tables({evaluation.recipe["editor"]: evaluation}):
        rows = [["–" if cell is None else str(cell) for cell in row[1:]] for row in table.rows]
        print_table(table.title, list(table.columns[1:]), rows)
    for row in evaluation.failed:
        note(f"case {row['id']} failed: {row['reason']}")
    print(f"summary: {summary}")
