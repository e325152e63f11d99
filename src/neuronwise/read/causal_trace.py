"""Causal tracing: which hidden states carry what the model knows of a subject ([ROME] section 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from neuronwise.data.facts.fact import subject_place
from neuronwise.errors import MethodError, NonFiniteError, TargetError
from neuronwise.locate.method import require_own
from neuronwise.model import Model
from neuronwise.model.concepts import Concept, token_spans
from neuronwise.model.modes import computes
from neuronwise.model.run import Run, Target
from neuronwise.model.stream import written_gradients
from neuronwise.model.writers import Site
from neuronwise.read.corruption import STATE, Corruption, Restoring
from neuronwise.read.lens import record_of, shown_rows
from neuronwise.read.trace import Trace

RESTORE = ("states", "feed-forward", "attention")
Columns = str | int | Sequence[int | Sequence[int]]


@computes
def causal_trace(
    model: Model,
    run: Run,
    concept: str | Concept | None = None,
    *,
    target: str | int | None = None,
    position: int | None = None,
    occurrence: int = 0,
    subject: str | Sequence[int] | None = None,
    restore: str = "states",
    window: int = 10,
    layers: Sequence[int] | None = None,
    positions: Columns = "text",
    noise: float = 3.0,
    samples: int = 10,
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Trace:
    """How much of a token's probability comes back when one part of a corrupted pass is what it was ([ROME] §2).

    ``subject``: a part of the prompt's text, or rows of the sequence, whose embeddings get noise; None for the photo's
    tokens. The noise is ``noise`` times the standard deviation of embeddings (ours: of this prompt's tokens, or of its
    image's, as they enter the first layer), drawn ``samples`` times. ``restore``: "states", what one layer returns at
    one position; "feed-forward" or "attention", what ``window`` layers around it write there. ``layers``: all by
    default. ``positions``: "text" (each text token, and the photo's together), "image", "all", or a list of positions
    and of lists that are restored together. The word or token is named as for ``locate``. One pass for each layer,
    column and sample, many side by side; where the noise has changed nothing there is nothing to restore, and no pass.
    Raises ``MethodError``, ``TargetError`` for a subject that is not in the prompt.
    """
    require_own(model, [run])
    wanted = run.target(concept, target, position, occurrence)
    chosen = _layers(model, layers)
    _require(model, run, subject, restore, window, noise, samples)
    columns = _columns(run, wanted, positions)
    rows = None if subject is None else _subject_rows(run, subject)
    corruption = Corruption(run, wanted, rows, noise, samples, seed)
    by_layer = _sites(model, corruption, restore)
    parts = [
        _part(by_layer, layer, column, 0 if restore == "states" else window) for layer in chosen for column in columns
    ]
    corrupted = corruption.look(list(dict.fromkeys(site for part in parts for site in part)))
    alive = [index for index, part in enumerate(parts) if corruption.matters(part)]
    restored = torch.full((len(parts),), corrupted)
    restored[alive] = corruption.restored([parts[index] for index in alive], tell)
    if not torch.isfinite(restored).all():
        raise NonFiniteError("Probabilities are not finite; load the model with dtype=torch.float32.")
    options = {"restore": restore, "noise": noise, "samples": samples, "seed": seed, "sigma": corruption.sigma}
    if restore != "states":
        options["window"] = window
    return Trace(
        wanted, tuple(corruption.rows), tuple(chosen), tuple(map(tuple, columns)),
        tuple(_label(run, column) for column in columns), corruption.clean, corrupted,
        restored.reshape(len(chosen), len(columns)).numpy().astype(np.float64),
        record_of(model, run, wanted, **options),
    )  # fmt: skip


def _require(model: Model, run: Run, subject: object, restore: str, window: int, noise: float, samples: int) -> None:
    if model.is_encoder_decoder:
        raise MethodError(
            f"An encoder of {model.name} reads the prompt, and its decoder is given the whole of it at every layer, so "
            "there is no path to trace."
        )
    if restore not in RESTORE:
        raise MethodError(f"restore={restore!r} is unknown; choose one of {', '.join(RESTORE)}.")
    if window < 1 or samples < 1:
        raise MethodError("window counts layers and samples draws of noise: 1 or more.")
    if not 0 < noise < math.inf:
        raise MethodError(f"noise is {noise:g}; give a number of standard deviations above 0.")
    if subject is None and not run.images:
        raise MethodError("Name the subject, a part of the prompt whose tokens are corrupted: subject='France'.")


def _layers(model: Model, layers: Sequence[int] | None) -> list[int]:
    chosen = list(range(model.num_layers)) if layers is None else sorted(set(layers))
    wrong = [layer for layer in chosen if not 0 <= layer < model.num_layers]
    if wrong or not chosen:
        raise MethodError(f"layers={layers!r}: {model.name} has layers 0 to {model.num_layers - 1}.")
    return chosen


def _columns(run: Run, target: Target, positions: Columns) -> list[list[int]]:
    """The rows that are restored together, one list for each column."""
    if not isinstance(positions, str | int):
        if not positions:
            raise MethodError("positions is empty; name one position of the sequence or more.")
        return [shown_rows(run, target, [one] if isinstance(one, int) else list(one)) for one in positions]
    columns = [[row] for row in shown_rows(run, target, positions)]
    if positions == "text" and (image := run.image_rows):
        columns.insert(sum(column[0] < image[0] for column in columns), image)
    return columns


def _subject_rows(run: Run, subject: str | Sequence[int]) -> list[int]:
    """The rows of a part of the prompt: of the tokens that wrote it, where ``subject_place`` finds it."""
    ids = run.prompted.input_ids
    if not isinstance(subject, str):
        rows = sorted(set(subject))
        if not rows or not all(0 <= row < len(ids) for row in rows):
            raise TargetError(f"The subject's positions are {rows}; the prompt has 0 to {len(ids) - 1}.")
        return rows
    kept = [row for row, token in enumerate(ids) if token >= 0]
    text, spans = token_spans(run.model.tokenizer, [ids[row] for row in kept])
    start = subject_place(text, subject.strip()) if subject.strip() else None
    if start is None:
        raise TargetError(f"The prompt {text.strip()!r} does not have the subject {subject!r}; name a part of it.")
    end = start + len(subject.strip())
    return [row for row, (first, after) in zip(kept, spans, strict=True) if first < end and after > start]


def _sites(model: Model, corruption: Corruption, restore: str) -> dict[int, list[Site]]:
    """Of each layer what is restored: its output, or the modules that write into its stream.

    These are found along the direct path: what neurons write is feed-forward, everything else the layer's attention
    (or another mixer of positions).
    """
    if restore == "states":
        return {layer: [(layer, STATE)] for layer in range(model.num_layers)}
    found = written_gradients(model, corruption.inputs, [(-1, {0: 1.0})], direct=True).gradients[0]
    written = {writer.site for writer in model.writers}
    by_layer: dict[int, list[Site]] = {layer: [] for layer in range(model.num_layers)}
    for site in found:
        if site[0] in by_layer and (site in written) == (restore == "feed-forward"):
            by_layer[site[0]].append(site)
    return by_layer


def _part(by_layer: Mapping[int, Sequence[Site]], layer: int, rows: list[int], window: int) -> Restoring:
    """What one cell restores: the sites of ``window`` layers around a layer, of the layer alone for 0."""
    first, after = (layer - window // 2, layer - (-window // 2)) if window else (layer, layer + 1)
    return {site: rows for near in range(first, after) for site in by_layer.get(near, ())}


def _label(run: Run, rows: Sequence[int]) -> str:
    image = set(run.image_rows)
    if len(rows) > 1 and set(rows) == image:
        return "photo"
    return "".join("▦" if row in image else run.tokens[row] for row in rows)
