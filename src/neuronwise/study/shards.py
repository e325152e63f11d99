"""A study in parts: each is run by itself into a folder of its own, and the folders are merged."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from neuronwise.errors import StudyError, told
from neuronwise.files import require_free, write_folder
from neuronwise.study.cases import CaseFile
from neuronwise.study.kind import Study, Unit
from neuronwise.study.kinds import KINDS
from neuronwise.study.notes import Notes, Row
from neuronwise.study.results import concluded, kind_of, listed_cases, read_study
from neuronwise.study.store import Store, groups, open_cases, read_before, read_manifest, require_same

TOGETHER = 1_000  # lines that are written together


@dataclass(frozen=True)
class Shard:
    """Part ``number`` (from 1) ``of`` several; prints as "3/16"."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "3/16"; raises ``StudyError`` for anything else."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise StudyError(f"A shard is written 3/16, the third of sixteen; not {text!r}.")
        return cls(int(found[1]), int(found[2]))

    def chosen(self, units: Sequence[Unit]) -> list[Unit]:
        """The units of this shard, in order: those of every so-manieth route, or unit where there are fewer routes."""
        routes = {route: number for number, route in enumerate(dict.fromkeys(unit.route for unit in units))}
        whole = len(routes) >= self.of
        return [
            unit
            for number, unit in enumerate(units)
            if (routes[unit.route] if whole else number) % self.of == self.number - 1
        ]


@dataclass(frozen=True)
class _Part:
    """A shard's folder."""

    folder: str
    shard: Shard
    manifest: Row
    notes: Notes
    cases: CaseFile

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> _Part:
        manifest = read_manifest(folder)
        if "shard" not in manifest:
            raise StudyError(f"'{folder}' is not a shard: it was begun without --shard.")
        shard = Shard.parse(str(manifest["shard"]))
        return cls(os.fspath(folder), shard, manifest, read_before(folder), open_cases(folder))


def merge(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Study:
    """Put the shards of a study together in a new folder; its rows are those of the study run as a whole.

    Raises ``StudyError`` for shards of different studies, for one that is missing, there twice or not finished, for
    shards whose models answered differently, and for a folder that is not free; then nothing is written.
    """
    require_free(out, StudyError)
    with told(StudyError, "These shards cannot be put together; one of them is damaged"):
        _merge(sorted(map(_Part.read, folders), key=lambda part: part.shard.number), out)
    return read_study(out)


def _merge(parts: Sequence[_Part], out: str | os.PathLike[str]) -> None:
    _require_whole(parts)
    notes = _together(parts)
    where = {name: part.cases for part in parts for name in part.cases}
    manifest = {key: value for key, value in parts[0].manifest.items() if key != "shard"}
    listed = listed_cases(notes)
    assert listed is not None

    def write(folder: Path) -> None:
        about = {key: value for key, value in manifest.items() if key not in ("schema", "recipe")}
        with Store(folder, manifest["schema"], manifest["recipe"], **about) as store:
            store.before.extend(notes.rows)
            for some in groups(listed, TOGETHER):
                store.cases.extend([line for name in some for line in where[name].read([name])])
            concluded(store, KINDS[kind_of(manifest)].rows)

    write_folder(out, write, StudyError)


def _require_whole(parts: Sequence[_Part]) -> None:
    """Raise ``StudyError`` unless these are all shards of one study, each once and finished."""
    first = parts[0]
    for one, other in pairwise(parts):
        require_same(other.manifest, first.manifest, Path(other.folder))
        if other.shard.of != first.shard.of:
            raise StudyError(
                f"'{first.folder}' is shard {first.shard} and '{other.folder}' shard {other.shard}; they do not belong "
                "together."
            )
        if one.shard == other.shard:
            raise StudyError(f"Shard {one.shard} is there twice, '{one.folder}' and '{other.folder}'; name one.")
    there = {part.shard.number for part in parts}
    missing = [str(Shard(n, first.shard.of)) for n in range(1, first.shard.of + 1) if n not in there]
    if missing:
        have = "Shard {} is missing" if len(missing) == 1 else "Shards {} are missing"
        raise StudyError(f"{have.format(', '.join(missing))}; run what is missing, then merge all of them.")
    for part in parts:
        wanted = listed_cases(part.notes)
        if wanted is None or len(part.cases) < len(wanted):
            count = "?" if wanted is None else len(wanted)
            raise StudyError(
                f"Shard {part.shard} in '{part.folder}' has {len(part.cases)} of {count} cases; finish it first: "
                f"neuronwise study resume {part.folder}"
            )


def _together(parts: Sequence[_Part]) -> Notes:
    """The notes of all shards, each once; raises ``StudyError`` where two differ."""
    found: dict[tuple[str, str], tuple[_Part, Row]] = {}
    for part in parts:
        for row in part.notes.rows:
            key = row["part"], str(row.get("key", row.get("id", row.get("start"))))
            if key == ("study", "shard"):
                continue
            first, same = found.setdefault(key, (part, row))
            if same != row:
                raise StudyError(
                    f"Shards {first.shard} and {part.shard} differ in what they found for {key[0]} {key[1]!r}; they "
                    "ran on machines or versions that do not compute the same, and are not one study."
                )
    return Notes(row for _, row in found.values())
