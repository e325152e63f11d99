"""Key statistics: the second moments of W_down's inputs over a text, and what the key-value editors solve with them."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import torch
from safetensors import safe_open
from torch import Tensor

from neuronwise.edit.delta import Record
from neuronwise.errors import EditError, MethodError, NonFiniteError, told
from neuronwise.files import ordinary, read_form
from neuronwise.model.model import Model
from neuronwise.model.state import alike, likeness
from neuronwise.registry.arguments import checked

SCHEMA = "neuronwise.statistics/1"
SUMS = "moments.safetensors"
ABOUT = "statistics.json"
RIDGE = 1e-5  # of the mean eigenvalue: added where too few tokens leave a second moment without an inverse


class _About(TypedDict):
    """``statistics.json``, as far as it is read; it may hold more."""

    schema: str
    model: str
    text: str
    digest: str
    layers: list[int]
    tokens: int


class Statistics:
    """C = E[k kᵀ] of each gathered layer, (f, f), read from its folder when it is first asked for.

    ``about`` says which model, text (name and digest) and how many tokens. Raises ``EditError`` for a folder that is
    none, damaged, unfinished or newer.
    """

    @checked
    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        with told(EditError, f"The key statistics in '{self.folder}' are damaged"):
            if self.folder.is_file():
                raise EditError(f"'{self.folder}' is a file; name the folder that holds the key statistics.")
            if not (self.folder / ABOUT).is_file():
                begun = (self.folder / SUMS).is_file()
                why = "they are not finished; gather them again to go on" if begun else "none there"
                raise EditError(f"'{self.folder}' holds no key statistics: {why}.")
            about = read_form(self.folder / ABOUT, _About, "record of key statistics", EditError)
        schema = about["schema"]
        self.layers: tuple[int, ...] = tuple(about["layers"])
        self.tokens: int = about["tokens"]
        if schema != SCHEMA:
            raise EditError(
                f"The statistics in '{self.folder}' have the form {schema!r}; this version reads {SCHEMA!r}."
            )
        if self.tokens < 1:
            raise EditError(f"The key statistics in '{self.folder}' are damaged: they are of {self.tokens} tokens.")
        self.about: Record = about
        self._factors: dict[tuple[int, float], Tensor] = {}
        self._spectra: dict[int, tuple[Tensor, Tensor]] = {}

    def __repr__(self) -> str:
        return f"Statistics({str(self.folder)!r}, layers {list(self.layers)}, {self.tokens} tokens)"

    def second_moment(self, layer: int) -> Tensor:
        """(f, f) float64; raises ``EditError`` for a layer that was not gathered."""
        if layer not in self.layers:
            raise EditError(f"The statistics in '{self.folder}' are of layers {list(self.layers)}, not of {layer}.")
        found = self._read(f"layer.{layer}").double() / self.tokens
        if found.dim() != 2 or found.shape[0] != found.shape[1]:
            raise EditError(f"The key statistics in '{self.folder}' are damaged: layer {layer} has no square matrix.")
        if not bool(torch.isfinite(found).all()):
            raise NonFiniteError(f"The statistics of layer {layer} are not finite; gather them in dtype=torch.float32.")
        return found

    def solve(self, layer: int, keys: Tensor, ridge: float = 0.0) -> Tensor:
        """(C + ridge·I)⁻¹ · keys, (f, n) float64; a C without an inverse gets ``RIDGE`` on its diagonal."""
        if (layer, ridge) not in self._factors:
            moment = self.second_moment(layer)
            moment.diagonal().add_(ridge)
            factor, failed = torch.linalg.cholesky_ex(moment)
            if int(failed):
                moment.diagonal().add_(RIDGE * moment.diagonal().mean())
                factor, failed = torch.linalg.cholesky_ex(moment)
            if int(failed):
                raise EditError(
                    f"The key statistics in '{self.folder}' are damaged: those of layer {layer} are no second moments."
                )
            self._factors[layer, ridge] = factor
        return torch.cholesky_solve(keys.double(), self._factors[layer, ridge])

    def without_preserved(self, layer: int, keys: Tensor, threshold: float) -> Tensor:
        """P · keys, (f, n) float64: the part of keys in directions whose eigenvalue of C is below ``threshold``.

        Raises ``MethodError`` when there are none, so that nothing could be written.
        """
        if layer not in self._spectra:
            with told(EditError, "The key statistics are damaged"):
                self._spectra[layer] = torch.linalg.eigh(self.second_moment(layer))
        eigenvalues, vectors = self._spectra[layer]
        if not bool((eigenvalues < threshold).any()):
            raise MethodError(
                f"No direction of layer {layer} has an eigenvalue below nullspace_threshold={threshold:g}: the "
                f"smallest is {float(eigenvalues[0]):.3g}, the median {float(eigenvalues.median()):.3g}."
            )
        preserved = vectors[:, eigenvalues >= threshold]
        return keys.double() - preserved @ (preserved.T @ keys.double())

    def require(self, model: Model, layers: list[int]) -> None:
        """Raise ``EditError`` when these are another model's statistics, or lack a layer."""
        missing = [layer for layer in layers if layer not in self.layers]
        if missing:
            raise EditError(
                f"The statistics in '{self.folder}' are of layers {list(self.layers)}, not of {missing[0]}."
            )
        if not alike(likeness(model), self._fingerprint):
            raise EditError(
                f"The statistics in '{self.folder}' were gathered for {self.about['model']}, not for {model.name}."
            )

    def record(self) -> dict[str, object]:
        """What an edit's record says of them."""
        return {name: self.about[name] for name in ("text", "digest", "tokens")}

    @cached_property
    def _fingerprint(self) -> Tensor:
        return self._read("fingerprint")

    def _read(self, name: str) -> Tensor:
        with told(EditError, f"The key statistics in '{self.folder}' are damaged"):
            with safe_open(ordinary(self.folder / SUMS), framework="pt") as file:
                return file.get_tensor(name).float()


def require_statistics(statistics: object, model: Model, layers: list[int]) -> dict[str, object]:
    """What an edit's record says of the covariance; raises ``EditError`` for statistics that do not fit."""
    if statistics is None:
        return {"covariance": "identity"}
    if not isinstance(statistics, Statistics):
        raise EditError("Key statistics are opened first: statistics=neuronwise.Statistics(FOLDER).")
    statistics.require(model, layers)
    return {"covariance": statistics.record()}
