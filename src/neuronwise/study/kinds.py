"""The kinds of studies by their names."""

from __future__ import annotations

from neuronwise.study.kind import Kind
from neuronwise.study.suppression import SUPPRESSION

KINDS: dict[str, Kind] = {kind.name: kind for kind in (SUPPRESSION,)}
