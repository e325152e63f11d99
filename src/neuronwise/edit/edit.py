"""Edits as objects: apply, revert to the bit, compose, save, load, merge, export, push."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuronwise.edit.delta import Delta, require_fit
from neuronwise.edit.ledger import Ledger, column_norms
from neuronwise.edit.presets import require_model
from neuronwise.errors import EditError, NeuronwiseError
from neuronwise.files import write_folder
from neuronwise.model.model import Model

__all__ = ["Edit", "column_norms", "load_edit", "write_folder"]

SCHEMA = "neuronwise.edit/1"
LIKE = 0.03  # relative difference of column norms up to which two models count as the same (half precision allowed for)


@dataclass(frozen=True, eq=False)
class Edit:
    """A set of weight deltas with the record of how it was made.

    ``record`` holds plain JSON values: method, hyper-parameters, request, model, versions, seed. ``norms`` are those
    of some value vectors before the edit: they tell the model that the edit was made for from another.

    On weights that hold numbers (in any memory, also offloaded by accelerate) an edit changes the weights; on
    quantized ones it is an adapter beside them, left · right · input in float32. Either way reverting is exact.
    """

    deltas: tuple[Delta, ...]
    record: Mapping[str, Any] = field(default_factory=dict)
    norms: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        layers = sorted({delta.layer for delta in self.deltas})
        return f"Edit({self.record.get('method', '?')}, layers {layers}, {self.parameters_changed} numbers)"

    @property
    def parameters_changed(self) -> int:
        """How many numbers of the weights it changes."""
        return sum(delta.numbers for delta in self.deltas)

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same edit, however often it was loaded."""
        asked = json.dumps(dict(self.record), sort_keys=True, default=str).encode()
        whole = hashlib.sha256(asked)
        for delta in self.deltas:
            whole.update(repr((delta.key, tuple(delta.left.shape))).encode())
            for factor in (delta.left, delta.units, delta.right):
                if factor is not None:
                    whole.update(factor.detach().cpu().contiguous().numpy().tobytes())
        return whole.hexdigest()

    def applied_to(self, model: Model) -> bool:
        """Whether the model carries this edit (or the same one, loaded from its folder)."""
        return any(edit is self or edit.fingerprint == self.fingerprint for edit in Ledger.of(model).edits)

    def apply(self, model: Model) -> None:
        """Change the model's weights.

        Raises ``EditError``, the weights untouched, when the edit does not fit the model, is another model's, or is
        applied already (as it is or as part of a sum), and ``NonFiniteError`` when the sum leaves the weights' dtype.
        """
        require_model(model)
        ledger = Ledger.of(model)
        present = {id(delta) for edit in ledger.edits for delta in edit.deltas}
        if self.applied_to(model) or any(id(delta) in present for delta in self.deltas):
            raise EditError("This edit is applied already; revert it before applying it again.")
        for delta in self.deltas:
            require_fit(model, delta)
        self._require_same_model(model)
        ledger.change(model, [*ledger.edits, self])

    def revert(self, model: Model) -> None:
        """Take this edit out, whatever was applied before or after it; without edits the weights are as they were."""
        require_model(model)
        ledger = Ledger.of(model)
        if not self.applied_to(model):
            raise EditError("This edit is not applied to this model, so there is nothing to revert.")
        ledger.change(model, [edit for edit in ledger.edits if edit.fingerprint != self.fingerprint])

    @contextlib.contextmanager
    def applied(self, model: Model) -> Iterator[Model]:
        """The edit for the duration of the body, also when it raises."""
        self.apply(model)
        try:
            yield model
        finally:
            if self.applied_to(model):  # unless the body took it out
                self.revert(model)

    def __add__(self, other: Edit) -> Edit:
        """Both edits as one; where both change a neuron, the changes add up."""
        if not isinstance(other, Edit):
            raise EditError(f"Only edits add up; this is {other!r:.80}.")
        record = {"method": "composed", "parts": [dict(self.record), dict(other.record)]}
        return Edit(self.deltas + other.deltas, record, {**other.norms, **self.norms})

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write ``deltas.safetensors`` and ``edit.json`` into a new or empty folder, whole or not at all."""
        write_folder(directory, self.write_into, EditError)

    def write_into(self, folder: Path) -> None:
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        rows = []
        for number, delta in enumerate(self.deltas):
            rows.append({"layer": delta.layer, "path": delta.path, "expert": delta.expert})
            for name in ("left", "units", "right"):
                value = getattr(delta, name)
                if value is not None:
                    tensors[f"{number}.{name}"] = value.detach().cpu().contiguous()
        tensors |= {f"norms.{name}": value.contiguous() for name, value in self.norms.items()}
        save_file(tensors, folder / "deltas.safetensors")
        content = {"schema": SCHEMA, "sha256": _digest(rows, folder), "record": dict(self.record), "deltas": rows}
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "edit.json").write_text(text, encoding="utf-8")

    def merge(self, model: Model, directory: str | os.PathLike[str]) -> None:
        """Write the edited model as an ordinary full checkpoint; the model itself is left as it was.

        Other edits that the model carries are in it too. Raises ``EditError`` for quantized weights.
        """
        from neuronwise.edit.storage import stored

        for delta in self.deltas:
            require_fit(model, delta)
            found = stored(model, delta.key)
            if found is None:
                raise EditError(
                    f"The weights of {model.name} are quantized, so an edit cannot be written into them; merge it into "
                    "the model as it was before quantization, or share it with to_peft."
                )
            if not self.applied_to(model):
                found.release()

        def write(folder: Path) -> None:
            model.module.save_pretrained(folder)
            if model.processor is not None:
                model.processor.save_pretrained(folder)

        with contextlib.nullcontext() if self.applied_to(model) else self.applied(model):
            write_folder(directory, write, EditError)

    def to_peft(self, model: Model, directory: str | os.PathLike[str]) -> None:
        """Write the edit as a PEFT LoRA adapter that adds exactly the same; see ``edit/peft.py``."""
        from neuronwise.edit.peft import write_adapter

        for delta in self.deltas:
            require_fit(model, delta)
        self._require_same_model(model)
        write_folder(directory, lambda folder: write_adapter(self, model, folder), EditError)

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
        from neuronwise.edit.share import push

        return push(self, repo_id, adapter_for, private, token, message)

    def _require_same_model(self, model: Model) -> None:
        for name, now in column_norms(model, self.deltas).items():
            before = self.norms.get(name)
            if before is None or (now.shape == before.shape and torch.allclose(now, before, rtol=LIKE, atol=1e-6)):
                continue
            made_for = self.record.get("model", "another model")
            raise EditError(f"The weights of {model.name} are not those that this edit was made for ({made_for}).")


def load_edit(directory: str | os.PathLike[str]) -> Edit:
    """Read what ``Edit.save`` wrote; raises ``EditError`` for a missing, damaged, truncated or newer folder."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not isinstance(directory, (str, os.PathLike)):
        raise EditError(f"An edit is loaded from the folder that it was saved in, not from {directory!r:.80}.")
    folder = Path(directory)
    try:
        content = json.loads((folder / "edit.json").read_text(encoding="utf-8"))
        _require_readable(content["schema"], folder)
        rows = content["deltas"]
        tensors = load_file(folder / "deltas.safetensors")
        if content.get("sha256") not in (None, _digest(rows, folder)):
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
        record = dict(content["record"])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise EditError(f"'{folder}' is no edit's folder: edit.json or deltas.safetensors is missing.") from error
    except NeuronwiseError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError, SafetensorError) as error:
        raise EditError(f"The edit in '{folder}' is damaged or truncated.") from error
    norms = {name.removeprefix("norms."): value for name, value in tensors.items() if name.startswith("norms.")}
    return Edit(deltas, record, norms)


def _require_readable(schema: Any, folder: Path) -> None:
    if schema == SCHEMA:
        return
    name, _, number = SCHEMA.rpartition("/")
    newer = re.fullmatch(rf"{re.escape(name)}/(\d+)", str(schema))
    if newer and int(newer[1]) > int(number):
        raise EditError(
            f"The edit in '{folder}' is of a newer form ({schema}); this version reads {SCHEMA}: update it."
        )
    raise EditError(f"The edit in '{folder}' has the form {schema!r}; this version reads {SCHEMA!r}.")


def _digest(rows: Any, folder: Path) -> str:
    """Of the tensors' file and of where each delta belongs; the record is free to be annotated."""
    places = json.dumps(rows, sort_keys=True).encode()
    return hashlib.sha256((folder / "deltas.safetensors").read_bytes() + places).hexdigest()
