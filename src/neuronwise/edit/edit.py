"""Edits as values: they add up, are saved and loaded, and go into a model and out of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from safetensors.torch import load_file, save_file
from torch import Tensor

from neuronwise.edit.delta import Delta, Recorded
from neuronwise.edit.export import hub, merge, peft
from neuronwise.edit.ledger import Ledger
from neuronwise.edit.presets import require_model
from neuronwise.edit.side_memory import SideMemory
from neuronwise.errors import EditError, told
from neuronwise.files import ordinary, read_form, write_folder, write_json
from neuronwise.model.model import Model
from neuronwise.model.prompt import Preface
from neuronwise.neurons import snippet
from neuronwise.registry.arguments import checked

SCHEMA = "neuronwise.edit/1"
TENSORS, ABOUT = "deltas.safetensors", "edit.json"


@dataclass(frozen=True, eq=False, repr=False)
class Edit(Recorded):
    """A set of weight deltas with the record of how it was made.

    Of some editors it is a text before every prompt instead, or a memory beside weights.

    ``record`` holds plain JSON values: method, hyper-parameters, request, model, versions, seed. ``norms`` are those
    of some value vectors before the edit: they tell the model that the edit was made for from another.

    On weights that hold numbers (in any memory, also offloaded by accelerate) an edit changes the weights; on
    quantized ones it is an adapter beside them, left · right · input in float32. Either way reverting is exact.
    """

    def _repr_html_(self) -> str:
        """For notebooks: what was asked, and the verdict."""
        request, verdict = self.record.get("request"), self.record.get("verdict")
        rows = [["asked", snippet.text(request)]] if request is not None else []
        if isinstance(verdict, Mapping) and "holds" in verdict:
            said = "holds" if verdict["holds"] else "does not hold"
            rows.append(["verdict", snippet.text(said + (", hurts the model" if verdict.get("hurts") else ""))])
        return snippet.table(repr(self), ("", ""), rows, len(rows))

    def __add__(self, other: object) -> Edit:
        """Both edits as one; where both change a neuron, the changes add up."""
        if not isinstance(other, Edit):
            raise EditError(f"Only edits add up; this is {other!r:.80}.")
        record = {
            "method": "composed",
            "parts": [dict(self.record), dict(other.record)],
            "deltas_of": [len(self.deltas), len(other.deltas)],
        }
        norms = {**other.norms, **self.norms}
        prefaces, memories = self.prefaces + other.prefaces, self.memories + other.memories
        return Edit(self.deltas + other.deltas, record, norms, prefaces, memories)

    def applied_to(self, model: Model) -> bool:
        """Whether the model carries this edit (or the same one, loaded from its folder)."""
        require_model(model)
        return Ledger.of(model).holds(self)

    def apply(self, model: Model) -> None:
        """Change the model's weights.

        Raises ``EditError``, the weights untouched, when the edit does not fit the model, is another model's, or is
        applied already (as it is, as part of a sum, or merged into the weights), and ``NonFiniteError`` when the sum
        leaves the weights' dtype.
        """
        require_model(model)
        with model.lock:
            Ledger.of(model).apply(model, self)

    def revert(self, model: Model, *, force: bool = False) -> None:
        """Take this edit out, whatever was applied before or after it; without edits the weights are as they were.

        Raises ``EditError`` where weights that it changed were changed again by something else, such as training;
        ``force`` gives that up.
        """
        require_model(model)
        with model.lock:
            Ledger.of(model).revert(model, self, force=force)

    @contextlib.contextmanager
    def applied(self, model: Model) -> Iterator[Model]:
        """The edit for the duration of the body, also when it raises; other threads that use the model wait."""
        require_model(model)
        with model.lock, Ledger.of(model).applied(model, self):
            yield model

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write ``deltas.safetensors`` and ``edit.json`` into a new or empty folder, whole or not at all."""
        write_folder(directory, self._write, EditError)

    def _write(self, folder: Path) -> None:
        tensors: dict[str, Tensor] = {}
        rows: list[dict[str, object]] = []
        for number, delta in enumerate(self.deltas):
            rows.append({"layer": delta.layer, "path": delta.path, "expert": delta.expert})
            factors = {"left": delta.left, "units": delta.units, "right": delta.right}
            for name, value in factors.items():
                if value is not None:
                    tensors[f"{number}.{name}"] = value.detach().cpu().contiguous()
        tensors |= {f"norms.{name}": value.contiguous() for name, value in self.norms.items()}
        for number, memory in enumerate(self.memories):
            tensors |= {f"memories.{number}.{name}": t.contiguous() for name, t in memory.tensors.items()}
        save_file(_unshared(tensors), folder / TENSORS)
        parts: dict[str, Any] = {"deltas": rows}
        if self.prefaces:
            parts["prefaces"] = [asdict(preface) for preface in self.prefaces]
        if self.memories:
            parts["memories"] = [{"layer": m.layer, "path": m.path, "kind": m.kind} for m in self.memories]
        content = {
            "schema": SCHEMA,
            "sha256": _digest(parts, folder),
            "record": dict(self.record),
            **parts,
        }
        write_json(folder / ABOUT, content, EditError)

    def merge(self, model: Model, directory: str | os.PathLike[str]) -> None:
        """Write the edited model as an ordinary full checkpoint; the model itself is left as it was.

        Other edits that the model carries are in it too. Raises ``EditError`` for quantized weights.
        """
        require_model(model)
        with model.lock:
            merge.merge(self, model, directory)

    def to_peft(self, model: Model, directory: str | os.PathLike[str]) -> None:
        """Write the edit as a PEFT LoRA adapter that adds exactly the same; see ``edit/export/peft.py``."""
        require_model(model)
        with model.lock:
            peft.write_adapter(self, model, directory)

    @checked
    def push(
        self,
        repo_id: str,
        *,
        adapter_for: Model | None = None,
        private: bool = False,
        token: str | bool | None = None,
        message: str | None = None,
    ) -> str:
        """Upload the edit to the hub as ``repo_id`` ("owner/name") with a model card; returns its address.

        With ``adapter_for`` (the model) the PEFT adapter is uploaded instead of the edit's own folder. Raises
        ``EditError`` when the hub cannot be reached or refuses.
        """
        write = self.save if adapter_for is None else lambda folder: self.to_peft(adapter_for, folder)
        return hub.push(self, repo_id, write, adapter_for=adapter_for, private=private, token=token, message=message)


