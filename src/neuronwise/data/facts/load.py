"""``load_facts``: editing benchmarks as cases, from a file, a folder or a dataset of the hub, in any known form."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

from neuronwise.data.facts.fact import FactCase
from neuronwise.data.facts.fields import Record
from neuronwise.data.facts.form import Form
from neuronwise.data.facts.hub import is_hub, read_hub
from neuronwise.data.facts.rows import Problem, Row, read_rows
from neuronwise.data.facts.together import together
from neuronwise.errors import DataError, NeuronwiseError
from neuronwise.registry import Registry
from neuronwise.registry.arguments import checked

# The last form that recognizes a record is taken: "knowedit" before "counterfact", other packages' before all.
FORMS: Registry[Form] = Registry(
    "form of facts",
    {
        "known_facts": "neuronwise.data.facts.known_facts:FORM",
        "counterfact": "neuronwise.data.facts.counterfact:FORM",
        "mquake": "neuronwise.data.facts.mquake:FORM",
        "knowedit": "neuronwise.data.facts.knowedit:FORM",
        "zsre": "neuronwise.data.facts.zsre:FORM",
        "mmedit": "neuronwise.data.facts.mmedit:FORM",
        "rippleedits": "neuronwise.data.facts.rippleedits:FORM",
        "wikibigedit": "neuronwise.data.facts.wikibigedit:FORM",
        "qaedit": "neuronwise.data.facts.qaedit:FORM",
        "unke": "neuronwise.data.facts.unke:FORM",
        "akew": "neuronwise.data.facts.akew:FORM",
        "mmke": "neuronwise.data.facts.mmke:FORM",
        "mcmke": "neuronwise.data.facts.mcmke:FORM",
    },
    plural="forms of facts",
    kind="neuronwise.data.facts.form:Form",
    group="neuronwise.facts",
    error=DataError,
)
IDENTITIES = ("case_id", "known_id", "id", "ie_edit_input_idx", "iro_edit_input_idx", "sro_edit_input_idx")
SHIPPED = "shipped"
SHIPPED_FILE = Path(__file__).parent / "shipped.json"
"""Facts that the built-in text model really knows, written by hand in KnowEdit's form (``docs/data.md``)."""


@dataclass(frozen=True)
class Facts:
    """The cases of a benchmark, and by place and reason what of it could not be used.

    A problem that is ``kept`` is a part of a record whose case is usable without it; any other one is a record (or a
    file) that is left out. ``form`` names the form (several with "+"), ``digest`` is a SHA-256 of what was read.
    ``unread`` counts, for each field that the form does not read, the records that hold something there.
    """

    cases: tuple[FactCase, ...]
    problems: tuple[Problem, ...]
    form: str
    source: str
    digest: str
    unread: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[FactCase]:
        return iter(self.cases)

    @overload
    def __getitem__(self, index: int) -> FactCase: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[FactCase, ...]: ...
    def __getitem__(self, index: int | slice) -> FactCase | tuple[FactCase, ...]:
        return self.cases[index]

    @property
    def left_out(self) -> tuple[Problem, ...]:
        """The problems that cost a whole record or file."""
        return tuple(problem for problem in self.problems if not problem.kept)

    def about(self) -> dict[str, object]:
        """What the record of an experiment holds of its facts."""
        out = len(self.left_out)
        return {"source": self.source, "digest": self.digest, "left_out": out, "unread": dict(self.unread)}

    def counts(self) -> dict[str, int]:
        """How many questions of each kind the cases ask, as "paraphrases", "portability reasoning", ..."""
        found: Counter[str] = Counter()
        for case in self.cases:
            found["paraphrases"] += len(case.paraphrases)
            found["generation"] += len(case.generation)
            for name, groups in (("portability", case.portability), ("locality", case.locality)):
                for kind, probes in groups.items():
                    found[f"{name} {kind}"] += len(probes)
        return {name: count for name, count in found.items() if count}

    def __str__(self) -> str:
        asked = ", ".join(f"{count} {name}" for name, count in self.counts().items())
        out, parts = len(self.left_out), len(self.problems) - len(self.left_out)
        cases = "1 case" if len(self) == 1 else f"{len(self)} cases"
        said = [f"{cases} ({self.form}) from {self.source}" + (f": {asked}." if asked else ".")]
        if self.unread:
            listed = ", ".join(f"{name} (in {count})" for name, count in self.unread.items())
            said.append(f"Not read, since the form has no use for it: {listed}.")
        if self.problems:
            counted = [f"{out} left out"] * bool(out) + [f"{parts} with a part left out or mended"] * bool(parts)
            first = " ".join(str(problem) for problem in self.problems[:5])
            said.append(f"{', '.join(counted)}: {first}")
            if len(self.problems) > 5:
                said.append(f"And {len(self.problems) - 5} more in .problems.")
        return " ".join(said)


