"""The editors of facts by name: what `neuronwise edit`, `neuronwise evaluate` and the comparison choose from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from neuronwise.edit.edit import Edit
from neuronwise.edit.fine import FineSettings, fine


@dataclass(frozen=True)
class Editor:
    """``function(model, facts, settings=None, **changes)`` → ``Edit``; ``statistics``: it takes key statistics too."""

    function: Callable[..., Edit]
    settings: type[Any]
    statistics: bool = False


EDITORS: dict[str, Editor] = {
    "fine": Editor(fine, FineSettings),
}
