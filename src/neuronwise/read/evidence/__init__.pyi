from neuronwise.read.evidence.maps import Evidence as Evidence
from neuronwise.read.evidence.maps import evidence as evidence
from neuronwise.read.evidence.maps import evidences as evidences
from neuronwise.read.evidence.method import EvidenceMethod as EvidenceMethod
from neuronwise.read.evidence.table import EVIDENCE as EVIDENCE
