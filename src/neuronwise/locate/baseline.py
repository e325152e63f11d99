"""What each neuron usually does: its mean activation where the model predicts, against which surpluses are measured."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from neuronwise.data.texts import openings
from neuronwise.errors import MethodError, NeuronwiseError, NonFiniteError, told
from neuronwise.files import cache_folder, ordinary, read_form, versions, write_folder, write_json
from neuronwise.images import ImageLike
from neuronwise.locate.method import require_own
from neuronwise.model.activations import Activations
from neuronwise.model.hashes import stored_hash
from neuronwise.model.hooks import hooked
from neuronwise.model.lock import alone
from neuronwise.model.model import Model
from neuronwise.model.run import Run
from neuronwise.model.sample import drawn
from neuronwise.model.state import alike, likeness, weights_hash
from neuronwise.model.writers import Writer
from neuronwise.neurons import Neuron
from neuronwise.registry.arguments import checked

SCHEMA = "neuronwise.baseline/1"
TENSORS, ABOUT = "baseline.safetensors", "baseline.json"
SELF = "self"
TOKENS = 32  # of each text that a model writes itself
WORTH_A_FILE = 10_000  # neurons: gathering takes fewer less time than opening a file is worth


@dataclass(frozen=True, eq=False)
class Baseline:
    """Mean and spread (standard deviation) of every neuron's activation at the positions that predict.

    For a routed expert's neuron the activation counts with the router's weight, 0 where the token went elsewhere.
    ``means`` and ``spreads`` hold (width,) float32 for each writer, by its name. ``record`` says how they came about.

    >>> baseline = Baseline.gather(model, texts=["One text.", "Another."])
    >>> nw.locate(model, run, "dog", contrast=10, normalize=True, baseline=baseline)
    """

    means: Mapping[str, Tensor] = field(repr=False)
    spreads: Mapping[str, Tensor] = field(repr=False)
    record: Mapping[str, Any]
    like: Tensor = field(repr=False)  # of the model, see ``likeness``

    @classmethod
    @checked
    def gather(
        cls,
        model: Model,
        runs: Iterable[Run] | str | None = None,
        *,
        texts: Iterable[str] | None = None,
        photos: Iterable[ImageLike] | None = None,
        seed: int = 0,
    ) -> Baseline:
        """Over runs, where they predicted their tokens; over texts, at all tokens but the first; over photos, where
        their captions were predicted.

        ``runs="self"``: 64 texts of 32 tokens that the model draws itself (``seed``), without an image, from neutral
        openings. It is gathered once for the weights as they are, and kept in the cache folder for models of some size.
        Raises ``MethodError`` for nothing to gather over, and for "self" within an intervention.
        """
        if sum(one is not None for one in (runs, texts, photos)) != 1 or (isinstance(runs, str) and runs != SELF):
            raise MethodError("Gather a baseline over runs, over texts=, over photos=, or over 'self'.")
        if isinstance(runs, str):
            return _of_itself(model, seed)
        sums = _Sums(model)
        if texts is not None:
            for text in texts:
                run = Run.of(model, model.prepare(None, text, chat=False)[0])
                sums.add(run.rows(list(range(1, run.length)) or [0]))
            return sums.baseline("texts")
        for run in runs if runs is not None else (model.run(photo) for photo in photos or ()):
            require_own(model, [run])
            sums.add(run.rows(predicting_rows(run)))
        return sums.baseline("runs" if photos is None else "photos")

    def mean(self, writer: Writer) -> Tensor:
        """(width,) means of a writer's neurons; raises ``MethodError`` for a writer that it does not know."""
        return self._of(writer, self.means)

    def spread(self, writer: Writer) -> Tensor:
        """(width,) standard deviations of a writer's neurons."""
        return self._of(writer, self.spreads)

    def of(self, model: Model, neuron: Neuron) -> float:
        """One neuron's mean; raises ``NeuronError`` for one that the model does not have."""
        writer = model.writer(neuron)
        return float(self.mean(writer)[neuron.unit - writer.first])

    def _of(self, writer: Writer, table: Mapping[str, Tensor]) -> Tensor:
        found = table.get(str(writer))
        if found is None or len(found) != writer.width:
            raise MethodError(f"This baseline of {self.record['model']} does not fit the writer {writer}.")
        return found

    def require(self, model: Model) -> None:
        """Raise ``MethodError`` where it is another model's."""
        layers = self.record["num_layers"]
        if layers != model.num_layers:
            raise MethodError(
                f"This baseline has {layers} layers, {model.name} has {model.num_layers}; gather one for this model."
            )
        if not alike(self.like, likeness(model)) or set(self.means) != {str(writer) for writer in model.writers}:
            raise MethodError(
                f"This baseline was gathered for {self.record['model']}, not for {model.name}; gather one for it."
            )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a new folder of ``baseline.safetensors`` and ``baseline.json``, whole or not at all."""
        tables = {"mean": self.means, "spread": self.spreads}
        tensors = {f"{name}.{place}": value for name, table in tables.items() for place, value in table.items()}

        def write(path: Path) -> None:
            save_file({**tensors, "likeness": self.like}, path / TENSORS)
            write_json(path / ABOUT, {"schema": SCHEMA, **self.record})

        write_folder(folder, write)

    @classmethod
    @checked
    def load(cls, folder: str | os.PathLike[str]) -> Baseline:
        """Read what ``save`` wrote; raises ``MethodError`` for anything else."""
        place = Path(folder)
        with told(MethodError, f"'{folder}' is not a baseline saved by neuronwise, or it is damaged"):
            if not ((place / ABOUT).is_file() and (place / TENSORS).is_file()):
                raise MethodError(f"There is no baseline '{folder}': {ABOUT} or {TENSORS} is missing.")
            about: dict[str, Any] = {**read_form(place / ABOUT, _About, "baseline", MethodError)}
            schema = about.pop("schema")
            if schema != SCHEMA:
                raise MethodError(f"The baseline '{folder}' has the form {schema!r}; this version reads {SCHEMA!r}.")
            tensors = load_file(ordinary(place / TENSORS))
            like = tensors.pop("likeness")
            tables: dict[str, dict[str, Tensor]] = {"mean": {}, "spread": {}}
            for name, value in tensors.items():
                table, _, writer = name.partition(".")
                tables[table][writer] = value
            return cls(tables["mean"], tables["spread"], about, like)


class _About(TypedDict):
    """``baseline.json``, as far as it is read; it may hold more."""

    schema: str
    model: str
    num_layers: int


def resolved(model: Model, given: object) -> Baseline | None:
    """What ``baseline=`` names: None, "self", a saved folder or a ``Baseline``, which must be of this model."""
    if given is None:
        return None
    if given == SELF:
        return _of_itself(model, 0)
    found = Baseline.load(given) if isinstance(given, str | os.PathLike) else given
    if not isinstance(found, Baseline):
        raise MethodError(f"baseline={given!r} is no baseline; give 'self', a saved folder, or a Baseline.")
    found.require(model)
    return found


def predicting_rows(run: Run) -> list[int]:
    """The rows that predicted the run's tokens, from its end; the last row of one that generated nothing."""
    return [run.row(position) for position in range(max(len(run.output_ids), 1))]


