"""A short fuzz of the shell and the library, the same inputs every time; ``make fuzz`` tries as many as wanted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzz_areas import AREAS, PATIENT
from fuzz_shell import OPTIONS, WORKING
from fuzz_world import World, quiet_home
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fact_records import RECORDS
from neuronwise.data.facts import FORMS

EACH = 6  # inputs of an area
REFUSED = ("convert",)  # the checkpoint is no MiniGPT-4


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, tiny_tokenizer: Any) -> Iterator[World]:
    """Everything that is tried is in one folder."""
    folder = tmp_path_factory.mktemp("world")
    with quiet_home(folder):
        yield World(folder, tiny_folder, tiny_tokenizer)


def test_the_commands_that_are_spoiled_work_as_they_are(world: World, tmp_path: Path) -> None:
    for name, (argv, files) in WORKING.items():
        accepted = world.judge.accepted
        with world.fresh(tmp_path, *files):
            world.judge.shell(*argv, "--json")
        assert world.judge.accepted == accepted + (name not in REFUSED), name


def test_every_command_and_every_form_of_facts_is_tried() -> None:
    tried = {" ".join(argv[:2]) for argv, _ in WORKING.values()} | {argv[0] for argv, _ in WORKING.values()}
    assert set(OPTIONS) <= tried
    assert set(FORMS) <= set(RECORDS)


@pytest.mark.parametrize("name", AREAS)
def test_what_is_given_is_taken_or_refused_in_one_line(name: str, world: World, tmp_path: Path) -> None:
    @settings(
        max_examples=EACH,
        phases=[Phase.generate],
        suppress_health_check=PATIENT,
    )
    @given(st.data())
    def tried(data: st.DataObject) -> None:
        AREAS[name](data, world, tmp_path)

    tried()
