"""The folder of a study: another recipe, other files, damage, columns that rows lack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from neuronwise.errors import StudyError
from neuronwise.study import Store
from neuronwise.study.store import read_cases


def test_a_folder_resumes_with_its_own_recipe_only(tmp_path: Path) -> None:
    recipe: dict[str, Any] = {"editor": "fine", "changes": {"n": 5}, "layers": (1, 2)}
    with Store(tmp_path / "out", "test/1", recipe, data={"source": "a.json"}) as store:
        store.cases.extend([{"id": "a"}])
    held = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(StudyError, match=r"begun with changes=\{'n': 5\}, not \{'n': 6\}"):
        Store(tmp_path / "out", "test/1", {**recipe, "changes": {"n": 6}})
    with pytest.raises(StudyError, match="'test/1'"):
        Store(tmp_path / "out", "test/2", recipe)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == held
    with Store(tmp_path / "out", "test/1", recipe, data={"source": "moved.json"}) as store:
        assert list(store.cases.read(store.cases)) == [{"id": "a"}]


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StudyError, match="other files"):
        Store(tmp_path, "test/1", {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(StudyError, match="cannot be made"):
        Store(tmp_path / "thesis.tex" / "out", "test/1", {})


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    with Store(tmp_path / "out", "test/1", {}):
        pass
    (tmp_path / "out" / "manifest.json").write_text(json.dumps({"schema": "test/1"})[:-3])
    with pytest.raises(StudyError, match="damaged"):
        Store(tmp_path / "out", "test/1", {})


def test_a_table_has_null_where_a_row_lacks_a_column(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with Store(tmp_path / "out", "test/1", {}) as store:
        store.write_table(lambda: [{"id": "a", "x": 0.5}, {"id": "b", "y": "ü"}])
    assert parquet.read_table(tmp_path / "out" / "cases.parquet").to_pylist() == [
        {"id": "a", "x": 0.5, "y": None}, {"id": "b", "x": None, "y": "ü"},
    ]  # fmt: skip


def test_a_line_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    with Store(tmp_path / "out", "test/1", {}) as store:
        store.cases.extend([{"id": f"c{number}", "x": number} for number in range(4)])
    cases = tmp_path / "out" / "cases.jsonl"
    lines = cases.read_text().splitlines(keepends=True)
    cases.write_text("".join([*lines, lines[1], lines[1]]))
    assert [row["id"] for row in read_cases(tmp_path / "out")] == ["c0", "c1", "c2", "c3"]
    with Store(tmp_path / "out", "test/1", {}) as store:
        assert len(store.cases) == 4
        store.cases.extend([{"id": "c4"}])
    assert len(read_cases(tmp_path / "out")) == 5
    cases.write_text("".join([*lines, lines[1].replace("1}", "7}")]))
    for read in (lambda: read_cases(tmp_path / "out"), lambda: Store(tmp_path / "out", "test/1", {})):
        with pytest.raises(StudyError, match="two results of the case 'c1'"):
            read()
