"""The commands that edit: a fact, a word of captions, a word to suppress; and the one that tries a saved edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuronwise.cli.app import Names, Output, app, argument, command, option, refuse
from neuronwise.cli.fact_source import FactSource
from neuronwise.cli.options import (
    MOST,
    EditorChoice,
    ModelOption,
    Placement,
    SeedOption,
    SetOption,
    parse_settings,
    require_photos,
)
from neuronwise.cli.output import people_see, print_table
from neuronwise.cli.trial import Exports, Trial, neurons_changed, timed
from neuronwise.data.facts.load import FORMS
from neuronwise.edit.editors import EDITORS
from neuronwise.errors import EditError, NeuronwiseError
from neuronwise.files import shareable
from neuronwise.model.sources import SOURCES

if TYPE_CHECKING:
    from neuronwise.edit import Edit, SuppressSettings, SwapSettings
    from neuronwise.model import Model, Run

edit_app = typer.Typer(no_args_is_help=True, help="Edit what a model knows, save the edit as a folder, try it.")
app.add_typer(edit_app, name="edit")

LengthOption = Annotated[int, option("Tokens to generate before and after.", min=1)]
OutOption = Annotated[Path | None, option("Save the edit in this new folder.")]


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
    join: Annotated[
        str | None,
        option(
            "What is between prompt and target, such as '' or ' '.",
            show_default="as the text is spelled, or as the model would go on",
        ),
    ] = None,
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
    request = Fact(prompt, subject, target, image=photo, join=join, chat=chat, system=system)
    changes = choice.changes(seed)
    if choice.statistics is not None:
        changes["statistics"] = choice.read_statistics()
    loaded = placement.load(model, "builtin" if image is not None else "builtin-text")
    trial = Trial(loaded, [(request.text, image), *((text, image) for text in ask or ())], max_new_tokens, chat, system)
    before = trial.texts()
    if begins_with(before[0], target):
        raise EditError(f"The model already answers {target.strip()!r}; there is nothing to edit.")
    edit, seconds = timed(lambda: EDITORS[choice.editor].function(loaded, request, **changes))
    return trial.output(edit, before, folders, seconds)


@command(edit_app)
def facts(
    *,
    file: Annotated[
        str,
        argument("Facts: file, folder or hub dataset in a form listed below."),
        Names("Forms of facts", FORMS),
    ],
    origin: FactSource,
    choice: EditorChoice,
    model: ModelOption = None,
    limit: Annotated[int | None, option("Learn only the first N facts.", min=1)] = None,
    ask: Annotated[list[str] | None, option("A prompt to try before and after; repeat.")] = None,
    max_new_tokens: LengthOption = 10,
    out: OutOption = None,
    exports: Exports,
    placement: Placement,
    seed: SeedOption = 0,
) -> Output:
    """Make a model learn all facts of a file in one edit."""
    folders = exports.named(out)
    changes = choice.changes(seed)
    cases = origin.load(file, seed)
    learned = [fact for case in cases[:limit] for fact in case.facts]
    if choice.statistics is not None:
        changes["statistics"] = choice.read_statistics()
    loaded = placement.load(model, "builtin" if any(fact.image for fact in learned) else "builtin-text")
    trial = Trial(loaded, [(text, None) for text in ask or ()], max_new_tokens)
    before = trial.texts()
    edit, seconds = timed(lambda: EDITORS[choice.editor].function(loaded, learned, **changes))
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
    names = len(neurons_changed(loaded, edit))
    content = {"schema": "neuronwise.edit-diff/1", "model": loaded.name, "method": edit.record.get("method"),
               "changed": names, "neurons": [one.to_row() for one in found]}  # fmt: skip
    rows = [
        [str(one.neuron), f"{one.size:.3g}", *map(people_see, (one.before.raises, one.after.raises, one.before.lowers,
         one.after.lowers))]
        for one in found
    ]  # fmt: skip
    heads = ["neuron", "change", "raised", "raises now", "lowered", "lowers now"]
    return Output(content, lambda: print_table(f"{len(found)} of {names} neurons changed", heads, rows))


@command(edit_app)
def remove(
    *,
    folder: Annotated[Path, argument("A saved edit of several facts.")],
    fact: Annotated[int | None, option("The number of the fact, from 1; they are listed without it.", min=1)] = None,
    out: OutOption = None,
) -> Output:
    """Take one fact out of a saved edit of many, and save the rest."""
    from neuronwise.edit import facts_in, load_edit, without

    edit = load_edit(folder)
    listed = facts_in(edit)
    if fact is None:
        named = "; ".join(f"{number}: {_told(one)}" for number, one in enumerate(listed, 1))
        raise NeuronwiseError(f"Name one of its facts by --fact N: {named}.")
    if out is None:
        raise NeuronwiseError("Name a new folder for the rest: --out DIR.")
    left = without(edit, fact - 1)
    left.save(out)
    content = {"schema": "neuronwise.edit-removed/1", "removed": listed[fact - 1], "facts": facts_in(left),
               "written": shareable(str(out))}  # fmt: skip
    lines = [
        f"taken out: {_told(listed[fact - 1])}",
        *(f"kept: {_told(one)}" for one in facts_in(left)),
        f"edit: {out}",
    ]
    return Output(content, lambda: print("\n".join(lines)))


def _told(request: Mapping[str, Any]) -> str:
    """A fact in one line; anything else by what was asked."""
    if "prompt" in request and "target_new" in request:
        return f"{str(request['prompt']).replace('{}', str(request.get('subject')))} → {request['target_new']}"
    return ", ".join(f"{name} {value}" for name, value in request.items()) or "?"


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
    edit, seconds = timed(lambda: make(trial.model, runs, changes))
    return trial.output(edit, [run.text for run in runs], folders, seconds)
