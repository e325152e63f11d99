"""What an evaluation of an editor is made of: everything that its numbers hang on, as plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from neuronwise.data.facts import Fact, FactCase
from neuronwise.edit.edit import Edit
from neuronwise.edit.editors import EDITORS
from neuronwise.errors import MethodError
from neuronwise.model.model import Model


@dataclass(frozen=True)
class Maker:
    """An editor with its settings: ``make(model, facts)`` gives the edit."""

    name: str
    function: Callable[..., Edit]
    settings: Any = None
    changes: Mapping[str, Any] | None = None
    statistics: Any = None

    def make(self, model: Model, facts: Sequence[Fact]) -> Edit:
        """One edit of one fact, or of several together."""
        request = facts[0] if len(facts) == 1 else list(facts)
        given = {} if self.statistics is None else {"statistics": self.statistics}
        return self.function(model, request, self.settings, **given, **(self.changes or {}))

    def require_layers(self, model: Model) -> None:
        """Raise ``MethodError`` for layers that the model does not have, before anything is begun."""
        settings = {} if self.settings is None else {field.name: field for field in fields(self.settings)}
        for name in ("layer", "layers"):
            value = (self.changes or {}).get(name, getattr(self.settings, name, None) if name in settings else None)
            for layer in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(layer, int) and not 0 <= layer < model.num_layers:
                    last = model.num_layers - 1
                    raise MethodError(f"{name}: there is no layer {layer}; {model.name} has 0 to {last}.")


def maker(
    editor: str | Callable[..., Edit], settings: Any, changes: Mapping[str, Any], statistics: Any, seed: int
) -> Maker:
    """An editor by its name or any function like one; raises ``MethodError`` for unknown names and settings."""
    if not isinstance(editor, str):
        return Maker(getattr(editor, "__name__", "editor"), editor, settings, changes, statistics)
    entry = EDITORS[editor]
    changes = entry.options(changes, settings, statistics=statistics, seed=seed)
    return Maker(editor, entry.function, settings, changes, statistics)


def recipe(model: Model, cases: Sequence[FactCase], maker: Maker, **choices: Any) -> dict[str, Any]:
    """Model, data, editor and choices as plain JSON values."""
    content = json.dumps([plain_case(case) for case in cases], ensure_ascii=False, sort_keys=True)
    dtypes = dict.fromkeys(str(p.dtype) for p in model.module.parameters())
    values = {
        "model": model.name,
        "revision": getattr(model.config, "_commit_hash", None),
        "dtype": ", ".join(dtypes),
        "sha256": hashlib.sha256(content.encode()).hexdigest(),
        "cases": len(cases),
        "editor": maker.name,
        "settings": None if maker.settings is None else asdict(maker.settings),
        "changes": dict(maker.changes or {}),
        "statistics": None if maker.statistics is None else maker.statistics.record(),
        **choices,
    }
    return json.loads(json.dumps(values, default=str))


def plain_case(case: FactCase) -> dict[str, Any]:
    def probes(kinds: Mapping[str, Any]) -> dict[str, Any]:
        return {kind: [asdict(probe) for probe in found] for kind, found in kinds.items()}

    return {
        "id": case.id,
        "fact": asdict(case.fact),
        "paraphrases": list(case.paraphrases),
        "portability": probes(case.portability),
        "locality": probes(case.locality),
        "generation": list(case.generation),
    }


EDITORS_OWN = ("editor", "settings", "changes", "statistics", "sequential", "batch")


def same_before(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """What two recipes differ in that matters before any edit is made; None for nothing."""
    names = [name for name in dict.fromkeys([*one, *other]) if name not in EDITORS_OWN]
    return next((name for name in names if one.get(name) != other.get(name)), None)
