"""Which regions of the photo a word depends on."""

from neuronwise.read.evidence.maps import Evidence, evidence, evidences
from neuronwise.read.evidence.method import EvidenceMethod
from neuronwise.read.evidence.table import EVIDENCE

__all__ = ["EVIDENCE", "Evidence", "EvidenceMethod", "evidence", "evidences"]