@checked
def load_facts(
    source: str | os.PathLike[str],
    form: str | None = None,
    *,
    seed: int = 0,
    images: str | os.PathLike[str] | None = None,
    strict: bool = False,
) -> Facts:
    """Read a benchmark of facts into cases.

    ``source`` is a .json or .jsonl file (also .gz), a folder with such files below it, a folder saved by ``datasets``,
    ``hub:owner/name[@revision][:configuration[:split]]``, or "shipped": the facts of this package. ``form`` is one of
    ``FORMS``; by default each file has the form that recognizes most of its records. ``images`` is the folder that
    photos are named from (by default the file's own). ``seed`` chooses new targets for known facts, which have none.

    Records that cannot be used are named in ``problems``; with ``strict`` the first problem raises. Raises
    ``DataError`` for a source that cannot be read or has nothing to use.
    """
    if form is not None:
        _ = FORMS[form]  # an unknown name is refused before anything is read
    if source == SHIPPED:
        return replace(load_facts(SHIPPED_FILE, "knowedit", strict=True), source=SHIPPED)
    found = read_hub(source) if is_hub(source) else read_rows(source)
    files: dict[str, list[Row]] = {}
    for row in found.rows:
        files.setdefault(row.file, []).append(row)
    if len(files) > 1:
        files = together(files, [number for name in FORMS for number in FORMS[name].numbers])
    reader = _Reader(seed, None if images is None else Path(images), several=len(files) > 1)
    reader.problems += found.problems
    for name, rows in files.items():
        if strict and reader.problems:
            break
        reader.read(name, rows, form)
    if strict and reader.problems:
        raise DataError(f"{reader.problems[0]}")
    if not reader.cases:
        count = len(reader.problems)
        told = "The problem" if count == 1 else f"The first of {count} problems"
        first = f" {told}: {reader.problems[0]}" if count else ""
        raise DataError(f"'{source}' has no fact that can be used.{first}")
    forms = "+".join(reader.forms)
    return Facts(tuple(reader.cases), tuple(reader.problems), forms, str(source), found.digest, dict(reader.unread))


class _Reader:
    """Cases, problems and forms of the files so far; ``several`` files put their name before each id."""

    def __init__(self, seed: int, images: Path | None, several: bool) -> None:
        self.seed, self.images, self.several = seed, images, several
        self.cases: list[FactCase] = []
        self.problems: list[Problem] = []
        self.forms: dict[str, None] = {}
        self.unread: Counter[str] = Counter()
        self._taken: set[str] = set()
        self._copies: dict[str, int] = {}  # the number of the last copy of an id

    def read(self, name: str, rows: Sequence[Row], form: str | None) -> None:
        form = form or _form_of([row.value for row in rows])
        if form is None:
            first = rows[0].value if rows else None
            has = f"; the first has {', '.join(map(repr, list(first)[:8]))}" if isinstance(first, Mapping) else ""
            self.problems.append(Problem(name, f"its records have the fields of no form ({', '.join(FORMS)}){has}."))
            return
        self.forms[form] = None
        values = [row.value for row in rows]
        prepare = FORMS[form].prepare
        if prepare is not None:
            values = prepare(values, self.seed)
        for row, value in zip(rows, values, strict=True):
            self._add(row, value, FORMS[form], f"{_stem(name)}-" if self.several else "")

    def _add(self, row: Row, value: object, form: Form, prefix: str) -> None:
        if not isinstance(value, Mapping):
            self.problems.append(Problem(row.where, "it is not a record with fields."))
            return
        record = Record(value, self.images or row.folder)
        wanted = f"{prefix}{_identity(value, row.number)}"
        copy = self._copies.get(wanted, 1)
        identity = wanted if copy == 1 else f"{wanted}-{copy}"
        while identity in self._taken:
            copy += 1
            identity = f"{wanted}-{copy}"
        self._copies[wanted] = copy
        try:
            self.cases.append(form.case(record, identity))
        except NeuronwiseError as error:
            self.problems.append(Problem(row.where, str(error)))
            return
        self._taken.add(identity)
        self.unread.update(record.unread)
        notes = list(dict.fromkeys(record.notes))
        if identity != wanted:
            notes.append(f"its id {wanted!r} was already used; it is {identity!r} now.")
        self.problems += [Problem(row.where, note, kept=True) for note in notes]


def _form_of(values: Sequence[object]) -> str | None:
    """The form that recognizes most of the records."""
    votes: Counter[str] = Counter()
    tried = [(name, FORMS[name]) for name in reversed(list(FORMS))]
    for value in values:
        if isinstance(value, Mapping):
            there = {name: one for name, one in value.items() if one is not None}  # Arrow fills absent fields with null
            votes.update([name for name, form in tried if form.recognizes(there)][:1])
    return votes.most_common(1)[0][0] if votes else None


def _identity(fields: Mapping[str, object], number: int) -> str:
    for name in IDENTITIES:
        value = fields.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()
    return str(number)


def _stem(name: str) -> str:
    for ending in (".gz", ".json", ".jsonl"):
        name = name.removesuffix(ending)
    return name.replace("/", "-")
