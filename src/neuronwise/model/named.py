"""A model by its name, so that another process can open it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from neuronwise.errors import ModelError
from neuronwise.model.load import load
from neuronwise.model.model import Model
from neuronwise.model.state import state_of


@dataclass(frozen=True)
class Named:
    """What ``load`` opens: a ``source`` and the options of ``load``."""

    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tagger: str = Model.tagger

    def load(self) -> Model:
        """Open it; raises as ``load`` does."""
        model = load(self.source, **self.options)
        model.tagger = self.tagger
        return model

    @classmethod
    def of(cls, model: Model) -> Named:
        """What another process opens to have the same model.

        Raises ``ModelError`` for one that was not opened by its name, and for one that has been changed since.
        """
        advice = "save it to a folder with save_pretrained and load that, or use the executor 'serial'."
        if model.opened is None:
            raise ModelError(f"Workers open {model.name!r} by its name, but it was wrapped in Python; {advice}")
        changed = state_of(model).difference(model.opened.state)
        if changed is not None:
            raise ModelError(f"Workers open {model.name!r} by its name, but {changed}; {advice}")
        return cls(model.source, model.opened.options, model.tagger)
