"""The table of converters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neuronwise.errors import ModelError
from neuronwise.registry import Registry

if TYPE_CHECKING:
    from neuronwise.architectures.convert.plan import Plan

CONVERTERS: Registry[Callable[[Sequence[Path]], Plan]] = Registry(
    "converter",
    {
        "minigpt4": "neuronwise.architectures.convert.minigpt4:plan",
        "mplug_owl2": "neuronwise.architectures.convert.mplug_owl2:plan",
    },
    kind="collections.abc:Callable",
    group="neuronwise.converters",
    error=ModelError,
)
"""Each lays out how downloaded parts become a checkpoint; raises ``ModelError`` for what does not fit."""
