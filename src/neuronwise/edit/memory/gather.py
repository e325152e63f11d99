"""Gathering key statistics: one pass over a text, killed and resumed at will."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuronwise.data.texts import read_texts
from neuronwise.edit.memory.keys import critical_layers, writer_in
from neuronwise.edit.memory.passages import Batch, Passage, batched, require_text
from neuronwise.edit.memory.statistics import ABOUT, SCHEMA, SUMS, Statistics, fingerprint
from neuronwise.errors import EditError, NeuronwiseError, NonFiniteError
from neuronwise.files import make_folder, versions, whole_file, write_json
from neuronwise.model.hooks import Hooks, first_tensor
from neuronwise.model.model import Model

Progress = Callable[[int, int], None]  # tokens so far, tokens wanted


def statistics_size(model: Model, layers: Sequence[int]) -> int:
    """Bytes that the second moments of these layers take: f · f · 4 for each."""
    return sum(writer_in(model, layer).width ** 2 * 4 for layer in layers)


def gather_statistics(
    model: Model,
    texts: str | os.PathLike[str] | Iterable[Any],
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
    time. Sums are float32. Every ``save_every`` batches they are saved; called again after a kill it goes on from
    there, with the same result as if nothing had happened. A text with fewer tokens is used whole. Raises
    ``EditError`` when the disk lacks the room (twice ``statistics_size``, since the old state stays until the new one
    is whole), when the folder holds finished statistics or those of another text, model or setting, and
    ``NonFiniteError``.
    """
    require_text(model, (), "gathering key statistics")
    chosen = critical_layers(model, layers, (0, 0))
    if tokens < 1 or length < 1 or batch < 1 or save_every < 1:
        raise NeuronwiseError("tokens, length, batch and save_every are 1 or more.")
    folder = Path(path)
    settings = {"layers": chosen, "length": length, "batch": batch, "field": field}
    _require_room(model, chosen, folder)
    state = _State.resumed(model, folder, settings)
    source = name or (str(texts) if isinstance(texts, (str, os.PathLike)) else type(texts).__name__)
    skip, digest = state.batches, hashlib.sha256()
    since, read = 0, 0
    for number, windows in enumerate(_batches(model, read_texts(texts, field), length, batch, digest)):
        read = number + 1
        if number < skip:
            if number == skip - 1 and digest.hexdigest() != state.digest:
                raise EditError(f"'{folder}' was begun with another text; name a new folder or that text.")
            continue
        if state.tokens >= tokens:
            break
        windows = _at_most(windows, tokens - state.tokens)
        _add(model, batched(model, [Passage(window, 0) for window in windows]), state.sums)
        state.tokens += sum(map(len, windows))
        state.batches, state.digest = number + 1, digest.hexdigest()
        since += 1
        if since == save_every:
            state.save(folder)
            since = 0
        if progress is not None:
            progress(state.tokens, tokens)
    if read < skip or not state.tokens:
        raise EditError(
            "There is no text to gather statistics from." if not state.tokens
            else f"'{folder}' was begun with another text; name a new folder or that text."
        )  # fmt: skip
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

    def __init__(self, sums: dict[int, Tensor], fingerprint: Tensor, settings: dict[str, Any]) -> None:
        self.sums, self.fingerprint, self.settings = sums, fingerprint, settings
        self.tokens, self.batches, self.digest = 0, 0, ""

    @classmethod
    def resumed(cls, model: Model, folder: Path, settings: dict[str, Any]) -> _State:
        from safetensors import SafetensorError, safe_open

        now = fingerprint(model)
        if (folder / ABOUT).exists():
            raise EditError(f"'{folder}' holds finished key statistics already; name a new folder.")
        if folder.is_dir() and not (folder / SUMS).exists() and any(_strange(folder)):
            raise EditError(f"'{folder}' holds other files and no key statistics; name a new folder.")
        if not (folder / SUMS).exists():
            widths = {layer: writer_in(model, layer).width for layer in settings["layers"]}
            return cls({layer: torch.zeros(f, f) for layer, f in widths.items()}, now, settings)
        try:
            with safe_open(folder / SUMS, framework="pt") as file:
                kept = json.loads(file.metadata()["state"])
                before = file.get_tensor("fingerprint")
                if kept["settings"] != settings or not torch.equal(before, now):
                    raise EditError(
                        f"'{folder}' was begun with another model or other settings ({kept['settings']}); name a new "
                        "folder or those."
                    )
                state = cls({layer: file.get_tensor(f"layer.{layer}") for layer in settings["layers"]}, now, settings)
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise EditError(f"The statistics begun in '{folder}' are damaged; remove that folder.") from error
        state.tokens, state.batches, state.digest = kept["tokens"], kept["batches"], kept["digest"]
        return state

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        kept = {"settings": self.settings, "tokens": self.tokens, "batches": self.batches, "digest": self.digest}
        tensors = {f"layer.{layer}": total.cpu() for layer, total in self.sums.items()}
        with whole_file(make_folder(folder, EditError) / SUMS, EditError) as new:
            save_file({**tensors, "fingerprint": self.fingerprint}, new, {"format": "pt", "state": json.dumps(kept)})


def _strange(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith("."))


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


def _batches(
    model: Model, texts: Iterator[str], length: int, count: int, digest: Any
) -> Iterator[list[tuple[int, ...]]]:
    """Windows of tokens, ``count`` at a time; ``digest`` holds the texts up to those windows."""
    most = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    length = min(length, most) if isinstance(most, int) and most > 0 else length
    held: list[tuple[int, ...]] = []
    for text in texts:
        digest.update(text.encode() + b"\0")
        ids = model.prepare(prompt=text, chat=False)[0].input_ids
        held += [tuple(ids[start : start + length]) for start in range(0, len(ids), length)]
        while len(held) >= count:
            yield held[:count]
            held = held[count:]
    if held:
        yield held


def _at_most(windows: list[tuple[int, ...]], tokens: int) -> list[tuple[int, ...]]:
    kept = []
    for window in windows:
        kept.append(window[:tokens])
        tokens -= len(kept[-1])
    return [window for window in kept if window]


class _Enough(Exception):
    """Ends a pass after the last layer that is asked for."""


def _add(model: Model, batch: Batch, sums: dict[int, Tensor]) -> None:
    mask = batch.inputs["attention_mask"].bool().flatten()
    with Hooks() as hooks, torch.no_grad(), contextlib.suppress(_Enough):
        for layer in sums:
            block, writer = model.blocks[layer], writer_in(model, layer).module
            active = hooks.inside(block.module)

            def before(module: nn.Module, args: Any, kwargs: Any, layer: int = layer, active: Any = active) -> None:
                if active():
                    keys = first_tensor(args, kwargs)
                    rows = keys.reshape(-1, keys.shape[-1])[mask.to(keys.device)].float()
                    sums[layer] = sums[layer].to(rows.device).addmm_(rows.T, rows)

            def after(module: nn.Module, args: Any, kwargs: Any, output: Any, layer: int = layer) -> None:
                if layer == max(sums):
                    raise _Enough

            hooks.before(writer, before)
            hooks.after(block.module, after)
        model.forward(batch.inputs, rows=[-1])
