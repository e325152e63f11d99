"""The commands that edit: a fact, a word of captions, a word to suppress; and the one that tries a saved edit."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuronwise.cli.app import Output, app, argument, command, option, refuse
from neuronwise.cli.options import (
    MOST,
    EditorChoice,
    ModelOption,
    Placement,
    SeedOption,
    SetOption,
    parse_settings,
    require_folder,
    require_photos,
)
from neuronwise.cli.output import note, people_see, print_table
from neuronwise.cli.progress import status
from neuronwise.edit.editors import EDITORS
from neuronwise.errors import EditError, NeuronwiseError
from neuronwise.model.sources import SOURCES

if TYPE_CHECKING:
    from neuronwise.edit import Edit, SuppressSettings, SwapSettings
    from neuronwise.model import Model, Run

SCHEMA = "neuronwise.edited/1"
SHOWN = 10  # neurons that are printed by name

edit_app = typer.Typer(no_args_is_help=True, help="Edit what a model knows, save the edit as a folder, try it.")
app.add_typer(edit_app, name="edit")

LengthOption = Annotated[int, option("Tokens to generate before and after.", min=1)]
OutOption = Annotated[Path | None, option("Save the edit in this new folder.")]


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
class CaptionOptions:
    """What an edit of captions takes beside its words."""

    model: ModelOption = None
    settings: SetOption = None
    max_new_tokens: LengthOption = 50
    out: OutOption = None


@command(edit_app)
def fact(
    *,
    prompt: Annotated[str, option("The prompt, with {} in place of the subject.")],
    subject: Annotated[str, option("What the fact is about.")],
    target: Annotated[str, option("The new answer, written as a word.")],
    choice: EditorChoice,
    model: ModelOption = None,
    image: Annotated[Path | None, option("A photo that the prompt asks about.")] = None,
    chat: Annotated[bool, option("Ask in the model's chat template.", "--chat")] = False,
    system: Annotated[str | None, option("A system text before the prompt, with --chat.")] = None,
    ask: Annotated[list[str] | None, option("Another prompt to try before and after; repeat.")] = None,
    max_new_tokens: LengthOption = 10,
    out: OutOption = None,
    exports: Exports,
    placement: Placement,
    seed: SeedOption = 0,
) -> Output:
    """Make a model complete a prompt with a new answer."""
    if not chat:
        refuse("without --chat", "system")
    folders = exports.named(out)
    require_photos([image])
    from neuronwise.answers.free import begins_with
    from neuronwise.data.facts import Fact

    photo = None if image is None else str(image)
    request = Fact(prompt, subject, target, image=photo, chat=chat, system=system)
    changes = choice.changes(seed)
    if choice.statistics is not None:
        changes["statistics"] = choice.read_statistics()
    loaded = placement.load(model, "builtin" if image is not None else "builtin-text")
    trial = Trial(loaded, [(request.text, image), *((text, image) for text in ask or ())], max_new_tokens, chat, system)
    before = trial.texts()
    if begins_with(before[0], target):
        raise EditError(f"The model already answers {target.strip()!r}; there is nothing to edit.")
    edit, seconds = _timed(lambda: EDITORS[choice.editor].function(loaded, request, **changes))
    return trial.output(edit, before, folders, seconds)


@command(edit_app)
def swap(
    *,
    images: Annotated[list[Path], argument("Photos whose captions name the source.")],
    source: Annotated[str, option("The word that captions name now.")],
    target: Annotated[str, option("The word that they name instead.")],
    options: CaptionOptions,
    exports: Exports,
    placement: Placement,
) -> Output:
    """Make a model name another word for what it sees."""
    from neuronwise.edit import SwapSettings, swap

    return _edit_captions(
        images, options, exports, placement, SwapSettings,
        lambda model, runs, changes: swap(model, runs, source, target, **changes),
    )  # fmt: skip


@command(edit_app)
def suppress(
    *,
    images: Annotated[list[Path], argument("Photos whose captions name the word.")],
    concept: Annotated[str, option("The word to suppress.")],
    options: CaptionOptions,
    exports: Exports,
    placement: Placement,
) -> Output:
    """Remove a word from captions by an edit (`neuronwise suppress` does so temporarily)."""
    from neuronwise.edit import SuppressSettings, suppress

    return _edit_captions(
        images, options, exports, placement, SuppressSettings,
        lambda model, runs, changes: suppress(model, runs, concept, **changes),
    )  # fmt: skip


@command(edit_app)
def apply(
    *,
    folder: Annotated[Path, argument("A saved edit.")],
    prompt: Annotated[list[str] | None, option("A text, or a question about the photo; repeat for several.")] = None,
    image: Annotated[Path | None, option("A photo.")] = None,
    model: Annotated[str | None, option("The model.", "--model", "-m", show_default="that which was edited")] = None,
    max_new_tokens: LengthOption = 20,
    exports: Exports,
    placement: Placement,
) -> Output:
    """Show what a model writes with a saved edit; write the edit as an adapter or into a whole checkpoint."""
    folders = exports.named()
    if not prompt and image is None and not folders:
        raise NeuronwiseError("Give --prompt or --image to try the edit, or --adapter or --merge to write it.")
    require_photos([image])
    from neuronwise.edit import load_edit

    edit = load_edit(folder)
    loaded = placement.load(model or _edited(edit))
    questions: list[str | None] = [*prompt] if prompt else [None] if image is not None else []
    trial = Trial(loaded, [(text, image) for text in questions], max_new_tokens)
    return trial.output(edit, trial.texts(), folders, None)


@command(edit_app)
def diff(
    *,
    folder: Annotated[Path, argument("A saved edit.")],
    model: Annotated[str | None, option("The model.", "--model", "-m", show_default="that which was edited")] = None,
    top: Annotated[int, option("Neurons to show, the most changed first.", min=1, max=MOST)] = 20,
    k: Annotated[int, option("Tokens of each neuron.", "-k", min=1, max=1000)] = 6,
    placement: Placement,
) -> Output:
    """Show what a saved edit changed, in words: what its neurons raise and lower without it and with it."""
    from neuronwise.edit import load_edit
    from neuronwise.edit.changes import changed_neurons

    edit = load_edit(folder)
    loaded = placement.load(model or _edited(edit))
    found = changed_neurons(loaded, edit, top, k)
    names = len(_neurons(loaded, edit))
    content = {"schema": "neuronwise.edit-diff/1", "model": loaded.name, "method": edit.record.get("method"),
               "changed": names, "neurons": [one.to_row() for one in found]}  # fmt: skip
    rows = [
        [str(one.neuron), f"{one.size:.3g}", *map(people_see, (one.before.raises, one.after.raises, one.before.lowers,
         one.after.lowers))]
        for one in found
    ]  # fmt: skip
    heads = ["neuron", "change", "raised", "raises now", "lowered", "lowers now"]
    return Output(content, lambda: print_table(f"{len(found)} of {names} neurons changed", heads, rows))


def _edited(edit: Edit) -> str:
    """The model that an edit's record names; raises ``EditError`` where nothing can be opened by that name."""
    named = [one.get("model") for one in (edit.record, *edit.record.get("parts", ()))]
    name = next((one for one in named if one), "builtin-text")
    if name in SOURCES or "/" in name or Path(name).exists():
        return name
    raise EditError(f"The edit was made for {name!r}; say with --model where that is.")


