"""The study of circuits, on facts that a tiny model answers itself and on words of the model with planted neurons."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import neuronwise as nw
from neuronwise.errors import StudyError
from neuronwise.report.study import write_report
from neuronwise.study.kind import Study
from neuronwise.study.kinds import KINDS
from neuronwise.study.recipe_file import make_recipe
from neuronwise.study.runner import run_study

METHODS = ["relp", "gradient_activation", "attribution_patching", "eap_ig", "contribution", "integrated_gradients",
           "random"]  # fmt: skip


@pytest.fixture(scope="module")
def facts(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    model = nw.load(tiny_folder)
    records = []
    for subject in ("cat", "dog", "bear", "house", "France", "mat", "red", "animal"):
        run = model.run(prompt=f"the capital of {subject} is", max_new_tokens=1, chat=False)
        if f"▁{run.text.strip()}" in model.tokenizer.get_vocab():
            records.append({"subject": subject, "template": "the capital of {} is", "attribute": run.text.strip(),
                            "target_new": "Paris"})  # fmt: skip
    folder = tmp_path_factory.mktemp("circuits")
    (folder / "facts.json").write_text(json.dumps(records))
    recipe = make_recipe({"kind": "circuits", "words": 0, "facts": 3, "counts": [1, 10, 100], "contrast": 3,
                          "fills": ["mean", "zero", "twin"], "methods": METHODS})  # fmt: skip
    recipe = recipe.at(str(folder / "facts.json"))
    return run_study(model, recipe, recipe.load(), folder / "out")


def test_one_row_for_each_method_and_fill(facts: Study) -> None:
    assert facts.finished
    assert not facts.failed
    for case in {row["case"] for row in facts.rows}:
        rows = [row for row in facts.rows if row["case"] == case]
        other = rows[0]["counterfactual"]
        names = [name for name in METHODS if other or name not in ("attribution_patching", "eap_ig")]
        fills = ("mean", "zero", "twin") if other else ("mean", "zero")
        assert [(row["method"], row["fill"]) for row in rows] == [(n, f) for f in fills for n in names]
        assert other is None or (other != rows[0]["prompt"] and len(other.split()) == len(rows[0]["prompt"].split()))
        assert len({(row["fill"], row["whole"], row["nothing"]) for row in rows}) == len(fills)
    assert any(row["counterfactual"] for row in facts.rows)


def test_its_tables_are_ratios_of_means(facts: Study) -> None:
    tables = {table.name: table for table in KINDS["circuits"].tables(facts)}
    assert tables["faithfulness-fact-mean"].columns == ("method", "K = 1", "K = 10", "K = 100", "cases")
    own = [row for row in facts.rows if row["method"] == "relp" and row["fill"] == "mean"]
    span = sum(row["whole"] - row["nothing"] for row in own)
    for name, part in (("faithfulness", "kept"), ("completeness", "left")):
        cell = tables[f"{name}-fact-mean"].rows[0][2]
        assert cell.mean == pytest.approx(sum(row[part][1] - row["nothing"] for row in own) / span)  # type: ignore[union-attr]
    assert tables["differences-fact-zero"].rows[0][0] == "gradient_activation"
    assert {"areas-fact-mean", "areas-fact-zero"} <= set(tables)
    assert facts.folder is not None
    assert "<figure>" in write_report(facts.folder).read_text()


def test_recipes_that_cannot_be_are_refused() -> None:
    good = {"kind": "circuits", "methods": ["relp"]}
    for change, words in (
        ({"counts": [5, 2]}, "each above the last"),
        ({"methods": ["two_stage"]}, "ranks no circuit"),
        ({"fills": ["median"]}, "fills"),
    ):
        with pytest.raises(StudyError, match=words):
            make_recipe({**good, **change})
