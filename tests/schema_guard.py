"""Whatever the package writes as JSON follows its schema, whichever test makes it write."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

from jsonschema import Draft202012Validator

import neuronwise as nw

WRITERS = {"neuronwise.files.writing", "neuronwise.cli.output", "neuronwise.neurons.neuronset"}


def validated(content: Any) -> Any:
    """The content as JSON, which must follow the schema that it names."""
    plain = json.loads(json.dumps(content, allow_nan=False))
    _validator(str(content["schema"])).validate(plain)
    return plain


@contextmanager
def guarded() -> Iterator[None]:
    """Within the body, what the package writes as JSON is validated before it is written."""
    dumps = json.dumps

    def checked(content: Any, *arguments: Any, **options: Any) -> str:
        text = dumps(content, *arguments, **options)
        named = isinstance(content, Mapping) and str(content.get("schema")).startswith("neuronwise.")
        if named and sys._getframe(1).f_globals["__name__"] in WRITERS:
            validated(content)
        return text

    with mock.patch("json.dumps", checked):
        yield


@cache
def _validator(name: str) -> Draft202012Validator:
    assert name in nw.schemas(), f"{name} has no JSON Schema; write one beside its writer: NAME.schema.json"
    return Draft202012Validator(nw.schemas()[name])
