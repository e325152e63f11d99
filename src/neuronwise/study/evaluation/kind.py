"""The kind of study that compares editors."""

from neuronwise.study.evaluation.figures import figures
from neuronwise.study.evaluation.recipe import EvaluationRecipe, job
from neuronwise.study.evaluation.rows import flat_rows
from neuronwise.study.evaluation.tables import tables
from neuronwise.study.kind import Kind

EVALUATION = Kind(
    "evaluation",
    EvaluationRecipe,
    job,
    tables,
    figures,
    title="Editors on facts",
    sentence="What does each editor change, what follows from it, and what else changes?",
    rows=flat_rows,
    data="facts",
)
