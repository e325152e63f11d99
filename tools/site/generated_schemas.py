"""The page of the JSON Schemas, from the schemas themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from textwrap import indent
from typing import Any

from neuronwise.files.schemas import schemas

INTRODUCTION = """# Schemas

What neuronwise writes as JSON says in its field `schema` what it is. Each schema is a
[JSON Schema](https://json-schema.org) inside the package:

```python
import neuronwise as nw

print(nw.schemas()["neuronwise.find/2"]["title"])
```

A number behind the slash changes when a field goes or changes its meaning; fields may be added without that.
"""


def schemas_page() -> str:
    """Every schema with its fields, and the schema itself to unfold."""
    return "\n".join(
        [INTRODUCTION, *(line for name, content in sorted(schemas().items()) for line in _schema(name, content))]
    )


def _schema(name: str, content: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {name}\n\n{content['title']}.\n"
    if "description" in content:
        yield f"{content['description']}\n"
    yield from _fields(content)
    for part, below in content.get("$defs", {}).items():
        if "properties" in below:
            yield f"**{part}** {below.get('description', '')}\n"
            yield from _fields(below)
    text = json.dumps(content, indent=2, ensure_ascii=False)
    yield '??? note "The JSON Schema"\n'
    yield indent(f"```json\n{text}\n```\n", "    ")


def _fields(content: Mapping[str, Any]) -> Iterator[str]:
    always = content.get("required", ())
    yield "| field | type | |\n|---|---|---|"
    for name, field in content.get("properties", {}).items():
        mark = "" if name in always else " (optional)"
        yield f"| `{name}`{mark} | {_type(field)} | {field.get('description', '')} |"
    yield ""


def _type(field: Mapping[str, Any]) -> str:
    """The type of a field in words."""
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return " or ".join(f"`{json.dumps(one)}`" for one in field["enum"])
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "oneOf" in field or "anyOf" in field:
        return " or ".join(_type(one) for one in field.get("oneOf", field.get("anyOf", ())))
    types = field.get("type", "any")
    words = " or ".join(types) if isinstance(types, list) else str(types)
    if "array" in words and "items" in field:
        words = words.replace("array", f"array of {_type(field['items'])}")
    if words == "object" and isinstance(field.get("additionalProperties"), Mapping):
        words = f"object of {_type(field['additionalProperties'])}"
    return words