def _edit_captions(
    images: list[Path],
    options: CaptionOptions,
    exports: Exports,
    placement: Placement,
    settings: type[SwapSettings] | type[SuppressSettings],
    make: Callable[[Model, list[Run], dict[str, Any]], Edit],
) -> Output:
    """Caption the photos, edit, and caption them again."""
    folders = exports.named(options.out)
    require_photos(images)
    from neuronwise.edit.settings import checked, require_range

    changes = checked(settings, parse_settings(options.settings))
    require_range(replace(settings(), **changes))
    trial = Trial(placement.load(options.model), [(None, image) for image in images], options.max_new_tokens)
    runs = trial.runs()
    edit, seconds = _timed(lambda: make(trial.model, runs, changes))
    return trial.output(edit, [run.text for run in runs], folders, seconds)


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
        with edit.applied(self.model):
            after = self.texts()
        if folders and not edit.deltas:
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
            "neurons": _neurons(self.model, edit),
            "parameters_changed": edit.parameters_changed,
            "seconds": seconds,
            "written": {name: {"folder": str(path), "bytes": _size(path)} for name, path in folders.items()},
        }
        return Output(content, lambda: _show(content, made))


def _timed(make: Callable[[], Edit]) -> tuple[Edit, float]:
    started = time.perf_counter()
    with status("editing"):
        edit = make()
    return edit, time.perf_counter() - started


def _complaints(edit: Edit) -> list[str]:
    from neuronwise.edit.verdict import complaints

    return complaints(edit.record["verdict"]) if "verdict" in edit.record else []


def _neurons(model: Model, edit: Edit) -> list[str]:
    from neuronwise.edit.delta import neurons_of

    return [str(neuron) for delta in edit.deltas for neuron in neurons_of(model, delta)]


def _show(content: dict[str, Any], made: bool) -> None:
    rows = [[row["prompt"] or Path(row["image"]).name, row["before"], row["after"]] for row in content["texts"]]
    if rows:
        print_table("", ["asked", "before", "after"], rows)
    names, left = content["neurons"][:SHOWN], len(content["neurons"]) - SHOWN
    more = f" and {left} more" if left > 0 else ""
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
