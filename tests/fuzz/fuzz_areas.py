"""All areas of the fuzz: each tries one input, and raises ``Fault``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fuzz_api
import fuzz_shell
import fuzz_tables
import fuzz_view
from fuzz_checkpoints import checkpoints
from fuzz_images import arrays, photos
from fuzz_world import World
from hypothesis import HealthCheck
from hypothesis import strategies as st

PATIENT = [HealthCheck.too_slow, HealthCheck.data_too_large]  # machines are busy, recipes long
Area = Callable[[st.DataObject, World, Path], None]
AREAS: dict[str, Area] = {
    "options": fuzz_shell.options,
    "prompts": fuzz_shell.texts,
    "photos": photos,
    "arrays": arrays,
    "calls": fuzz_api.calls,
    "sets": fuzz_api.sets,
    "coco": fuzz_api.annotated,
    "records": fuzz_api.records,
    "baselines": fuzz_api.baselines,
    "recipes": fuzz_shell.recipes,
    "checkpoints": checkpoints,
    "editors": fuzz_tables.editors,
    "lives": fuzz_tables.lives,
    "scored": fuzz_tables.scored,
    "exchanged": fuzz_tables.exchanged,
    "pages": fuzz_view.pages,
    "questions": fuzz_view.questions,
    **{name: fuzz_shell.of_files(name) for name in fuzz_shell.SPOILED},
}
