"""The commands that edit: a fact, a word of captions, a word to be gone; and those that try a saved edit."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuronwise.cli.app import DeviceOption, DtypeOption, JsonOption, ModelOption, app, load_model
from neuronwise.cli.output import print_json, print_table, status, stdout_kept
from neuronwise.edit import EDITORS
from neuronwise.errors import NeuronwiseError

if TYPE_CHECKING:
    from neuronwise.edit import Edit
    from neuronwise.model import Model

SCHEMA = "neuronwise.edited/1"
SHOWN = 10  # neurons that are printed by name

edit_app = typer.Typer(no_args_is_help=True, help="Change what a model knows, keep the change as a folder, try it.")
app.add_typer(edit_app, name="edit")

OutOption = Annotated[Path | None, typer.Option(help="Save the edit in this new folder.")]
AdapterOption = Annotated[Path | None, typer.Option(help="Also write it as a PEFT LoRA adapter in this new folder.")]
MergeOption = Annotated[Path | None, typer.Option(help="Also write the whole edited checkpoint in this new folder.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="A setting of the method, such as n=10; repeat.")]
AskOption = Annotated[list[str] | None, typer.Option(help="A further prompt to show before and after; repeat.")]
LengthOption = Annotated[int, typer.Option(min=1, help="Tokens of the texts before and after.")]


@edit_app.command()
def fact(
    prompt: Annotated[str, typer.Option(help="With {} where the subject stands.")],
    subject: Annotated[str, typer.Option(help="What the fact is about.")],
    target: Annotated[str, typer.Option(help="The new answer, written as a word.")],
    editor: Annotated[str, typer.Option(help=f"One of {', '.join(EDITORS)}.")] = "fine",
    model: ModelOption = None,
    image: Annotated[Path | None, typer.Option(help="A photo that the prompt asks about.")] = None,
    statistics: Annotated[Path | None, typer.Option(help="Key statistics, as `neuronwise statistics` wrote.")] = None,
    settings: SetOption = None,
    ask: AskOption = None,
    max_new_tokens: LengthOption = 10,
    out: OutOption = None,
    adapter: AdapterOption = None,
    merge: MergeOption = None,
    dtype: DtypeOption = None,
    device_map: DeviceOption = None,
    seed: Annotated[int, typer.Option(help="Every random choice hangs on it.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make a model complete a prompt by a new answer."""
    places = _free(out, adapter, merge)
    changes = parse_settings(settings)
    _require_photos([image] if image is not None else [])
    with stdout_kept():
        from neuronwise.data.facts import Fact

        request = Fact(prompt, subject, target, image=None if image is None else str(image))
        chosen = EDITORS[editor]
        changes = chosen.options(changes, statistics=statistics, seed=seed)
        if statistics is not None:
            changes["statistics"] = _statistics(statistics)
        loaded = load_model(model or ("builtin" if image is not None else "builtin-text"), dtype, device_map)
        asked = [(request.text, image), *((text, image) for text in ask or ())]
        before = _texts(loaded, asked, max_new_tokens)
        if before[0].strip().startswith(target.strip()):
            print(f"neuronwise: the model says {target.strip()!r} already", file=sys.stderr)
        started = time.perf_counter()
        with status(f"editing with {editor}"):
            edit = chosen.function(loaded, request, **changes)
        seconds = time.perf_counter() - started
        content = _finish(loaded, edit, asked, before, max_new_tokens, places, seconds)
    _print(content, as_json)


