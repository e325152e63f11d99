"""Facts to edit, each with the questions that measure an edit of it, and the forms that benchmarks write them in."""

from neuronwise.data.facts.fact import LOCALITY, PORTABILITY, Fact, FactCase, Probe
from neuronwise.data.facts.load import FORMS, Facts, load_facts

__all__ = ["FORMS", "LOCALITY", "PORTABILITY", "Fact", "FactCase", "Facts", "Probe", "load_facts"]
