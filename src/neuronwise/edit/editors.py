"""The editors of facts by name: what `neuronwise edit`, `neuronwise evaluate` and the comparison choose from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from neuronwise.edit.alphaedit import AlphaEditSettings, alphaedit
from neuronwise.edit.edit import Edit
from neuronwise.edit.fine import FineSettings, SpecificSettings, fine, fine_specific
from neuronwise.edit.fine_tune import FineTuneSettings, fine_tune
from neuronwise.edit.knowledge_neurons import KnowledgeNeuronsSettings, knowledge_neurons
from neuronwise.edit.memit import MemitSettings, memit
from neuronwise.edit.pmet import PmetSettings, pmet
from neuronwise.edit.rome import RomeSettings, rome


@dataclass(frozen=True)
class Editor:
    """``function(model, facts, settings=None, **changes)`` → ``Edit``; ``statistics``: it takes key statistics too."""

    function: Callable[..., Edit]
    settings: type[Any]
    statistics: bool = False

    @property
    def presets(self) -> Mapping[str, Any]:
        """The settings for families of models, by family: each editor's own table."""
        return self.function.__globals__["PRESETS"]  # type: ignore[attr-defined]


EDITORS: dict[str, Editor] = {
    "fine": Editor(fine, FineSettings),
    "fine_specific": Editor(fine_specific, SpecificSettings, statistics=True),
    "fine_tune": Editor(fine_tune, FineTuneSettings),
    "knowledge_neurons": Editor(knowledge_neurons, KnowledgeNeuronsSettings),
    "rome": Editor(rome, RomeSettings, statistics=True),
    "memit": Editor(memit, MemitSettings, statistics=True),
    "pmet": Editor(pmet, PmetSettings, statistics=True),
    "alphaedit": Editor(alphaedit, AlphaEditSettings, statistics=True),
}
