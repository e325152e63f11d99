"""How well each method finds the neurons that a word depends on: deletion and insertion curves; maps over photos."""

from neuronwise.study.localization.figures import figures
from neuronwise.study.localization.measure import cases, measure
from neuronwise.study.localization.recipe import LocalizationRecipe
from neuronwise.study.localization.tables import tables
from neuronwise.study.photo_study import photo_kind

LOCALIZATION = photo_kind(
    "localization",
    LocalizationRecipe,
    cases,
    measure,
    tables,
    figures,
    title="Deletion and insertion",
    sentence="How much of a word depends on the neurons that each method finds? Do maps of it lie on what it names?",
)
