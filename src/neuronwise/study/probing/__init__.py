"""Probes that tell hallucinated nouns from true ones, and objects that are there from absent ones."""

from neuronwise.study.photo_study import photo_kind
from neuronwise.study.probing.measure import cases, measure
from neuronwise.study.probing.recipe import ProbeRecipe
from neuronwise.study.probing.tables import tables

PROBE = photo_kind(
    "probe",
    ProbeRecipe,
    cases,
    measure,
    tables,
    lambda study: [],
    title="Probes",
    sentence="Do neurons tell a hallucinated noun from a true one, and an object that is there from an absent one?",
)
