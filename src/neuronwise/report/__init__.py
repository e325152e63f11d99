"""Showing what was found: the self-contained page of one finding, and those of several photos."""

from neuronwise.report.finding import write_finding, write_findings
from neuronwise.report.page import ConceptHeat, write_page

__all__ = ["ConceptHeat", "write_finding", "write_findings", "write_page"]
