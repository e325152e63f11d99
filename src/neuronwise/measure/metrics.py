"""What a metric of texts is, and the tables of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, SupportsFloat

from neuronwise.errors import MethodError
from neuronwise.registry import Registry

if TYPE_CHECKING:
    from neuronwise.images import ImageLike

Listed = dict[int, list[str]]
Each = Sequence[Iterable[SupportsFloat]]
Scored = tuple[Sequence[SupportsFloat], Each]  # one number a metric, and one row of numbers a metric


@dataclass(frozen=True)
class Metric:
    """One metric of captions against references.

    ``score(references, captions)`` takes both by the captions' numbers, a caption as a list of one, and gives one
    number for all captions and one for each, for every metric that it computes; this one is number ``place`` of them.
    ``least`` captions are needed, and the program ``program``. ``source`` is the publication.
    """

    name: str
    score: Callable[[Listed, Listed], Scored]
    source: str
    place: int = 0
    least: int = 1
    program: str | None = None

    @property
    def runs(self) -> bool:
        """Whether its program is installed."""
        return self.program is None or shutil.which(self.program) is not None


@dataclass(frozen=True)
class ModelMetric:
    """One metric of texts by a model of its own, in a local folder.

    ``model``: the key of that folder in a recipe's ``metric_models``. ``score(folder, photo, texts, references)`` gives
    one number for each text, where ``references[n]`` belong to text n. ``of_photo``: whether it compares with the photo
    rather than the references. ``source`` is the publication.
    """

    name: str
    model: str
    score: Callable[[str, ImageLike, Sequence[str], Sequence[Sequence[str]]], list[float]]
    source: str
    of_photo: bool = False


METRICS: Registry[Metric] = Registry(
    "metric",
    {
        "bleu-1": "neuronwise.measure.captions:BLEU_1",
        "bleu-2": "neuronwise.measure.captions:BLEU_2",
        "bleu-3": "neuronwise.measure.captions:BLEU_3",
        "bleu-4": "neuronwise.measure.captions:BLEU_4",
        "rouge-l": "neuronwise.measure.captions:ROUGE_L",
        "cider": "neuronwise.measure.captions:CIDER",
        "meteor": "neuronwise.measure.captions:METEOR",
    },
    kind="neuronwise.measure.metrics:Metric",
    group="neuronwise.metrics",
    error=MethodError,
)
"""Metrics of captions against references, which need no model."""

MODEL_METRICS: Registry[ModelMetric] = Registry(
    "metric by a model",
    {
        "clipscore": "neuronwise.measure.semantic:CLIPSCORE",
        "bertscore": "neuronwise.measure.semantic:BERTSCORE",
        "mover_score": "neuronwise.measure.semantic:MOVER_SCORE",
        "bleurt": "neuronwise.measure.bleurt:BLEURT",
    },
    plural="metrics by a model",
    kind="neuronwise.measure.metrics:ModelMetric",
    group="neuronwise.model_metrics",
    error=MethodError,
)
"""Metrics that need a model of their own, from a local folder."""
