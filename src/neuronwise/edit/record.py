"""The record of how an edit was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from neuronwise.data.facts import Fact
from neuronwise.files import versions
from neuronwise.model.model import Model


def made(method: str, model: Model, settings: Any, facts: Sequence[Fact], **outcome: Any) -> dict[str, Any]:
    """Method, settings, requests, model, versions and whatever the method tells about its outcome: plain JSON."""
    requests = [asdict(fact) for fact in facts]
    return {
        "method": method,
        "settings": asdict(settings),
        "request": requests[0] if len(requests) == 1 else requests,
        "model": model.name,
        "revision": getattr(model.config, "_commit_hash", None),
        "seed": getattr(settings, "seed", None),  # None: nothing is left to chance
        **outcome,
        "versions": versions(),
    }
