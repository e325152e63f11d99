"""Evidence for a word as a map over the photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from neuronwise.errors import NonFiniteError
from neuronwise.locate.locating import describe
from neuronwise.locate.method import require_own
from neuronwise.model import Model
from neuronwise.model.concepts import Concept
from neuronwise.model.lock import alone
from neuronwise.model.modes import computes
from neuronwise.model.photo_tokens import PhotoTokens
from neuronwise.model.run import Run, Target
from neuronwise.read.evidence.table import EVIDENCE
from neuronwise.read.photo_map import PhotoMap


@dataclass(frozen=True, repr=False)
class Evidence(PhotoMap):
    """What of the photo one word depends on: ``grid`` (h, w), large where it does, in ``unit``.

    It is not where neurons fire, which is a ``Heatmap``. ``record`` says how it was made, as plain JSON values.
    """

    target: Target = field(kw_only=True)
    by: str = field(kw_only=True)
    unit: str = field(kw_only=True)
    record: Mapping[str, Any] = field(default_factory=dict, repr=False, kw_only=True)

    def _about(self) -> str:
        return f"{self.target.text!r} by {self.by} in {self.unit}: "

    def to_dict(self) -> dict[str, Any]:
        """The map as plain JSON values: what it is, its grid row by row, and the part of the photo that it covers."""
        method = EVIDENCE[self.by]
        return {
            "by": self.by,
            "meaning": method.meaning,
            "source": method.source,
            "options": dict(self.record.get("options", {})),
            "unit": self.unit,
            "signed": method.signed,
            "grid": [[float(f"{value:.6g}") for value in row] for row in self.grid],
            "box": list(self.box),
            "photo": list(self.photo.size),
            "note": self.note,
        }


@alone
@computes
def evidence(
    model: Model,
    run: Run,
    concept: str | Concept | None = None,
    *,
    by: str = "occlusion",
    target: str | int | None = None,
    position: int | None = None,
    occurrence: int = 0,
    whole: bool = False,
    **options: object,
) -> Evidence:
    """Which regions of the photo a word of the run's text depends on, or any target token: a map over the image's grid.

    ``by`` is a name of ``EVIDENCE`` and ``options`` are its own: "occlusion" takes each image token away by turns
    (``window``, slow, the reference), "relp" adds up the relevance that arrives at it, "lens" reads the word there,
    "gradient" takes input × gradient. Where image tokens have no place of their own (a Q-Former's queries), each one's
    number is spread over where it looked, and ``note`` says so. ``whole`` as for ``heatmap``. Raises ``PromptError``
    where the image's tokens have no place in the photo, ``MethodError`` and ``TargetError``.
    """
    return evidences(model, run, [run.target(concept, target, position, occurrence)], by=by, whole=whole, **options)[0]


@alone
@computes
def evidences(
    model: Model, run: Run, targets: Sequence[Target], *, by: str = "occlusion", whole: bool = False, **options: object
) -> list[Evidence]:
    """``evidence`` for several targets of one run, with as few passes as the kind of evidence allows."""
    method = EVIDENCE[by]
    options = method.check(options)
    require_own(model, [run])
    tokens = PhotoTokens.of(run, whole=whole)
    values = method.function(run, targets, tokens, **options)
    if not torch.isfinite(values).all():
        raise NonFiniteError(f"Evidence by {by} is not finite; load the model with dtype=torch.float32.")
    photo, grid = run.image, tokens.grid
    assert photo is not None
    return [
        Evidence(
            grid.spread(own).numpy(), grid.box, photo, note=grid.note, floor=0.0 if method.signed else None,
            target=target, by=by, unit=method.unit, record=describe(model, run, target, by, options),
        )
        for own, target in zip(values, targets, strict=True)
    ]  # fmt: skip