class _Sums:
    """Sums and sums of squares of every neuron's activation."""

    def __init__(self, model: Model) -> None:
        self.model, self.rows = model, 0
        self.first = {writer: torch.zeros(writer.width, dtype=torch.float64) for writer in model.writers}
        self.second = {writer: torch.zeros(writer.width, dtype=torch.float64) for writer in model.writers}

    def add(self, seen: Activations) -> None:
        """Count all recorded rows."""
        for writer in self.model.writers:
            values = writer.fired_rows(seen).values.double()
            self.first[writer] += values.sum(0)
            self.second[writer] += values.square().sum(0)
        self.rows += len(next(iter([*seen.dense.values(), *seen.routed.values()])))

    def baseline(self, source: str, **more: object) -> Baseline:
        """The means so far."""
        model = self.model
        if not self.rows:
            raise MethodError("A baseline needs one text, photo or run, or more.")
        means = {str(writer): (total / self.rows).float() for writer, total in self.first.items()}
        if not all(bool(torch.isfinite(mean).all()) for mean in means.values()):
            raise NonFiniteError("The activations are not finite; load the model with dtype=torch.float32.")
        spreads = {
            str(writer): (total / self.rows - (self.first[writer] / self.rows).square()).clamp_min(0).sqrt().float()
            for writer, total in self.second.items()
        }
        record = {
            "model": model.name, "num_layers": model.num_layers, "source": source, **more, "positions": self.rows,
            "weights": weights_hash(model), "versions": versions(),
        }  # fmt: skip
        return Baseline(means, spreads, record, likeness(model))


@alone
def _of_itself(model: Model, seed: int) -> Baseline:
    """Gathered once for each state of the weights, in memory and, for a model of some size, on disk."""
    if hooked(model.module):
        raise MethodError(
            "baseline='self' is what the model does as it is, so it cannot be gathered within an intervention; gather "
            "it before with Baseline.gather(model, 'self')."
        )
    state = stored_hash(model)

    def gathered() -> Baseline:
        sums = _Sums(model)
        for step in drawn(model, openings(), TOKENS, seed):
            sums.add(step)
        return sums.baseline(SELF, seed=seed)

    def found() -> Baseline:
        if state is None or model.num_neurons < WORTH_A_FILE:
            return gathered()
        folder = cache_folder() / "baselines" / f"{state[:24]}-{seed}"
        try:
            return Baseline.load(folder)
        except MethodError:
            baseline = gathered()
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            baseline.save(folder)
        except (OSError, NeuronwiseError):  # another process was faster, or the cache cannot be written
            pass
        return baseline

    return model.memo(("baseline", state or tuple(id(edit) for edit in model.edits), seed), found)
