"""The example notebooks run as they are, and hold small outputs, so that they render without being run.

python -m pytest -m notebook
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from scripts import scripts_of

with scripts_of("tools") as script:
    notebooks = script("notebooks")
ALL = sorted(notebooks.NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.notebook
@pytest.mark.builtin
@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    notebooks.executed(path, tmp_path)  # raises where a cell fails


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_notebook_renders_without_being_run(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert path.stat().st_size < notebooks.LARGEST
    assert all(cell["execution_count"] == number for number, cell in enumerate(code, 1)), "run tools/notebooks.py"
    assert len(outputs) >= 5
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert not re.search(r"/(home|root|work|Users)/", path.read_text(encoding="utf-8"))


def test_there_are_five_and_what_they_link_to_is_there() -> None:
    assert [path.name[0] for path in ALL] == list("12345")
    for path in ALL:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for link in re.findall(r"\]\((?!\w+:)([^)#]+)", "".join(cell["source"])):
                assert (path.parent / link).exists(), (path.name, link)