@edit_app.command()
def swap(
    images: Annotated[list[Path], typer.Argument(help="Photos whose caption says the source.")],
    source: Annotated[str, typer.Option(help="The word that is said.")],
    target: Annotated[str, typer.Option(help="The word to be said instead.")],
    model: ModelOption = None,
    settings: SetOption = None,
    max_new_tokens: LengthOption = 50,
    out: OutOption = None,
    adapter: AdapterOption = None,
    merge: MergeOption = None,
    dtype: DtypeOption = None,
    device_map: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a model say another word for what it sees."""
    _captions("swap", images, (source, target), model, settings, max_new_tokens, (out, adapter, merge),
              dtype, device_map, as_json)  # fmt: skip


@edit_app.command()
def suppress(
    images: Annotated[list[Path], typer.Argument(help="Photos whose caption says the word.")],
    concept: Annotated[str, typer.Option(help="The word to be gone.")],
    model: ModelOption = None,
    settings: SetOption = None,
    max_new_tokens: LengthOption = 50,
    out: OutOption = None,
    adapter: AdapterOption = None,
    merge: MergeOption = None,
    dtype: DtypeOption = None,
    device_map: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a word out of captions for good (`neuronwise suppress` only tries it)."""
    _captions("suppress", images, (concept,), model, settings, max_new_tokens, (out, adapter, merge),
              dtype, device_map, as_json)  # fmt: skip


@edit_app.command()
def apply(
    folder: Annotated[Path, typer.Argument(help="A saved edit.")],
    prompt: Annotated[list[str] | None, typer.Option(help="A text, or what to ask about the photo; repeat.")] = None,
    image: Annotated[Path | None, typer.Option(help="A photo.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="The one it was made for by default.")] = None,
    max_new_tokens: LengthOption = 20,
    adapter: AdapterOption = None,
    merge: MergeOption = None,
    dtype: DtypeOption = None,
    device_map: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a model says with a saved edit in; write it as an adapter or into a whole checkpoint."""
    if not prompt and image is None and adapter is None and merge is None:
        raise NeuronwiseError("Give --prompt or --image to try the edit, or --adapter or --merge to write it.")
    places = _free(None, adapter, merge)
    _require_photos([image] if image is not None else [])
    with stdout_kept():
        from neuronwise.edit import load_edit

        edit = load_edit(folder)
        made_for = edit.record.get("model") or next((part.get("model") for part in edit.record.get("parts", ())), None)
        loaded = load_model(model or made_for or "builtin-text", dtype, device_map)
        asked = [(text, image) for text in prompt or ([None] if image is not None else [])]
        before = _texts(loaded, asked, max_new_tokens)
        content = _finish(loaded, edit, asked, before, max_new_tokens, places, None)
    _print(content, as_json)


def parse_settings(given: Sequence[str] | None) -> dict[str, Any]:
    """ "n=10" → {"n": 10}: values as JSON writes them, "none" for None, anything else a text."""
    found: dict[str, Any] = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        if not equals or not name.strip().isidentifier():
            raise NeuronwiseError(f"--set takes name=value, such as n=10; not '{one}'.")
        try:
            found[name.strip()] = None if value.strip().lower() == "none" else json.loads(value)
        except ValueError:
            found[name.strip()] = value
    return found


def _captions(
    verb: str,
    images: list[Path],
    words: tuple[str, ...],
    model: str | None,
    settings: list[str] | None,
    max_new_tokens: int,
    folders: tuple[Path | None, Path | None, Path | None],
    dtype: str | None,
    device_map: str | None,
    as_json: bool,
) -> None:
    places = _free(*folders)
    changes = parse_settings(settings)
    _require_photos(images)
    with stdout_kept():
        import neuronwise.edit as editing
        from neuronwise.edit.settings import checked

        kinds = {"swap": editing.SwapSettings, "suppress": editing.SuppressSettings}
        changes = checked(kinds[verb], changes)
        loaded = load_model(model or "builtin", dtype, device_map)
        with status("looking at the photos"):
            runs = [loaded.run(image=image, max_new_tokens=max_new_tokens) for image in images]
        started = time.perf_counter()
        with status("editing"):
            edit = getattr(editing, verb)(loaded, runs, *words, **changes)
        seconds = time.perf_counter() - started
        asked: list[tuple[str | None, Path | None]] = [(None, image) for image in images]
        content = _finish(loaded, edit, asked, [run.text for run in runs], max_new_tokens, places, seconds)
    _print(content, as_json)


def _finish(
    model: Model,
    edit: Edit,
    asked: Sequence[tuple[str | None, Path | None]],
    before: list[str],
    length: int,
    places: dict[str, Path],
    seconds: float | None,
) -> dict[str, Any]:
    """Ask again with the edit in, write what is to be written: the object that is printed."""
    from neuronwise.edit.delta import neurons_of

    with edit.applied(model):
        after = _texts(model, asked, length)
    _write(edit, model, places)
    if edit.record.get("note"):
        print(f"neuronwise: {edit.record['note']}", file=sys.stderr)
    if edit.record.get("covariance") == "identity":
        print("neuronwise: there are no key statistics (--statistics); the identity stands for them", file=sys.stderr)
    neurons = [str(neuron) for delta in edit.deltas for neuron in neurons_of(model, delta)]
    texts = [
        {"prompt": text, "image": None if image is None else str(image), "before": said, "after": now}
        for (text, image), said, now in zip(asked, before, after, strict=True)
    ]
    return {
        "schema": SCHEMA,
        **dict(edit.record),
        "texts": texts,
        "neurons": neurons,
        "parameters_changed": edit.parameters_changed,
        "seconds": seconds,
        "written": {name: {"folder": str(path), "bytes": _size(path)} for name, path in places.items()},
    }


def _print(content: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(content)
    else:
        _show(content)


def _show(content: dict[str, Any]) -> None:
    rows = [[row["prompt"] or Path(row["image"]).name, row["before"], row["after"]] for row in content["texts"]]
    if rows:
        print_table("", ["asked", "before", "after"], rows)
    names, left = content["neurons"][:SHOWN], len(content["neurons"]) - SHOWN
    more = f" and {left} more" if left > 0 else ""
    print(f"neurons changed: {' '.join(names)}{more} ({content['parameters_changed']} numbers)")
    for name, written in content["written"].items():
        print(f"{name}: {written['folder']} ({written['bytes'] / 1000:.1f} kB)")


def _texts(model: Model, asked: Sequence[tuple[str | None, Path | None]], length: int) -> list[str]:
    with status("asking"):
        return [
            model.run(image, text, max_new_tokens=length, chat=None if image is not None else False).text
            for text, image in asked
        ]


def _write(edit: Edit, model: Model, places: dict[str, Path]) -> None:
    """All folders or none."""
    writers = {
        "edit": edit.save,
        "adapter": lambda path: edit.to_peft(model, path),
        "merged": lambda path: edit.merge(model, path),
    }
    done: list[Path] = []
    try:
        for name, path in places.items():
            writers[name](path)
            done.append(path)
    except BaseException:
        for path in done:
            shutil.rmtree(path, ignore_errors=True)
        raise


def _free(out: Path | None, adapter: Path | None, merge: Path | None) -> dict[str, Path]:
    """The folders to write, each free and writable: said before a model is loaded."""
    named = {"edit": out, "adapter": adapter, "merged": merge}
    places = {name: path for name, path in named.items() if path is not None}
    if len({path.absolute() for path in places.values()}) < len(places):
        raise NeuronwiseError("The edit, the adapter and the merged model need a folder each.")
    for path in places.values():
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise NeuronwiseError(f"'{path}' is there already; name a new folder.")
        parent = next(one for one in (path, *path.absolute().parents) if one.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise NeuronwiseError(f"The folder '{parent}' cannot be written to.")
    return places


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _require_photos(images: Sequence[Path]) -> None:
    from neuronwise.images import open_image

    for image in images:
        open_image(image)


def _statistics(folder: Path) -> Any:
    from neuronwise.edit.memory.statistics import Statistics

    return Statistics(folder)
