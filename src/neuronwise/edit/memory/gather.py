"""Gathering key statistics: one pass over a text, which resumes after an interruption."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypedDict

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from neuronwise.data.texts import read_texts
from neuronwise.edit.memory.keys import critical_layers, writer_in
from neuronwise.edit.memory.passages import Passage, require_text, side_by_side
from neuronwise.edit.memory.statistics import ABOUT, SCHEMA, SUMS, Statistics
from neuronwise.errors import EditError, NeuronwiseError, NonFiniteError, told
from neuronwise.files import (
    from_json,
    held,
    make_folder,
    new_folders,
    ordinary,
    shareable,
    versions,
    whole_file,
    write_json,
)
from neuronwise.files.kinds import misfits
from neuronwise.model import passes
from neuronwise.model.model import Model
from neuronwise.model.state import likeness

Progress = Callable[[int, int], None]  # tokens so far, tokens wanted
Windows = list[tuple[int, ...]]  # token ids of the passages of one pass


class Settings(TypedDict):
    """What the sums depend on besides model and text."""

    layers: list[int]
    length: int
    batch: int
    field: str


class _Saved(TypedDict):
    """How far the sums reach in the text."""

    settings: Settings
    tokens: int
    batches: int
    digest: str


def statistics_size(model: Model, layers: Sequence[int]) -> int:
    """Bytes that the second moments of these layers take: f · f · 4 for each."""
    return sum(writer_in(model, layer).width ** 2 * 4 for layer in layers)


def gather_statistics(
    model: Model,
    texts: str | os.PathLike[str] | Iterable[object],
    layers: Sequence[int],
    path: str | os.PathLike[str],
    *,
    tokens: int = 100_000,
    field: str = "text",
    length: int = 512,
    batch: int = 8,
    save_every: int = 20,
    name: str | None = None,
    progress: Progress | None = None,
) -> Statistics:
    """Σ k kᵀ of W_down's inputs over the first ``tokens`` positions of ``texts`` into the folder ``path``.

    ``texts`` as ``data.texts.read_texts`` takes them; each is read in windows of ``length`` tokens, ``batch`` at a
    time. Sums are float32. Every ``save_every`` batches they are saved; called again after an interruption it resumes
    from there, with the same result. A text with fewer tokens is used whole. Raises ``EditError`` when the disk lacks
    the room (twice ``statistics_size``, since the old state stays until the new one is whole), when the folder holds
    finished statistics or those of another text, model or setting, and ``NonFiniteError``.
    """
    require_text(model, (), "gathering key statistics")
    settings = Settings(layers=critical_layers(model, layers, (0, 0)), length=length, batch=batch, field=field)
    if tokens < 1 or length < 1 or batch < 1 or save_every < 1:
        raise NeuronwiseError("tokens, length, batch and save_every must be 1 or more.")
    folder = Path(path)
    _require_room(model, settings["layers"], folder)
    source = name or (shareable(os.fspath(texts)) if isinstance(texts, (str, os.PathLike)) else type(texts).__name__)
    with new_folders(folder), held(make_folder(folder, EditError), EditError):
        return _gathered(model, read_texts(texts, field), folder, settings, tokens, save_every, source, progress)


def _gathered(
    model: Model,
    texts: Iterator[str],
    folder: Path,
    settings: Settings,
    tokens: int,
    save_every: int,
    source: str,
    progress: Progress | None,
) -> Statistics:
    """The sums of a folder that no other process writes into."""
    state = _State.resumed(model, folder, settings)
    batches = _batches(model, texts, settings["length"], settings["batch"])
    if not state.read_before(batches):
        raise EditError(f"'{folder}' was begun with another text; name a new folder or that text.")
    for number, (windows, digest) in enumerate(batches, 1):
        if state.tokens >= tokens:
            break
        state.add(model, _at_most(windows, tokens - state.tokens), digest)
        if number % save_every == 0:
            state.save(folder)
        if progress is not None:
            progress(state.tokens, tokens)
    if not state.tokens:
        raise EditError("There is no text to gather statistics from.")
    if not all(bool(torch.isfinite(total).all()) for total in state.sums.values()):
        raise NonFiniteError("The activations are not finite; load the model with dtype=torch.float32.")
    state.save(folder)
    about = {
        "schema": SCHEMA, "model": model.name, "text": source, "digest": state.digest, "tokens": state.tokens,
        **settings, "versions": versions(),
    }  # fmt: skip
    write_json(folder / ABOUT, about, EditError)
    return Statistics(folder)


class _State:
    """Sums so far and how far in the text they reach, in one file that is replaced whole."""

    def __init__(self, sums: dict[int, Tensor], fingerprint: Tensor, settings: Settings) -> None:
        self.sums, self.fingerprint, self.settings = sums, fingerprint, settings
        self.tokens, self.batches, self.digest = 0, 0, ""

    @classmethod
    def resumed(cls, model: Model, folder: Path, settings: Settings) -> _State:
        now = likeness(model)
        if (folder / ABOUT).exists():
            raise EditError(f"'{folder}' holds finished key statistics already; name a new folder.")
        if not (folder / SUMS).exists():
            if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
                raise EditError(f"'{folder}' holds other files and no key statistics; name a new folder.")
            widths = {layer: writer_in(model, layer).width for layer in settings["layers"]}
            return cls({layer: torch.zeros(f, f) for layer, f in widths.items()}, now, settings)
        with told(EditError, f"The statistics begun in '{folder}' are damaged; remove that folder"):
            with safe_open(ordinary(folder / SUMS), framework="pt") as file:
                saved = from_json(file.metadata()["state"])
                wrong = misfits(saved, _Saved)
                if wrong:
                    raise ValueError(wrong)
                before = file.get_tensor("fingerprint")
                if saved["settings"] != settings or not torch.equal(before, now):
                    raise EditError(
                        f"'{folder}' was begun with another model or other settings ({saved['settings']}); name a new "
                        "folder or those."
                    )
                state = cls({layer: file.get_tensor(f"layer.{layer}") for layer in settings["layers"]}, now, settings)
        state.tokens, state.batches, state.digest = saved["tokens"], saved["batches"], saved["digest"]
        return state

    def save(self, folder: Path) -> None:
        state = {"settings": self.settings, "tokens": self.tokens, "batches": self.batches, "digest": self.digest}
        tensors = {f"layer.{layer}": total.cpu() for layer, total in self.sums.items()}
        with whole_file(make_folder(folder, EditError) / SUMS, EditError) as new:
            save_file({**tensors, "fingerprint": self.fingerprint}, new, {"format": "pt", "state": json.dumps(state)})

    def read_before(self, batches: Iterator[tuple[Windows, str]]) -> bool:
        """Pass over the batches whose sums are there; whether they are of the same text."""
        digests = [digest for _, digest in islice(batches, self.batches)]
        return len(digests) == self.batches and (not digests or digests[-1] == self.digest)

    def add(self, model: Model, windows: Windows, digest: str) -> None:
        """Add one batch, read in one pass that ends after the last of the layers."""
        passages = side_by_side(model, [Passage(window, 0) for window in windows])
        mask = passages.inputs["attention_mask"].bool().flatten()

        def adds(layer: int) -> passes.Change:
            def added(keys: Tensor) -> Tensor:
                rows = keys.reshape(-1, keys.shape[-1])[mask.to(keys.device)].float()
                self.sums[layer] = self.sums[layer].to(rows.device).addmm_(rows.T, rows)
                return keys

            return added

        with torch.no_grad(), contextlib.ExitStack() as within:
            for layer in self.sums:
                block = model.blocks[layer].module
                within.enter_context(passes.edit_input(writer_in(model, layer).module, adds(layer), block))
            within.enter_context(passes.stop_after(model.blocks[max(self.sums)].module))
            model.forward(passages.inputs, rows=[-1])
        self.tokens += sum(passages.lengths)
        self.batches += 1
        self.digest = digest


def _require_room(model: Model, layers: Sequence[int], folder: Path) -> None:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise EditError(f"'{there}' is a file; statistics are written into a folder.")
    needed, free = 2 * statistics_size(model, layers), shutil.disk_usage(there).free
    if needed > free:
        raise EditError(
            f"The statistics of {len(layers)} layers need {needed / 1e9:.2f} GB of disk while they are written; "
            f"'{there}' has {free / 1e9:.2f} GB. Name fewer layers or another disk."
        )


def _batches(model: Model, texts: Iterator[str], length: int, count: int) -> Iterator[tuple[Windows, str]]:
    """Windows of tokens, ``count`` at a time, each with the SHA-256 of the texts read so far."""
    length = min(length, model.longest or length)
    digest = hashlib.sha256()
    held: Windows = []
    for text in texts:
        digest.update(text.encode(errors="surrogatepass") + b"\0")
        ids = model.prepare(prompt=text, chat=False, whole=False, bare=True)[0].input_ids
        held += [tuple(ids[start : start + length]) for start in range(0, len(ids), length)]
        while len(held) >= count:
            yield held[:count], digest.hexdigest()
            held = held[count:]
    if held:
        yield held, digest.hexdigest()


def _at_most(windows: Windows, tokens: int) -> Windows:
    """The first ``tokens`` tokens of the windows."""
    found: Windows = []
    for window in windows:
        found.append(window[:tokens])
        tokens -= len(found[-1])
    return [window for window in found if window]