def revert_all(model: Model, *, force: bool = False) -> None:
    """Take all edits out of a model; see ``Edit.revert``. ``model.edits`` lists them."""
    require_model(model)
    with model.lock:
        Ledger.of(model).change(model, (), force=force)


def load_edit(directory: str | os.PathLike[str]) -> Edit:
    """Read what ``Edit.save`` wrote; raises ``EditError`` for a missing, damaged, truncated or newer folder."""
    try:
        folder = Path(directory)
    except TypeError as error:
        raise EditError(f"An edit is loaded from the folder it was saved in, not from {directory!r:.80}.") from error
    with told(EditError, f"The edit in '{folder}' is damaged or truncated"):
        if not ((folder / ABOUT).is_file() and (folder / TENSORS).is_file()):
            raise EditError(f"'{folder}' holds no edit: {ABOUT} or {TENSORS} is missing.")
        content = read_form(folder / ABOUT, _About, "saved edit", EditError)
        _require_readable(content["schema"], folder)
        rows = content["deltas"]
        tensors = load_file(ordinary(folder / TENSORS))
        parts = {name: part for name, part in content.items() if name in PARTS}
        if content.get("sha256") not in (None, _digest(parts, folder)):
            raise EditError(f"The edit in '{folder}' is damaged: its deltas are not those that were saved.")
        deltas = tuple(
            Delta(
                row["layer"],
                row["path"],
                tensors[f"{number}.left"],
                tensors.get(f"{number}.units"),
                tensors.get(f"{number}.right"),
                row["expert"],
            )
            for number, row in enumerate(rows)
        )
        norms = _within(tensors, "norms.")
        prefaces = tuple(Preface(**one) for one in content.get("prefaces", ()))
        memories = tuple(
            SideMemory(**row, tensors=_within(tensors, f"memories.{number}."))
            for number, row in enumerate(content.get("memories", ()))
        )
        return Edit(deltas, content["record"], norms, prefaces, memories)


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


class _Place(TypedDict):
    """Where a delta belongs."""

    layer: int
    path: str
    expert: int | None


class _Judged(TypedDict):
    """A target in a verdict."""

    prompt: str
    target: str
    p_before: float
    p: float
    rank_before: int
    rank: int
    says_before: str | None
    says: str | None
    holds: bool


class _Opening(TypedDict):
    """A neutral prompt in a verdict, continued without the edit and with it."""

    prompt: str
    before: str | None
    after: str | None


class _Verdict(TypedDict, total=False):
    """What ``verdict.judged`` found."""

    holds: bool
    hurts: bool
    error: str
    targets: list[_Judged]
    openings: list[_Opening]
    same: int | None
    perplexity_before: float
    perplexity: float


class _Made(TypedDict, total=False):
    """What is read of a record; it may hold more."""

    method: str
    model: str
    request: dict[str, Any] | list[dict[str, Any]]
    parts: list[_Made]
    note: str | None
    verdict: _Verdict | None


class _Preface(TypedDict):
    """What is put before every prompt."""

    text: str
    lead: str


class _Memory(TypedDict):
    """Where a memory belongs, and how it acts."""

    layer: int
    path: str
    kind: str


class _About(TypedDict):
    """``edit.json``."""

    schema: str
    sha256: NotRequired[str | None]
    record: _Made
    deltas: list[_Place]
    prefaces: NotRequired[list[_Preface]]
    memories: NotRequired[list[_Memory]]


PARTS = ("deltas", "prefaces", "memories")


def _require_readable(schema: object, folder: Path) -> None:
    if schema == SCHEMA:
        return
    name, _, number = SCHEMA.rpartition("/")
    newer = re.fullmatch(rf"{re.escape(name)}/(\d+)", str(schema))
    if newer and int(newer[1]) > int(number):
        raise EditError(
            f"The edit in '{folder}' has a newer form ({schema}); this version reads {SCHEMA}: update neuronwise."
        )
    raise EditError(f"The edit in '{folder}' has the form {schema!r}; this version reads {SCHEMA!r}.")


def _digest(parts: Mapping[str, Any], folder: Path) -> str:
    """Of the tensors' file, of where each delta belongs and of what is beside them; the record may be annotated."""
    told = parts["deltas"] if len(parts) == 1 else parts
    return hashlib.sha256((folder / TENSORS).read_bytes() + json.dumps(told, sort_keys=True).encode()).hexdigest()


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors none of which shares its memory with another, as safetensors wants them: of two, one is copied."""
    found: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if place in places else tensor
        places.add(place)
    return found
