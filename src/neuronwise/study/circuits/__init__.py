"""How much of a word the circuits that each method finds carry: faithfulness and completeness curves."""

from neuronwise.study.circuits.figures import figures
from neuronwise.study.circuits.measure import cases, measure
from neuronwise.study.circuits.recipe import CircuitsRecipe
from neuronwise.study.circuits.tables import tables
from neuronwise.study.photo_study import photo_kind

CIRCUITS = photo_kind(
    "circuits",
    CircuitsRecipe,
    cases,
    measure,
    tables,
    figures,
    title="Circuits",
    sentence="How much of a word do the neurons that each method finds carry alone, and how much is left without them?",
)
