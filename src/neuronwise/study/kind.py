"""What a kind of study is: the cases it consists of, how they are measured, and how the results are shown.

A kind is one object in a file or folder of its own, and one line in ``kinds.KINDS`` (or an entry point of the group
``neuronwise.studies``). A study of photos needs a recipe and a few functions:

    class BrightnessRecipe(PhotoRecipe):                    # keys of the YAML file beyond those of every photo study
        levels: list[NonNegative] = [0.5, 1.0]              # strict pydantic types; unknown keys are refused

    def cases(workspace: Workspace[BrightnessRecipe]) -> list[Case]: ...      # cheap, the same list every time
    def measure(workspace: Workspace[BrightnessRecipe], case: Case) -> list[Row]: ...

    BRIGHTNESS = photo_kind(
        "brightness", BrightnessRecipe, cases, measure, tables, figures,
        title="Brightness and captions", sentence="How much of a caption survives in the dark?",
    )

See ``workspace.Workspace`` for what a case may use. ``measure`` depends on the workspace and the case alone, never on
other cases or on their order, so that an interrupted study gives the same rows after it resumed. The runner does the
rest: a case is written whole or not at all, a failed one (``NeuronwiseError``, no memory) with its reason, and what is
written is not measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from neuronwise.drawing.style import Figure
from neuronwise.drawing.tables import Table
from neuronwise.model.model import Model
from neuronwise.neurons import snippet
from neuronwise.study.notes import Notes, Row
from neuronwise.study.progress import Progress

if TYPE_CHECKING:
    from neuronwise.study.recipe_fields import Recipe

SCHEMA = "neuronwise.study/1"
R = TypeVar("R", bound="Recipe")


@dataclass(frozen=True)
class Case:
    """One unit of work, seconds to a minute of it. ``id``: unique in the study, and readable: "dog/two_stage/50".

    ``inputs``: what it is about, as plain JSON values; they become columns of all its rows. Cases with the same
    ``route`` need the same things (neurons of one concept, answers to one question): one worker measures them, as long
    as there are others for the others.
    """

    id: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    route: str = ""


@dataclass(frozen=True)
class Unit:
    """Ids of cases that are measured together, and the ``route`` that they share with other units; see ``Case``."""

    cases: tuple[str, ...]
    route: str = ""


@dataclass(frozen=True)
class Study:
    """A study, finished or not.

    ``rows``: all rows of all finished cases, flat, in the order of the cases; each begins with ``case`` (its id) and
    the case's inputs and ends with ``seconds`` (of the whole case). ``lines``: the finished cases as they were written.
    ``failed``: id → reason. ``notes``: part → key → value, such as ``notes["found"]["dog/two_stage"]``. ``total``: how
    many cases there are, None when that was not yet known. ``manifest``: recipe, versions, source of the data.
    """

    kind: str
    manifest: Row = field(repr=False)
    lines: Sequence[Row] = field(repr=False)
    rows: Sequence[Row] = field(repr=False)
    failed: Mapping[str, str]
    notes: Mapping[str, Row] = field(repr=False)
    total: int | None
    folder: Path | None = None

    def _repr_html_(self) -> str:
        """For notebooks: how far it is, and its first rows."""
        columns = (
            [name for name, value in self.rows[0].items() if not isinstance(value, list | dict)] if self.rows else []
        )
        rows = ([snippet.text(row.get(name)) for name in columns] for row in self.rows)
        note = f"{self.cases} of {self.total or '?'} cases, {len(self.failed)} failed"
        return snippet.table(f"Study of the kind {self.kind}", columns, rows, len(self.rows), note)

    @property
    def recipe(self) -> Row:
        """The recipe's keys, with what else the numbers depend on, such as ``sha256`` of the data."""
        return self.manifest["recipe"]

    @property
    def cases(self) -> int:
        """How many cases are finished."""
        return len(self.lines)

    @property
    def finished(self) -> bool:
        """Whether every case is done."""
        return self.cases == self.total

    @property
    def skipped(self) -> Mapping[str, str]:
        """Why concepts and photos were left out."""
        about = self.notes.get("study", {}).get("cases", {})
        return {**about.get("skipped", {}), **about.get("unread", {})}


class Job(Protocol):
    """One study that is about to run. ``schema`` and ``plan`` (plain JSON values) show whether a folder is its own.

    ``source``: where the data came from, noted beside the plan. Each worker has a job of its own, made from the same
    recipe and data; what they find that others need goes through the notes.
    """

    schema: str
    plan: Mapping[str, object]
    source: Mapping[str, object]

    def begin(self, notes: Notes, folder: Path | None, tell: Progress) -> Sequence[Unit]:
        """Ask what must be known before anything is changed; return the units of all cases.

        Where the notes hold the answers, calling it again asks nothing and gives the same. ``folder``: where pictures
        may be kept.
        """
        ...

    def measure(self, unit: Unit, wanted: Sequence[str]) -> Generator[Row, None, None]:
        """The line of each ``wanted`` case of a unit, finished or failed."""
        ...

    def failed(self, name: str, reason: str) -> Row:
        """The line of a case that could not be measured."""
        ...


def flat_rows(line: Row) -> list[Row]:
    """The rows of one finished case; a failed one has none."""
    return [{"case": line["id"], **line["inputs"], **row, "seconds": line["seconds"]} for row in line["rows"]]


@dataclass(frozen=True)
class Kind(Generic[R]):
    """A kind of study, with all that other rooms need of it.

    ``recipe``: the keys that its file may have. ``job`` takes a model, a recipe and the data that the recipe loads.
    ``rows`` makes the flat rows of one finished case. ``tables`` and ``figures`` make up its report. ``title`` heads
    its page where the recipe has none, ``sentence`` says what it asks, ``data`` what it is run on.
    """

    name: str
    recipe: type[R]
    job: Callable[[Model, R, Any], Job]
    tables: Callable[[Study], list[Table]]
    figures: Callable[[Study], list[Figure]]
    title: str
    sentence: str
    rows: Callable[[Row], list[Row]] = flat_rows
    data: str = "photos"
