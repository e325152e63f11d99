"""What the neurons of a word are like ([MMN] §4, [NAM]): their meaning, what moves them, what they carry, and where."""

from neuronwise.study.photo_study import photo_kind
from neuronwise.study.properties.figures import figures
from neuronwise.study.properties.measure import cases, measure
from neuronwise.study.properties.recipe import PropertiesRecipe
from neuronwise.study.properties.tables import tables

PROPERTIES = photo_kind(
    "properties",
    PropertiesRecipe,
    cases,
    measure,
    tables,
    figures,
    title="Properties of a word's neurons",
    sentence="What do a word's neurons mean, what moves them, what depends on them, where do they fire?",
)
