"""The scripts of `training/`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from scripts import scripts_of


@pytest.fixture(scope="module")
def training() -> Iterator[Any]:
    """Imports a script by its name."""
    with scripts_of("training") as load:
        yield load
