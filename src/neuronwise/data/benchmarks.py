"""Editing benchmarks as cases: ``load_facts`` reads a file, a folder or a dataset of the hub in any known form."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronwise.data.counterfact import counterfact_case, is_counterfact
from neuronwise.data.facts import FactCase
from neuronwise.data.fields import Record
from neuronwise.data.hub import is_hub, read_hub
from neuronwise.data.knowedit import is_knowedit, knowedit_case
from neuronwise.data.known_facts import is_known_facts, known_facts_case, with_targets
from neuronwise.data.read import Problem, Row, read_rows
from neuronwise.data.zsre import is_mmedit, is_zsre, mmedit_case, zsre_case
from neuronwise.errors import DataError, NeuronwiseError


@dataclass(frozen=True)
class Form:
    """How one benchmark writes its records: whether a record is one of them, and what case it makes."""

    recognizes: Callable[[Mapping[str, Any]], bool]
    case: Callable[[Record, str], FactCase]
    prepare: Callable[[Sequence[Any], int], list[Any]] | None = None


FORMS: dict[str, Form] = {  # tried in this order: what a later form also recognizes comes first
    "mmedit": Form(is_mmedit, mmedit_case),
    "zsre": Form(is_zsre, zsre_case),
    "knowedit": Form(is_knowedit, knowedit_case),
    "counterfact": Form(is_counterfact, counterfact_case),
    "known_facts": Form(is_known_facts, known_facts_case, with_targets),
}
IDENTITIES = ("case_id", "known_id", "id")


@dataclass(frozen=True)
class Facts:
    """The cases of a benchmark, and by place and reason what of it could not be used.

    ``problems`` with ``kept`` are parts of records whose case stands without them; each other one is a record (or
    file) that is left out. ``form`` names the form (several with "+"), ``digest`` is a SHA-256 of what was read.
    """

    cases: tuple[FactCase, ...]
    problems: tuple[Problem, ...]
    form: str
    source: str
    digest: str

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[FactCase]:
        return iter(self.cases)

    @property
    def left_out(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if not problem.kept)

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
        lines = [f"{len(self)} cases ({self.form}) from {self.source}" + (f": {asked}." if asked else ".")]
        if self.problems:
            lines[0] += f" {out} left out, {parts} with a part left out or mended:"
            lines += [f"  {problem}" for problem in self.problems[:5]]
            if len(self.problems) > 5:
                lines.append(f"  and {len(self.problems) - 5} more in .problems")
        return "\n".join(lines)


SHIPPED = "shipped"
SHIPPED_FILE = Path(__file__).parent / "shipped" / "facts.json"


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
    ``hub:owner/name[@revision][:configuration[:split]]``, or "shipped": those of this package. ``form`` is
    one of ``FORMS``; by default each file's form is the one that most of its records have the fields of. ``images`` is
    the folder that photos are named from (by default the file's own). ``seed`` chooses new targets for known facts,
    which have none (``with_targets``).

    Records that cannot be used are named in ``problems``, never dropped in silence; with ``strict`` the first problem
    raises. Raises ``DataError`` for a source that cannot be read or has nothing to use.
    """
    if form is not None and form not in FORMS:
        raise DataError(f"There is no form of facts called {form!r}; known are {', '.join(FORMS)}.")
    if source == SHIPPED:
        return load_facts(SHIPPED_FILE, "knowedit", strict=strict)
    found = read_hub(source) if is_hub(source) else read_rows(source)
    problems = list(found.problems)
    if strict and problems:
        raise DataError(f"{problems[0]}")
    files: dict[str, list[Row]] = {}
    for row in found.rows:
        files.setdefault(row.file, []).append(row)
    cases: list[FactCase] = []
    forms: list[str] = []
    taken: set[str] = set()
    for name, rows in files.items():
        file_form = form or _form_of([row.value for row in rows])
        if file_form is None:
            problems.append(Problem(name, f"its records have the fields of no form ({', '.join(FORMS)})."))
        else:
            forms.append(file_form)
            prefix = f"{_stem(name)}-" if len(files) > 1 else ""
            for one in _cases(rows, FORMS[file_form], seed, None if images is None else Path(images), prefix, taken):
                if isinstance(one, FactCase):
                    cases.append(one)
                else:
                    problems.append(one)
                    if strict:
                        break
        if strict and problems:
            raise DataError(f"{problems[0]}")
    if not cases:
        first = f" The first of {len(problems)} problems: {problems[0]}" if problems else ""
        raise DataError(f"'{source}' has no fact that can be used.{first}")
    return Facts(tuple(cases), tuple(problems), "+".join(dict.fromkeys(forms)), str(source), found.digest)


def _form_of(values: Sequence[Any]) -> str | None:
    votes: Counter[str] = Counter()
    for value in values:
        if isinstance(value, Mapping):
            there = {name: one for name, one in value.items() if one is not None}  # Arrow fills absent fields with null
            votes.update([name for name, form in FORMS.items() if form.recognizes(there)][:1])
    return votes.most_common(1)[0][0] if votes else None


def _cases(
    rows: Sequence[Row], form: Form, seed: int, images: Path | None, prefix: str, taken: set[str]
) -> Iterator[FactCase | Problem]:
    values = [row.value for row in rows]
    if form.prepare is not None:
        values = form.prepare(values, seed)
    for row, value in zip(rows, values, strict=True):
        if not isinstance(value, Mapping):
            yield Problem(row.where, "it is no record with fields.")
            continue
        record = Record(value, images or row.folder)
        wanted = f"{prefix}{_identity(value, row.number)}"
        identity = _unique(wanted, taken)
        try:
            case = form.case(record, identity)
        except NeuronwiseError as error:
            yield Problem(row.where, str(error))
            continue
        taken.add(identity)
        yield case
        for note in record.notes:
            yield Problem(row.where, note, kept=True)
        if identity != wanted:
            yield Problem(row.where, f"its id {wanted!r} was taken before; it is {identity!r} now.", kept=True)


def _identity(fields: Mapping[str, Any], number: int) -> str:
    for name in IDENTITIES:
        value = fields.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()
    return str(number)


def _unique(wanted: str, taken: set[str]) -> str:
    identity, copy = wanted, 1
    while identity in taken:
        copy += 1
        identity = f"{wanted}-{copy}"
    return identity


def _stem(name: str) -> str:
    for ending in (".gz", ".json", ".jsonl"):
        name = name.removesuffix(ending)
    return name.replace("/", "-")
