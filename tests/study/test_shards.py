"""A study in shards: together they are the study run as a whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import neuronwise as nw
from neuronwise.data.photos import Photos
from neuronwise.errors import StudyError
from neuronwise.study.kind import Study, Unit
from neuronwise.study.recipe_file import make_recipe
from neuronwise.study.results import read_study
from neuronwise.study.runner import resume, run_study
from neuronwise.study.shards import Shard, merge
from neuronwise.study.store import read_before
from neuronwise.study.workspace import Workspace
from shell import shell
from wired_study import RECIPE

OF = 3
Dealt = dict[str, list[Unit]]


def without_seconds(study: Study) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if not name.startswith("seconds")} for row in study.rows]


@given(st.lists(st.sampled_from("abcdef"), max_size=30), st.integers(1, 8))
def test_every_unit_is_in_one_shard(routes: list[str], of: int) -> None:
    units = [Unit((str(number),), route) for number, route in enumerate(routes)]
    dealt = [Shard(number, of).chosen(units) for number in range(1, of + 1)]
    assert sorted((unit for part in dealt for unit in part), key=lambda unit: int(unit.cases[0])) == units
    assert all(part == [unit for unit in units if unit in part] for part in dealt)  # in their order
    if len(set(routes)) >= of:
        assert sum(len({unit.route for unit in part}) for part in dealt) == len(set(routes))  # none is split


@pytest.fixture(scope="module")
def whole(model: nw.Model, photos: Photos, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return run_study(model, make_recipe(RECIPE), photos, tmp_path_factory.mktemp("whole") / "out")


@pytest.fixture(scope="module")
def parts(model: nw.Model, photos: Photos, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    for number in range(1, OF + 1):
        part = run_study(model, make_recipe(RECIPE), photos, folder / str(number), shard=f"{number}/{OF}")
        assert part.finished
        assert 0 < part.cases < 4
    return [folder / str(number) for number in range(1, OF + 1)]


def test_shards_together_are_the_whole(whole: Study, parts: list[Path], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    found = merge([parts[2], parts[0], parts[1]], tmp_path / "out")
    assert whole.folder is not None
    assert without_seconds(found) == without_seconds(whole)
    assert found.notes == whole.notes
    assert found.finished
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "manifest.json", "before.jsonl", "cases.jsonl", "cases.parquet",
    }  # fmt: skip
    one, other = ((folder / "cases.jsonl").read_text().splitlines() for folder in (tmp_path / "out", whole.folder))
    assert [json.loads(line)["id"] for line in one] == [json.loads(line)["id"] for line in other]
    tables = [parquet.read_table(folder / "cases.parquet") for folder in (tmp_path / "out", whole.folder)]
    assert tables[0].drop_columns(["seconds"]).equals(tables[1].drop_columns(["seconds"]))
    assert json.loads((tmp_path / "out/manifest.json").read_text()) == whole.manifest


def test_shards_side_by_side_ask_for_each_caption_once(
    model: nw.Model, photos: Photos, whole: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    caption = Workspace._caption

    def counted(self: Workspace[Any], ids: Any) -> None:
        asked.extend(name for name in ids if not self._notes.holds("caption", name))
        caption(self, ids)
        other = tmp_path / "parts/2"
        if len(asked) == 2 and not other.exists():  # another one notes what it has asked; a last line is under way
            other.mkdir()
            manifest = json.loads((tmp_path / "parts/1/manifest.json").read_text())
            (other / "manifest.json").write_text(json.dumps({**manifest, "shard": "2/3"}))
            lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
            (other / "before.jsonl").write_text("".join(lines[2:5]) + lines[5][:20])

    assert whole.folder is not None
    captions = [x for x in (whole.folder / "before.jsonl").read_text().splitlines(keepends=True) if '"caption"' in x]
    (tmp_path / "whole.jsonl").write_text("".join(captions))
    monkeypatch.setattr(Workspace, "_caption", counted)
    monkeypatch.setattr(Workspace, "_portion", 1)
    part = run_study(model, make_recipe(RECIPE), photos, tmp_path / "parts/1", shard="1/3")
    known = [json.loads(line)["key"] for line in captions]
    assert asked == [name for name in known if name not in known[2:5]]
    assert {row["key"]: row["value"] for row in read_before(tmp_path / "parts/1").rows if row["part"] == "caption"} == {
        row["key"]: row["value"] for row in map(json.loads, captions)
    }
    assert part.rows
    assert all(row in without_seconds(whole) for row in without_seconds(part))
    asked.clear()
    stranger = make_recipe({**RECIPE, "seed": 7})
    run_study(model, stranger, photos, tmp_path / "parts/3", shard="3/3")
    first = 2 * len(known) // 3
    assert asked == [*known[first:], *known[:first]]


def test_a_shard_resumes_as_that_shard(model: nw.Model, photos: Photos, parts: list[Path], tmp_path: Path) -> None:
    torn = shutil.copytree(parts[0], tmp_path / "torn")
    (torn / "cases.jsonl").write_bytes(b"")
    (torn / "cases.parquet").unlink()
    assert without_seconds(resume(torn, lambda _: model)) == without_seconds(read_study(parts[0]))
    with pytest.raises(StudyError, match="holds shard 1/3 of this study, not shard 2/3; name a new folder"):
        run_study(model, make_recipe(RECIPE), photos, torn, shard="2/3")
    with pytest.raises(StudyError, match="holds shard 1/3 of this study, not the whole; name a new folder"):
        run_study(model, make_recipe(RECIPE), photos, torn)
    with pytest.raises(StudyError, match=r"A shard is written 3/16, .* not '4/3'"):
        run_study(model, make_recipe(RECIPE), photos, tmp_path / "none", shard="4/3")
    assert not (tmp_path / "none").exists()


def test_what_does_not_make_a_whole_is_one_sentence(
    model: nw.Model, photos: Photos, whole: Study, parts: list[Path], tmp_path: Path
) -> None:
    def changed(part: Path, name: str, old: str, new: str) -> Path:
        copy = shutil.copytree(part, tmp_path / f"{part.name}-{len(list(tmp_path.iterdir()))}")
        text = (copy / name).read_text()
        assert old in text
        (copy / name).write_text(text.replace(old, new))
        return copy

    one, two, three = parts
    half = shutil.copytree(two, tmp_path / "half")
    (half / "cases.jsonl").write_bytes(b"")
    other = changed(three, "manifest.json", '"seed": 0', '"seed": 1')
    for wrong, said in (
        ([one, three], "Shard 2/3 is missing; run what is missing"),
        ([two], "Shards 1/3, 3/3 are missing; run what is missing"),
        ([one, two, three, two], "Shard 2/3 is there twice"),
        ([one, half, three], r"Shard 2/3 in .* has 0 of 1 cases; finish it first"),
        ([one, two, other], "begun with seed=1, not 0"),
        ([one, two, changed(three, "manifest.json", '"3/3"', '"3/4"')], "they do not belong together"),
        ([one, two, whole.folder], "is not a shard: it was begun without --shard"),
        ([one, two, tmp_path / "nowhere"], "holds no study"),
        ([one, two, changed(three, "before.jsonl", '"output_ids": [', '"output_ids": [1, ')], "differ in what they"),
        ([one, two, changed(three, "before.jsonl", '"ids": ["', '"ids": [1, "')], "before.jsonl' is damaged"),
        ([one, two, changed(three, "cases.jsonl", '"seconds": ', '"seconds": [], "was": ')], "do not make one table"),
        ([one, two, changed(three, "cases.jsonl", '"inputs": ', '"put": ')], "do not make one table"),
    ):
        with pytest.raises(StudyError, match=said):
            merge([part for part in wrong if part is not None], tmp_path / "out")
        assert not (tmp_path / "out").exists()
    done = shell("study", "merge", one, three, "--out", tmp_path / "out", expect=2)
    assert "Shard 2/3 is missing" in done.stderr
    assert "4 of 4 cases" in shell("study", "merge", *parts, "--out", tmp_path / "out").stdout
    with pytest.raises(StudyError, match="is there already"):
        merge(parts, tmp_path / "out")
