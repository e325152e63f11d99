"""ROME as its published code has it: the key of the bare prompt beside the mean key ([R-ROME] §3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from neuronwise.data.facts import Fact
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.memory.passages import text_requests
from neuronwise.edit.memory.statistics import Statistics
from neuronwise.edit.presets import Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.edit.rome import PRESETS as CORRECTED
from neuronwise.edit.rome import RomeSettings, rank_ones
from neuronwise.model.lock import alone
from neuronwise.model.model import Model


@dataclass(frozen=True)
class RomePublishedSettings(RomeSettings):
    """Those of ``rome``, mapping the bare prompt's key to v* exactly."""

    exact_for: str = "prompt"


PRESETS: dict[str, Preset[RomePublishedSettings]] = {
    name: Preset(RomePublishedSettings(**{**asdict(preset.settings), "exact_for": "prompt"}), preset.source)
    for name, preset in CORRECTED.items()
}


@alone
def rome_published(
    model: Model,
    facts: Fact | Sequence[Fact],
    settings: RomePublishedSettings | None = None,
    *,
    statistics: Statistics | None = None,
    **changes: object,
) -> Edit:
    """``rome`` with the update (v* − W k) (C⁻¹k*)ᵀ / ((C⁻¹k*)ᵀ k), k the bare prompt's key and k* the mean one.

    Where k and k* are far apart the divisor is small and the change large: [R-ROME] calls such edits disabling. Raises
    as ``rome`` does.
    """
    facts = text_requests(model, facts, "rome_published")
    settings = resolved(model, settings, PRESETS, changes)
    deltas, outcome = rank_ones(model, facts, settings, statistics)
    return edited("rome_published", model, settings, facts, deltas, **outcome)


EDITOR = Editor(
    "rome_published", rome_published, RomePublishedSettings, PRESETS,
    layers="at 1/6 of the depth",
    says="rome with the two keys of its published code, that of the bare prompt and the mean one",
    cites="Meng et al. 2022, arXiv 2202.05262", statistics=True,
)  # fmt: skip
