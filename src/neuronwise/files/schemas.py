"""The JSON Schemas of all that the package writes; each is a file ``NAME.schema.json`` beside its writer."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path


@cache
def schemas() -> dict[str, dict[str, object]]:
    """Every schema by its name, which stands in the field ``schema`` of what follows it.

    >>> jsonschema.validate(json.loads(text), nw.schemas()["neuronwise.find/2"])
    """
    files = sorted(Path(__file__).parents[1].rglob("*.schema.json"))
    contents = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    return {str(content["$id"]): content for content in contents}
