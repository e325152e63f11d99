"""Edits as objects: apply, revert to the bit, compose, save, load, merge, export."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuronwise.edit.delta import Delta, columns, writer_view
from neuronwise.errors import EditError, NeuronwiseError
from neuronwise.model.model import Model

SCHEMA = "neuronwise.edit/1"
LIKE = 0.03  # relative difference of column norms up to which two models count as the same (half precision allowed for)


@dataclass(frozen=True, eq=False)
class Edit:
    """A set of weight deltas with the record of how it was made.

    ``record`` holds plain JSON values: method, hyper-parameters, request, model, versions, seed. ``norms`` are those
    of some value vectors before the edit: they tell the model that the edit was made for from another.
    """

    deltas: tuple[Delta, ...]
    record: Mapping[str, Any] = field(default_factory=dict)
    norms: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        layers = sorted({delta.layer for delta in self.deltas})
        return f"Edit({self.record.get('method', '?')}, layers {layers}, {self.parameters_changed} numbers)"

    @property
    def parameters_changed(self) -> int:
        return sum(d.left.shape[0] * (d.rank if d.right is None else d.right.shape[1]) for d in self.deltas)

    def apply(self, model: Model) -> None:
        """Change the model's weights; raises ``EditError``, weights untouched, when the edit does not fit or is in."""
        ledger = _Ledger.of(model)
        if self in ledger.edits:
            raise EditError("This edit is applied already; revert it before applying it again.")
        for delta in self.deltas:
            writer_view(model, delta)
        if not ledger.edits:
            self._require_same_model(model)
        ledger.change([*ledger.edits, self])

    def revert(self, model: Model) -> None:
        """Take this edit out, whatever was applied before or after it; without edits the weights are as they were."""
        ledger = _Ledger.of(model)
        if self not in ledger.edits:
            raise EditError("This edit is not applied to this model, so there is nothing to revert.")
        ledger.change([edit for edit in ledger.edits if edit is not self])

    @contextlib.contextmanager
    def applied(self, model: Model) -> Iterator[Model]:
        """The edit for the duration of the body, also when it raises."""
        self.apply(model)
        try:
            yield model
        finally:
            self.revert(model)

    def __add__(self, other: Edit) -> Edit:
        """Both edits as one."""
        record = {"method": "composed", "parts": [dict(self.record), dict(other.record)]}
        return Edit(self.deltas + other.deltas, record, {**other.norms, **self.norms})

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write ``deltas.safetensors`` and ``edit.json`` into a new folder, whole or not at all."""
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
        content = {"schema": SCHEMA, "record": dict(self.record), "deltas": rows}

        def write(folder: Path) -> None:
            save_file(tensors, folder / "deltas.safetensors")
            (folder / "edit.json").write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))

        write_folder(directory, write)

    def merge(self, model: Model, directory: str | os.PathLike[str]) -> None:
        """Write the edited model as an ordinary full checkpoint; the model itself is left as it was."""

        def write(folder: Path) -> None:
            model.module.save_pretrained(folder)
            if model.processor is not None:
                model.processor.save_pretrained(folder)

        within = contextlib.nullcontext() if self in _Ledger.of(model).edits else self.applied(model)
        with within:
            write_folder(directory, write)

    def to_peft(self, model: Model, directory: str | os.PathLike[str]) -> None:
        """Write the edit as a PEFT LoRA adapter that adds exactly the same; see ``edit/peft.py``."""
        from neuronwise.edit.peft import write_adapter

        write_folder(directory, lambda folder: write_adapter(self, model, folder))

    def _require_same_model(self, model: Model) -> None:
        for name, now in column_norms(model, self.deltas).items():
            before = self.norms.get(name)
            if before is not None and not torch.allclose(now, before, rtol=LIKE, atol=1e-6):
                made_for = self.record.get("model", "another model")
                raise EditError(f"The weights of {model.name} are not those that this edit was made for ({made_for}).")


def load_edit(directory: str | os.PathLike[str]) -> Edit:
    """Read what ``Edit.save`` wrote; raises ``EditError`` for a missing, damaged or newer folder."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(directory)
    try:
        content = json.loads((folder / "edit.json").read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise EditError(
                f"The edit in '{folder}' has the form {content['schema']!r}; this version reads {SCHEMA!r}."
            )
        tensors = load_file(folder / "deltas.safetensors")
        deltas = tuple(
            Delta(
                row["layer"],
                row["path"],
                tensors[f"{number}.left"],
                tensors.get(f"{number}.units"),
                tensors.get(f"{number}.right"),
                row["expert"],
            )
            for number, row in enumerate(content["deltas"])
        )
    except FileNotFoundError as error:
        raise EditError(f"'{folder}' is no edit's folder: edit.json or deltas.safetensors is missing.") from error
    except NeuronwiseError:
        raise
    except (ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
        raise EditError(f"The edit in '{folder}' is damaged or truncated.") from error
    norms = {name.removeprefix("norms."): value for name, value in tensors.items() if name.startswith("norms.")}
    return Edit(deltas, content["record"], norms)


def column_norms(model: Model, deltas: tuple[Delta, ...]) -> dict[str, Tensor]:
    """Norms of the first 64 value vectors of each writer that deltas change: enough to tell one model from another."""
    return {
        "|".join(map(str, delta.key)): writer_view(model, delta)[:, :64].float().norm(dim=0).cpu() for delta in deltas
    }


class _Ledger:
    """The edits that a model carries, and the columns they changed as they were before any of them."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.edits: list[Edit] = []
        self.originals: dict[tuple[int, str, int | None], Tensor] = {}
        self.changed: dict[tuple[int, str, int | None], Tensor] = {}

    @classmethod
    def of(cls, model: Model) -> _Ledger:
        # On the module, not on its wrapper: two wrappers of one module share its weights.
        ledger = model.module.__dict__.get("_neuronwise_edits")
        if ledger is None:
            ledger = model.module.__dict__["_neuronwise_edits"] = cls(model)
        return ledger

    @torch.no_grad()
    def change(self, edits: list[Edit]) -> None:
        """Bring the weights from the present edits to ``edits``: originals plus the sum of all deltas, in float32."""
        for key, original in self.originals.items():
            view = writer_view(self.model, self._delta(key))
            view[:, self.changed[key].to(view.device)] = original
        self.originals, self.changed = {}, {}
        by_writer: dict[tuple[int, str, int | None], list[Delta]] = {}
        for edit in edits:
            for delta in edit.deltas:
                by_writer.setdefault(delta.key, []).append(delta)
        self.edits = edits
        for key, deltas in by_writer.items():
            view = writer_view(self.model, deltas[0])
            touched = columns(tuple(deltas), view.shape[1])
            self.changed[key] = touched
            self.originals[key] = view[:, touched.to(view.device)].clone()
            whole = torch.zeros(view.shape, device=view.device)
            for delta in deltas:
                delta.add_to(whole)
            at = touched.to(view.device)
            view[:, at] = (self.originals[key].float() + whole[:, at]).to(view.dtype)

    def _delta(self, key: tuple[int, str, int | None]) -> Delta:
        return next(delta for edit in self.edits for delta in edit.deltas if delta.key == key)


def write_folder(directory: str | os.PathLike[str], write: Any) -> None:
    """Fill a folder through a neighboring temporary one, so that no half-written one is ever seen."""
    folder = Path(directory)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EditError(f"'{folder}' is there already; name a new folder.")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    except OSError as error:
        raise EditError(f"'{folder}' cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
