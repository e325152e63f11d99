"""Studies: many cases run to the end, resumable, each kept as soon as it is finished."""

from neuronwise.study.before import known_cases
from neuronwise.study.evaluate import Evaluation, evaluate, is_evaluation, read_evaluation
from neuronwise.study.rows import TIMINGS, flat_row
from neuronwise.study.store import Store, read_cases, read_manifest

__all__ = [
    "TIMINGS", "Evaluation", "Store", "evaluate", "flat_row", "is_evaluation", "known_cases", "read_cases",
    "read_evaluation", "read_manifest",
]  # fmt: skip
