"""The scripts of `benchmarks/`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from scripts import scripts_of


@pytest.fixture(scope="module")
def scripts() -> Iterator[Any]:
    """Imports a script by its name."""
    with scripts_of("benchmarks") as load:
        yield load
