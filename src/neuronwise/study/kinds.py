"""The kinds of studies by their names, and the recipes that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from neuronwise.errors import StudyError
from neuronwise.registry import Registry

if TYPE_CHECKING:
    from neuronwise.study.kind import Kind

SHIPPED = Path(__file__).parent / "recipes"
KINDS: Registry[Kind] = Registry(
    "kind",
    {
        "suppression": "neuronwise.study.suppression:SUPPRESSION",
        "properties": "neuronwise.study.properties:PROPERTIES",
        "localization": "neuronwise.study.localization:LOCALIZATION",
        "circuits": "neuronwise.study.circuits:CIRCUITS",
        "probe": "neuronwise.study.probing:PROBE",
        "evaluation": "neuronwise.study.evaluation.kind:EVALUATION",
    },
    kind="neuronwise.study.kind:Kind",
    group="neuronwise.studies",
    error=StudyError,
)


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))
