"""Which method's neurons, when they are silenced, take a concept out of captions and nothing else ([2S] §6)."""

from neuronwise.study.photo_study import photo_kind
from neuronwise.study.suppression.figures import figures
from neuronwise.study.suppression.measure import cases, measure
from neuronwise.study.suppression.recipe import SuppressionRecipe
from neuronwise.study.suppression.tables import tables

SUPPRESSION = photo_kind(
    "suppression",
    SuppressionRecipe,
    cases,
    measure,
    tables,
    figures,
    title="Suppressing concepts in captions",
    sentence="Which neurons, when they are silenced, take a concept out of captions and nothing else?",
)
