"""The table of kinds of evidence: their names without torch, each opened when it is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuronwise.errors import MethodError
from neuronwise.registry import Registry

if TYPE_CHECKING:
    from neuronwise.read.evidence.method import EvidenceMethod

EVIDENCE: Registry[EvidenceMethod] = Registry(
    "kind of evidence",
    {
        "occlusion": "neuronwise.read.evidence.occlusion:METHOD",
        "relp": "neuronwise.read.evidence.relp:METHOD",
        "lens": "neuronwise.read.evidence.lens:METHOD",
        "gradient": "neuronwise.read.evidence.gradient:METHOD",
    },
    kind="neuronwise.read.evidence.method:EvidenceMethod",
    group="neuronwise.evidence",
    plural="kinds of evidence",
    error=MethodError,
)
