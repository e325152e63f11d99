"""Studies: many cases run to the end, resumable, each kept as soon as it is finished."""

from neuronwise.study.evaluation.evaluate import evaluate
from neuronwise.study.evaluation.results import Evaluation, is_evaluation, read_evaluation
from neuronwise.study.evaluation.rows import TIMINGS, flat_row
from neuronwise.study.evaluation.unedited import known_cases
from neuronwise.study.results import read_study
from neuronwise.study.runner import resume, run_study
from neuronwise.study.store import Store, read_cases, read_manifest

__all__ = [
    "TIMINGS", "Evaluation", "Store", "evaluate", "flat_row", "is_evaluation", "known_cases", "read_cases",
    "read_evaluation", "read_manifest", "read_study", "resume", "run_study",
]  # fmt: skip
