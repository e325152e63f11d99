"""The folder in which is kept what is made or fetched once."""

from __future__ import annotations

import os
from pathlib import Path

from neuronwise.errors import ModelUnavailable
from neuronwise.files.writing import expanded


def cache_folder() -> Path:
    """Return the folder for everything cached: $NEURONWISE_CACHE, $XDG_CACHE_HOME/neuronwise or ~/.cache/neuronwise."""
    if chosen := os.environ.get("NEURONWISE_CACHE"):
        return expanded(chosen, not_cached)
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache", not_cached) / "neuronwise"


def not_cached(sentence: str) -> ModelUnavailable:
    """The error for a cache that cannot be written."""
    return ModelUnavailable(f"{sentence} Set NEURONWISE_CACHE to a folder that the built-in model can be cached in.")
