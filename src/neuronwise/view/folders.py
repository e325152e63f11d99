"""What the opened folders hold: findings, circuits, studies, evaluations, edits and indexes, found by their files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from neuronwise.errors import NeuronwiseError
from neuronwise.files import below, expanded, read_object

DEPTH = 6  # folders below an opened one
FRESH = 3.0  # seconds that a list of what is there is used
MOST = 20_000  # folders that are looked into
KINDS = ("finding", "circuit", "study", "evaluation", "edit", "index")
LARGEST = 200_000_000  # bytes of a JSON file that is read for the list


@dataclass(frozen=True)
class Item:
    """One thing that a command wrote. ``id``: its address in the viewer, the number of the opened folder and the path
    below it; ``about``: a line for the list; ``broken``: why it cannot be read; ``photo``: its page has one;
    ``part_of``: the id of the finding over several photos or texts of which it is one."""

    id: str
    kind: str
    title: str
    path: Path
    about: str = ""
    broken: str | None = None
    model: str = ""
    photo: bool = False
    part_of: str = ""


class Folders:
    """The opened folders. Whatever is served belongs to an item, and items are found by looking, never by asking."""

    def __init__(self, roots: Sequence[Path]) -> None:
        for root in roots:
            if not expanded(root).is_dir():
                what = "is a file" if expanded(root).exists() else "is not there"
                raise NeuronwiseError(f"The folder '{root}' {what}; name a folder that a neuronwise command wrote.")
        self.roots = [expanded(root).resolve() for root in roots]
        self._listed: tuple[float, list[Item]] | None = None
        self._read: dict[Path, tuple[tuple[int, int], dict[str, Any]]] = {}

    def items(self, *, fresh: bool = False) -> list[Item]:
        """Everything in the opened folders, newest first within a kind, the parts of findings behind the others and as
        they were written; as it is now, or a few seconds ago."""
        now = time.monotonic()
        if fresh or self._listed is None or now - self._listed[0] > FRESH:
            self._listed = (now, self._look())
        return self._listed[1]

    def _look(self) -> list[Item]:
        found = [item for number, root in enumerate(self.roots) for item in self._below(number, root)]
        return sorted(found, key=_order)

    def item(self, identity: str) -> Item:
        """One of ``items`` by its id; raises ``NeuronwiseError`` for anything else."""
        number, _, inside = identity.partition("/")
        items = (self._named(at, root, inside) for at, root in enumerate(self.roots) if str(at) == number)
        item = next(items, None)
        if item is None or item.id != identity:
            raise NeuronwiseError(f"The opened folders hold no '{identity}'.")
        return item

    def _named(self, number: int, root: Path, inside: str) -> Item | None:
        folder = below(root, inside)
        return self._item(number, root, folder) if folder is not None and folder.is_dir() else None

    def content(self, path: Path, what: str) -> dict[str, Any]:
        """A JSON object of an item, read again only when the file has changed."""
        status = path.stat()
        state = (status.st_mtime_ns, status.st_size)
        if status.st_size > LARGEST:
            raise NeuronwiseError(f"'{path.name}' is larger than {LARGEST / 1e6:.0f} MB.")
        if path not in self._read or self._read[path][0] != state:
            self._read[path] = (state, read_object(path, what, finite=True))
        return self._read[path][1]

    def _below(self, number: int, root: Path) -> Iterator[Item]:
        several: dict[Path, str] = {}
        for looked, (here, folders, _) in enumerate(os.walk(root)):
            folder = Path(here)
            if len(folder.relative_to(root).parts) >= DEPTH or looked > MOST:
                folders.clear()
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            item = self._item(number, root, folder)
            if item is not None:
                if item.kind == "finding":
                    item = replace(item, part_of=several.get(folder.parent, ""))
                    if not item.broken and _several(self.content(folder / "finding.json", "finding")):
                        several[folder] = item.id
                yield item
                if item.kind not in ("finding", "circuit"):  # what is inside is its own
                    folders.clear()

    def _item(self, number: int, root: Path, folder: Path) -> Item | None:
        inside = folder.relative_to(root).as_posix()
        identity = f"{number}" if inside == "." else f"{number}/{inside}"
        for name, describe in _MARKS.items():
            path = folder / name
            if not path.is_file() or path.is_symlink():
                continue
            try:
                described = describe(self.content(path, "result of neuronwise"))
            except (NeuronwiseError, OSError) as error:
                return Item(identity, "finding", folder.name, folder, broken=str(error))
            except (KeyError, TypeError, ValueError, AttributeError, IndexError):
                return Item(identity, "finding", folder.name, folder, broken=f"'{name}' is damaged.")
            if described is not None:
                kind, title, about, model, photo = described
                title = " ".join(title.split()) or folder.name
                if kind not in ("finding", "circuit") and (link := _link_out(root, folder)):
                    return Item(
                        identity, kind, title, folder, broken=f"The link '{link}' leads out of the opened folder."
                    )
                return Item(identity, kind, title, folder, about, None, model, photo)
        return None


def _link_out(root: Path, folder: Path) -> str | None:
    """The first link in a folder that leads out of an opened one, so that no reader of its files follows it."""
    for here, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(here, name)
            if path.is_symlink() and below(root, str(path.relative_to(root))) is None:
                return name
    return None


class Described(NamedTuple):
    """What a file says of its folder."""

    kind: str
    title: str
    about: str
    model: str
    photo: bool = False


def _order(item: Item) -> tuple[int, bool, float, str]:
    changed = _changed(item.path)
    return KINDS.index(item.kind), bool(item.part_of), changed if item.part_of else -changed, item.id


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _finding(content: dict[str, Any]) -> Described | None:
    words = [str(concept["word"]).strip() for concept in content["concepts"]]
    text, prompt = str(content.get("text") or ""), str(content.get("prompt") or "")
    if not text or not (content.get("file") or content.get("chat")):  # a text is continued
        text = f"{prompt} {text}".strip()
    if several := _several(content):
        count = len(content[several])
        text = f"{count} {several if count > 1 else several[:-1]} together: {', '.join(words[:6])}"
    return Described("finding", text, ", ".join(words[:8]), str(content["model"]), bool(content.get("file")))


def _several(content: dict[str, Any]) -> str | None:
    """ "photos" or "texts" for a finding over several; None for one over one."""
    return next((name for name in ("photos", "texts") if content.get(name)), None)


def _circuit(content: dict[str, Any]) -> Described | None:
    about = f"{len(content['nodes'])} neurons, {len(content['edges'])} edges"
    title = f"{str(content['target']).strip()}: {content.get('text') or content['prompt']}"
    seen = any(leaf["kind"] == "image" for leaf in content["leaves"])
    return Described("circuit", title, about, str(content["model"]), seen)


def _study(content: dict[str, Any]) -> Described | None:
    schema, recipe = str(content["schema"]), content.get("recipe")
    if not schema.startswith(("neuronwise.study/", "neuronwise.evaluation/")) or not isinstance(recipe, dict):
        return None
    if schema.startswith("neuronwise.evaluation/"):
        editors = list(recipe.get("editors", [])) or [recipe.get("editor", "")]
        title = str(recipe.get("title") or ", ".join(map(str, editors)))
        return Described("evaluation", title, "editors of facts", str(recipe.get("model", "")))
    kind = str(recipe.get("kind", ""))
    return Described("study", str(recipe.get("title") or kind), kind, str(recipe.get("model", "")))


def _edit(content: dict[str, Any]) -> Described | None:
    record = content["record"]
    return Described("edit", wanted(record), str(record.get("method", "")), str(record.get("model", "")))


def wanted(record: dict[str, Any]) -> str:
    """What an edit was asked for, in a line."""
    request = record.get("request")
    if isinstance(request, list):
        return f"{len(request)} facts"
    if not isinstance(request, dict):
        return ", ".join(str(one) for one in record.get("neurons", [])[:4]) or str(record.get("method", "edit"))
    if "target_new" in request:
        prompt = str(request.get("prompt", "")).replace("{}", str(request.get("subject", "")))
        return f"{prompt} → {request['target_new']}"
    if "source" in request:
        return f"{request['source']} → {request.get('target', '')}"
    return str(request.get("word") or ", ".join(f"{name} {value}" for name, value in list(request.items())[:3]))


def _index(content: dict[str, Any]) -> Described | None:
    if content["schema"] != "neuronwise.index/1":
        return None
    model = str(content["recipe"]["model"]["name"])
    return Described("index", f"Neurons of {model}", f"{content['items']} photos and texts", model)


_MARKS: dict[str, Callable[[dict[str, Any]], Described | None]] = {
    "finding.json": _finding,
    "circuit.json": _circuit,
    "edit.json": _edit,
    "manifest.json": _study,
    "index.json": _index,
}
