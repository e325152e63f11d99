"""Showing what was found: the self-contained page of one finding."""

from neuronwise.report.finding import write_finding
from neuronwise.report.page import ConceptHeat, write_page

__all__ = ["ConceptHeat", "write_finding", "write_page"]
