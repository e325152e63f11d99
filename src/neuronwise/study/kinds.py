"""The kinds of studies by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuronwise.errors import StudyError
from neuronwise.registry import Registry

if TYPE_CHECKING:
    from neuronwise.study.kind import Kind

KINDS: Registry[Kind] = Registry(
    "kind",
    {
        "suppression": "neuronwise.study.suppression:SUPPRESSION",
        "properties": "neuronwise.study.properties:PROPERTIES",
        "localization": "neuronwise.study.localization:LOCALIZATION",
        "evaluation": "neuronwise.study.evaluation.kind:EVALUATION",
    },
    group="neuronwise.studies",
    error=StudyError,
)
