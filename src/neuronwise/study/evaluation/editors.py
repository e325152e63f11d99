"""The editors of an evaluation, each with its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from neuronwise.answers.modalities import asked
from neuronwise.data.facts import Fact
from neuronwise.edit.edit import Edit
from neuronwise.edit.editors import EDITORS
from neuronwise.edit.memory.statistics import Statistics
from neuronwise.edit.verdict import without_verdict
from neuronwise.errors import MethodError
from neuronwise.model.model import Model


@dataclass(frozen=True)
class Maker:
    """An editor with its settings: ``make(model, facts)`` gives the edit.

    ``asked``: how facts with photos are put to the editor, one of ``MODALITIES``; as they are without it.
    """

    name: str
    function: Callable[..., Edit]
    settings: Any = None
    changes: Mapping[str, object] = field(default_factory=dict)
    statistics: Statistics | None = None
    asked: str | None = None

    def make(self, model: Model, facts: Sequence[Fact]) -> Edit:
        """One edit of one fact, or of several together."""
        given_facts = [fact if self.asked is None else asked(fact, self.asked) for fact in facts]
        request = given_facts[0] if len(facts) == 1 else given_facts
        given = {} if self.statistics is None else {"statistics": self.statistics}
        with without_verdict():  # every case is measured
            return self.function(model, request, self.settings, **given, **self.changes)

    def require(self, model: Model) -> None:
        """Raise ``MethodError`` for layers that the model does not have or other statistics, before anything begins."""
        for name in ("layer", "layers"):
            value = self.changes.get(name, getattr(self.settings, name, None))
            for layer in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(layer, int) and not 0 <= layer < model.num_layers:
                    last = model.num_layers - 1
                    raise MethodError(f"{name}: there is no layer {layer}; {model.name} has 0 to {last}.")
        if isinstance(self.statistics, Statistics):
            self.statistics.require(model, [])


def maker(
    editor: str | Callable[..., Edit],
    settings: Any,
    changes: Mapping[str, object],
    statistics: Statistics | None,
    seed: int,
) -> Maker:
    """An editor by its name or any function like one; raises ``MethodError`` for unknown names and settings."""
    if not isinstance(editor, str):
        return Maker(getattr(editor, "__name__", "editor"), editor, settings, changes, statistics)
    entry = EDITORS[editor]
    changes = entry.options(changes, settings, statistics=statistics, seed=seed)
    return Maker(editor, entry.function, settings, changes, statistics)
