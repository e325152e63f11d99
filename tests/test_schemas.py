"""JSON Schemas: one for each form that the code names, and what commands print follows them.

``schema_guard`` holds all that is written in any test to them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator, ValidationError

import neuronwise as nw
from schema_guard import guarded, validated
from scripts import ROOT
from shell import shell

NAMED = re.compile(r'"(neuronwise\.[a-z.-]+/\d+)"')
TEXT = ("--text", "the cat sits on", "--target", " mat")
FACT = ("--prompt", "{} is in", "--subject", "Paris", "--target", "France", "--max-new-tokens", 2)
COMMANDS = {
    "find/2": ("find", *TEXT, "--top", 3, "-m", "MODEL"),
    "lens/1": ("lens", *TEXT, "-m", "MODEL"),
    "circuit/1": ("circuit", *TEXT, "--nodes", 8, "-m", "MODEL"),
    "decode/1": ("decode", "L0.U3", "-m", "MODEL"),
    "edited/1": ("edit", "fact", *FACT, "--editor", "fine_tune", "--set", "steps=2", "-m", "MODEL"),
    "presets/1": ("presets", "MODEL"),
    "methods/1": ("methods", "contribution"),
    "models/1": ("models", "llama"),
}


def test_every_form_that_the_code_names_has_a_schema() -> None:
    code = [path.read_text(encoding="utf-8") for path in (ROOT / "src" / "neuronwise").rglob("*.py")]
    assert {name for text in code for name in NAMED.findall(text)} == set(nw.schemas())


@pytest.mark.parametrize("name", sorted(nw.schemas()))
def test_a_schema_says_its_name_and_what_must_be_there(name: str) -> None:
    content = nw.schemas()[name]
    Draft202012Validator.check_schema(content)
    assert not Draft202012Validator(content).is_valid({"schema": name})
    others = [other for other in nw.schemas() if Draft202012Validator(content["properties"]["schema"]).is_valid(other)]  # type: ignore[index]
    assert others == [name]


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_prints_follows_its_schema(name: str, tiny_folder: Path) -> None:
    command = [tiny_folder if part == "MODEL" else part for part in COMMANDS[name]]
    content = validated(json.loads(shell(*command, "--json").stdout))
    assert content["schema"] == f"neuronwise.{name}"
    for field in nw.schemas()[content["schema"]]["required"]:  # type: ignore[union-attr]
        if field != "schema":
            with pytest.raises(ValidationError, match=field):
                validated({key: value for key, value in content.items() if key != field})


def test_what_the_package_writes_against_its_schema_is_refused(tmp_path: Path) -> None:
    found = nw.NeuronSet((nw.ScoredNeuron(nw.Neuron(1, 2), 0.5),), {"model": 5})  # its name is a text
    with guarded(), pytest.raises(ValidationError, match="5 is not of type 'string'"):
        found.save(tmp_path / "set.json")
    with guarded(), pytest.raises(AssertionError, match="has no JSON Schema"):
        validated({"schema": "neuronwise.none/1"})
