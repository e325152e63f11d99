"""The kinds of studies by their names."""

from __future__ import annotations

from neuronwise.study.kind import Kind
from neuronwise.study.localization import LOCALIZATION
from neuronwise.study.properties import PROPERTIES
from neuronwise.study.suppression import SUPPRESSION

KINDS: dict[str, Kind] = {kind.name: kind for kind in (SUPPRESSION, PROPERTIES, LOCALIZATION)}
