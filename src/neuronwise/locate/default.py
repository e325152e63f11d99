"""What neurons are scored by where no method is named: the surplus in exact shares, or the nearest that there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neuronwise.errors import ModelError
from neuronwise.locate.contribution import METHOD, SURPLUS
from neuronwise.locate.locating import describe
from neuronwise.locate.scores import Scores
from neuronwise.locate.shares import NoShares
from neuronwise.model.run import Run, Target
from neuronwise.neurons import NeuronSet

if TYPE_CHECKING:
    from neuronwise.model import Model


@dataclass(frozen=True)
class Scored:
    """Scores of each target with the options of ``contribution`` that they have, and what could not be kept."""

    scores: list[Scores]
    options: dict[str, Any]
    note: str | None = None


def locate_by_default(
    model: Model, run: Run, concept: str, top: int, options: Mapping[str, Any] | None = None
) -> NeuronSet:
    """The ``top`` neurons of a word by ``default_scores``; what the architecture lacks is the record's "nearest"."""
    target = run.target(concept)
    scored = default_scores(model, run, [target], options or {})
    record = describe(model, run, target, METHOD.name, scored.options)
    return scored.scores[0].top(top, record | ({} if scored.note is None else {"nearest": scored.note}))


def default_scores(model: Model, run: Run, targets: Sequence[Target], options: Mapping[str, Any]) -> Scored:
    """``contribution`` with the options ``SURPLUS``, of which ``options`` change some.

    Where an architecture has no exact shares the scores are not normalized, and a model that does not generate has no
    baseline of its own; the note says so. Options that the user gives are never replaced.
    """
    defaults = (
        SURPLUS
        if options.get("activation", "ffn") == "ffn"
        else {name: SURPLUS[name] for name in ("contrast", "focus")}
    )
    wanted = {**defaults, **options}
    notes: list[str] = []
    while True:
        try:
            scores = METHOD.score(model, run, targets, wanted)
        except NoShares:
            if options.get("normalize") or not wanted.get("normalize"):
                raise
            wanted["normalize"] = False
            notes.append("its logits have no exact shares, so scores are not normalized")
        except ModelError:
            if "baseline" in options or not wanted.get("baseline"):
                raise
            wanted["baseline"] = None
            notes.append("it writes no texts of its own, so activations are measured from 0")
        else:
            return Scored(scores, wanted, f"Of {model.name}: {'; '.join(notes)}." if notes else None)
