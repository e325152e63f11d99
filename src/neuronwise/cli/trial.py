"""Trying an edit, writing it and printing what it did: what all commands of ``neuronwise edit`` end with."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from neuronwise.cli.app import Output, option
from neuronwise.cli.options import require_folder
from neuronwise.cli.output import note, print_table
from neuronwise.cli.progress import status
from neuronwise.errors import EditError, NeuronwiseError

if TYPE_CHECKING:
    from neuronwise.edit import Edit
    from neuronwise.model import Model, Run

SCHEMA = "neuronwise.edited/1"
SHOWN = 10  # neurons that are printed by name


@dataclass(frozen=True)
class Exports:
    """Other forms in which an edit is written."""

    adapter: Annotated[Path | None, option("Write a PEFT LoRA adapter to this new folder.")] = None
    merge: Annotated[Path | None, option("Write the whole edited checkpoint to this new folder.")] = None

    def named(self, out: Path | None = None) -> dict[str, Path]:
        """The folders that the user named, each new and writable, by what goes there."""
        named = {"edit": out, "adapter": self.adapter, "merged": self.merge}
        folders = {name: path for name, path in named.items() if path is not None}
        if len({path.absolute() for path in folders.values()}) < len(folders):
            raise NeuronwiseError("The edit, the adapter and the merged model need a folder each.")
        for path in folders.values():
            require_folder(path, new=True)
        return folders


@dataclass(frozen=True)
class Trial:
    """Prompts, photos or both, which a model answers before an edit and with it; texts in a ``chat`` if so asked."""

    model: Model
    asked: Sequence[tuple[str | None, Path | None]]
    length: int
    chat: bool = False
    system: str | None = None

    def runs(self) -> list[Run]:
        """The answers; a prompt without a photo is continued as it is."""
        with status("asking"):
            return [self._run(text, image) for text, image in self.asked]

    def _run(self, text: str | None, image: Path | None) -> Run:
        if text is None or not self.chat:
            return self.model.run(image, text, max_new_tokens=self.length, chat=None if image is not None else False)
        from neuronwise.answers.request import laid_out

        prompted, picture = laid_out(self.model, text, image, chat=True, system=self.system)
        return self.model.run_prompted(prompted, picture, max_new_tokens=self.length)

    def texts(self) -> list[str]:
        """The texts of the answers."""
        return [run.text for run in self.runs()]

    def output(self, edit: Edit, before: list[str], folders: Mapping[str, Path], seconds: float | None) -> Output:
        """Ask again with the edit applied, and write it where it is wanted."""
        from neuronwise.model.prompt import before_prompts

        with edit.applied(self.model):
            after = self.texts()
        if folders and edit.empty:
            note("the edit changes nothing, so it was not written")
            folders = {}
        _write(edit, self.model, folders)
        if edit.record.get("note"):
            note(edit.record["note"])
        made = seconds is not None
        for sentence in _complaints(edit) if made else ():
            note(sentence)
        if edit.record.get("covariance") == "identity":
            note("without key statistics (--statistics) the identity is used in their place")
        texts = [
            {"prompt": text, "image": None if image is None else str(image), "before": first, "after": second}
            for (text, image), first, second in zip(self.asked, before, after, strict=True)
        ]
        content = {
            "schema": SCHEMA,
            **dict(edit.record),
            "texts": texts,
            "neurons": neurons_changed(self.model, edit),
            "before_prompts": before_prompts(edit.prefaces),
            "parameters_changed": edit.parameters_changed,
            "seconds": seconds,
            "written": {name: {"folder": str(path), "bytes": _size(path)} for name, path in folders.items()},
        }
        return Output(content, lambda: _show(content, made))


def timed(make: Callable[[], Edit]) -> tuple[Edit, float]:
    """The edit that is made, and in how many seconds."""
    started = time.perf_counter()
    with status("editing"):
        edit = make()
    return edit, time.perf_counter() - started


def _complaints(edit: Edit) -> list[str]:
    from neuronwise.edit.verdict import complaints

    return complaints(edit.record["verdict"]) if "verdict" in edit.record else []


def neurons_changed(model: Model, edit: Edit) -> list[str]:
    """The addresses of the neurons whose value vectors an edit changes."""
    from neuronwise.edit.delta import neurons_of

    return [str(neuron) for delta in edit.deltas for neuron in neurons_of(model, delta)]


def _show(content: dict[str, Any], made: bool) -> None:
    rows = [[row["prompt"] or Path(row["image"]).name, row["before"], row["after"]] for row in content["texts"]]
    if rows:
        print_table("", ["asked", "before", "after"], rows)
    names, left = content["neurons"][:SHOWN], len(content["neurons"]) - SHOWN
    more = f" and {left} more" if left > 0 else ""
    if content["before_prompts"]:
        print(f"read before every prompt: {content['before_prompts']!r}")
    else:
        print(f"neurons changed: {' '.join(names)}{more} ({content['parameters_changed']} numbers)")
    if "enough" in content:
        print(f"neurons that would do: {content['enough']}")
    if made and "targets" in content.get("verdict", {}):
        _show_verdict(content["verdict"])
    for name, written in content["written"].items():
        print(f"{name}: {written['folder']} ({written['bytes'] / 1000:.1f} kB)")


def _show_verdict(verdict: Mapping[str, Any]) -> None:
    from neuronwise.edit.verdict import neutral

    for row in verdict["targets"]:
        holds = "holds" if row["holds"] else "fails"
        chance = f"p {row['p_before']:.2g} → {row['p']:.2g}, rank {row['rank_before']} → {row['rank']}"
        print(f"{row['target'].strip()!r} {holds}: {chance}")
    print(neutral(verdict))


def _write(edit: Edit, model: Model, folders: Mapping[str, Path]) -> None:
    """Write all folders or none; an edit that cannot be saved there is kept elsewhere, since it may have cost hours."""
    written: list[Path] = []
    name = ""
    try:
        for name, path in folders.items():
            if name == "edit":
                edit.save(path)
            elif name == "adapter":
                edit.to_peft(model, path)
            else:
                edit.merge(model, path)
            written.append(path)
    except BaseException as error:
        for path in written:  # each was new; what another process wrote into one of the others is its own
            shutil.rmtree(path, ignore_errors=True)
        if isinstance(error, EditError) and name == "edit":
            _rescue(edit, error)
        raise


def _rescue(edit: Edit, why: EditError) -> None:
    """Keep an edit in the system's folder for temporary files, and say where; nothing where that fails too."""
    place = Path(tempfile.mkdtemp(prefix="neuronwise-edit-"))
    try:
        edit.save(place)
    except EditError:
        place.rmdir()
        return
    raise EditError(f"{why} The edit is kept in '{place}'; move it to a place of your own.") from why


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
