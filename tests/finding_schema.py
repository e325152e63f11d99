"""What ``find`` prints, checked against its JSON Schema."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jsonschema

SCHEMA = json.loads((resources.files("neuronwise.read") / "find.schema.json").read_text(encoding="utf-8"))


def validated(content: dict[str, Any]) -> dict[str, Any]:
    """The object as JSON, valid by the schema."""
    plain = json.loads(json.dumps(content, allow_nan=False))
    jsonschema.Draft202012Validator(SCHEMA).validate(plain)
    return plain
