"""Importing scripts that lie beside the package, in `benchmarks/` and `training/`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def scripts_of(folder: str) -> Iterator[Callable[[str], Any]]:
    """Import scripts of a folder by name; all are forgotten at the end, since both folders use the same names."""
    place = str(ROOT / folder)
    sys.path.insert(0, place)
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(place)
        for name, module in list(sys.modules.items()):
            if isinstance(module, ModuleType) and str(getattr(module, "__file__", "")).startswith(place):
                del sys.modules[name]
