"""Two-stage filtering ([2S]): neurons that fire less without the object, and of these, those that write its word."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_type_hints

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate import thresholds as by
from neuronwise.locate.activation_difference import activation_difference
from neuronwise.locate.gradient import gradient_activation
from neuronwise.locate.method import Method
from neuronwise.locate.scores import Pair, Scores
from neuronwise.model.writers import Writer
from neuronwise.neurons import NeuronSet
from neuronwise.registry.arguments import taken

if TYPE_CHECKING:
    from neuronwise.model import Model


@dataclass(frozen=True)
class TwoStage:
    """Hyper-parameters of [2S], and our choices where the paper leaves them open.

    ``difference`` and ``gradient`` are the thresholds of the stages: numbers as in the paper, or a name of
    ``thresholds.AUTOMATIC``. ``positions`` "predicting", "image" or "all". Over several photos a neuron counts when it
    passes in at least ``vote`` of them. ``over`` says where a quantile or knee is found: "photo", on each photo's own
    scores, or "concept", on the scores that neurons exceed in at least ``vote`` of the photos, which is what the vote
    then asks for. ``stages`` "both", or one alone (a baseline).
    """

    difference: float | str = "knee"
    gradient: float | str = "knee"
    positions: str = "predicting"
    vote: float = 0.7
    over: str = "concept"
    quantile: float = 0.99
    null_share: float = 0.01
    stages: str = "both"

    def __post_init__(self) -> None:
        for name in ("difference", "gradient"):
            value = getattr(self, name)
            if isinstance(value, str) and value not in by.AUTOMATIC:
                raise MethodError(f"{name}={value!r} is not a threshold; give a number or {', '.join(by.AUTOMATIC)}.")
        for name in ("vote", "quantile", "null_share"):
            share = getattr(self, name)
            if not isinstance(share, (int, float)) or not 0 < share <= 1:
                raise MethodError(f"{name}={share!r} is not a share; give a number above 0 and up to 1.")
        if self.over not in ("photo", "concept"):
            raise MethodError(f"over={self.over!r} is unknown; choose photo or concept.")
        if self.stages not in ("both", "difference", "gradient"):
            raise MethodError(f"stages={self.stages!r} is unknown; choose both, difference or gradient.")
        for name, kind in get_type_hints(type(self)).items():
            object.__setattr__(self, name, taken(name, getattr(self, name), kind, error=MethodError))


def two_stage(
    model: Model,
    pairs: Sequence[Pair],
    settings: TwoStage | None = None,
    *,
    null: Sequence[Pair] = (),
    top: int | None = None,
) -> NeuronSet:
    """The neurons of a concept from one photo or many ([2S] §4), ranked by their mean stage-2 score.

    Stage 1 keeps the neurons whose ``activation_difference`` exceeds its threshold, stage 2 those of them whose
    ``gradient_activation`` does. ``null``: the same for photos without the concept, of which any region was inpainted;
    thresholds "null" are those that at most ``null_share`` of their scores exceed. ``record["funnel"]`` says how
    many neurons were left after each stage, photo by photo and after the vote.
    """
    settings = settings or TwoStage()
    if not pairs:
        raise MethodError("Give one photo or more, each with its inpainted counterpart.")
    nothing = [_stage_scores(model, pair, settings) for pair in null]
    votes: dict[Writer, Tensor] = {}
    ranks: dict[Writer, Tensor] = {}
    photos = []
    scored = [_stage_scores(model, pair, settings) for pair in pairs]
    shared = tuple(_exceeded(stage, settings.vote) for stage in zip(*scored, strict=True))
    for difference, gradient in scored:
        basis = shared if settings.over == "concept" else (difference, gradient)
        limits = (
            _threshold(settings.difference, basis[0], [d for d, _ in nothing], settings),
            _threshold(settings.gradient, basis[1], [g for _, g in nothing], settings),
        )
        first, second = _passes(difference, limits[0]), _passes(gradient, limits[1])
        both = {writer: first[writer] & second[writer] for writer in first if writer in second}
        passed = {"both": both, "difference": first, "gradient": second}[settings.stages]
        _add(votes, {writer: mask.float() for writer, mask in passed.items()})
        _add(ranks, difference if settings.stages == "difference" else gradient)
        photos.append(
            {
                "neurons": sum(len(mask) for mask in first.values()),
                "after_difference": _count(first),
                "after_both": _count(both),
                "thresholds": {"difference": limits[0], "gradient": limits[1]},
            }
        )
    needed = settings.vote * len(pairs)
    kept = {writer: count >= needed - 1e-6 for writer, count in votes.items()}
    found = _ranked(kept, {writer: values / len(pairs) for writer, values in ranks.items()})
    funnel = {"photos": photos, "after_vote": len(found), "vote": settings.vote}
    record = {"method": "two_stage", "settings": vars(settings).copy(), "funnel": funnel}
    return NeuronSet(found.members[:top], record)


def _stage_scores(model: Model, pair: Pair, settings: TwoStage) -> tuple[Scores, Scores]:
    run, target, inpainted = pair
    positions = settings.positions
    difference = activation_difference(model, run, [target], inpainted=inpainted, positions=positions)[0]
    return difference, gradient_activation(model, run, [target], positions=positions)[0]


def _exceeded(stage: Sequence[Scores], vote: float) -> Scores:
    """For each neuron the score that it reaches in at least ``vote`` of the photos; the lowest for unused experts."""
    needed = math.ceil(vote * len(stage) - 1e-6)
    lowest = torch.finfo(torch.float32).min
    writers = {writer: values for scores in stage for writer, values in scores.items()}
    return Scores(
        {
            writer: torch.stack([scores.get(writer, torch.full_like(like, lowest)) for scores in stage])
            .sort(dim=0, descending=True)
            .values[needed - 1]
            for writer, like in writers.items()
        }
    )


def _threshold(choice: float | str, scores: Scores, nothing: Sequence[Scores], settings: TwoStage) -> float:
    if not isinstance(choice, str):
        return choice
    automatic: dict[str, Callable[[], float]] = {
        "quantile": lambda: by.quantile(scores, settings.quantile),
        "knee": lambda: by.knee(scores),
        "null": lambda: by.null(nothing, settings.null_share),
    }
    return automatic[choice]()


def _passes(scores: Scores, threshold: float) -> dict[Writer, Tensor]:
    return {writer: values > threshold for writer, values in scores.items()}


def _count(masks: Mapping[Writer, Tensor]) -> int:
    return int(sum(int(mask.sum()) for mask in masks.values()))


def _add(sums: dict[Writer, Tensor], values: Mapping[Writer, Tensor]) -> None:
    for writer, added in values.items():
        sums[writer] = sums[writer] + added if writer in sums else added


def _ranked(kept: Mapping[Writer, Tensor], ranks: Mapping[Writer, Tensor]) -> NeuronSet:
    """Neurons of ``kept`` by their rank, the others left out."""
    total = _count(kept)
    if not total:
        return NeuronSet()
    lowest = torch.finfo(torch.float32).min
    masked = Scores({writer: torch.where(mask, ranks[writer], torch.tensor(lowest)) for writer, mask in kept.items()})
    return masked.top(total)


METHOD = Method(
    "two_stage",
    two_stage,
    meaning="activation × gradient of the logit of {token}, of neurons that fire less without the object",
    source="Sato and Takagi 2025 (arXiv 2503.22941)",
    needs="photos",
    settings=TwoStage,
)
