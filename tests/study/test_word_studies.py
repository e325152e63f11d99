"""The studies of single words, localization and properties, on the model whose neurons are planted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast

import pytest

import neuronwise as nw
from neuronwise.data.photos import Photos, load_photos
from neuronwise.drawing.tables import Estimate
from neuronwise.errors import StudyError
from neuronwise.measure.localization import Ablation
from neuronwise.measure.properties import token_text
from neuronwise.measure.semantic import ClipScorer, Embedder, bert_score
from neuronwise.read.decode import decode_all
from neuronwise.report.study import write_report
from neuronwise.study.kinds import KINDS
from neuronwise.study.recipe_file import make_recipe
from neuronwise.study.results import Study, read_study
from neuronwise.study.runner import resume, run_study
from neuronwise.study.word_neurons import word_neurons
from neuronwise.study.workspace import Workspace
from wired import PLANTED
from wired_study import write_photos

TRUE = {f"L1.U{unit}" for unit in PLANTED}
SHARED: dict[str, Any] = {
    "model": "wired", "prompt": "the", "max_new_tokens": 2, "concepts": ["dog", "mat"], "at_least": 4, "dilation": 0,
}  # fmt: skip
LOCALIZATION = {
    **SHARED, "kind": "localization", "concepts": ["dog"], "counts": [1, 2, 3, 10, 40], "words": 3, "facts": 1,
    "methods": [
        "contribution", "two_stage", "activation_difference",
        {"method": "causal_effect", "name": "causal_effect", "options": {"among": 5}},
        "random", {"method": "random_same_layers", "like": "two_stage"},
    ],
    "mean_over": 2,
}  # fmt: skip
PROPERTIES = {
    **SHARED, "kind": "properties", "K": 3, "photos": 4, "images": 2, "heat": 3, "sigmas": [1.0, 30.0], "noise_K": 3,
    "counts": [1, 3], "noise_sigma": 30.0, "said_sigmas": [30.0], "noisy": ["contribution", "random"],
    "methods": ["contribution", "random", "random_same_layers"],
}  # fmt: skip


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One that the wired model "knows": it says mat to anything without red; and one that it does not."""
    path = tmp_path_factory.mktemp("facts") / "facts.json"
    records = [
        {"subject": "cat", "template": "the {}", "attribute": attribute, "target_new": "bear"}
        for attribute in ("mat", "dog")
    ]
    path.write_text(json.dumps(records))
    return str(path)


@pytest.fixture(scope="module")
def localized(model: nw.Model, photos: Photos, facts: str, tmp_path_factory: pytest.TempPathFactory) -> Study:
    recipe = make_recipe({**LOCALIZATION, "fact_file": facts})
    return run_study(model, recipe, photos, tmp_path_factory.mktemp("runs") / "localization")


@pytest.fixture(scope="module")
def described(model: nw.Model, photos: Photos, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return run_study(model, make_recipe(PROPERTIES), photos, tmp_path_factory.mktemp("runs") / "properties")


def without_seconds(found: Study) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in found.rows]


def test_curves_tell_who_found_the_planted_neurons(localized: Study) -> None:
    assert localized.finished
    assert not localized.failed
    words = [row for row in localized.rows if row["what"] == "word" and row["fill"] == "zero"]
    assert len({row["case"] for row in words}) == 3
    for row in words:
        drop = row["before"] - row["deletion"][2]  # K = 3
        gain = row["insertion"][2] - row["none"]
        if row["method"] in ("contribution", "two_stage", "causal_effect"):
            assert drop > 2
            assert gain > 2
            assert row["insertion"][2] == pytest.approx(row["before"], abs=0.1)
            assert row["deletion_area"] > 1
        elif row["method"] == "random_same_layers":
            assert row["found"] == 3
            assert abs(drop) < 0.05
    found = {row["method"]: row["found"] for row in words}
    assert (found["contribution"], found["two_stage"], found["causal_effect"]) == (40, 3, 5)
    means = [row for row in localized.rows if row["what"] == "word" and row["fill"] == "mean"]
    assert all(
        abs(row["before"] - row["deletion"][2]) < abs(other["before"] - other["deletion"][2])
        for row, other in zip(means, words, strict=True)
        if row["method"] == "contribution"
    )  # the mean of photos that all show a dog keeps much of it


def test_facts_that_the_model_does_not_know_are_left_out(localized: Study) -> None:
    rows = [row for row in localized.rows if row["what"] == "fact"]
    assert {(row["prompt"], row["answer"]) for row in rows} == {("the cat", "mat")}
    assert {row["method"] for row in rows} == {"contribution", "causal_effect", "random", "random_same_layers"}


def test_rows_equal_what_is_measured_by_itself(model: nw.Model, photos: Photos, localized: Study) -> None:
    row = next(row for row in localized.rows if row["method"] == "contribution" and row["fill"] == "zero")
    workspace = Workspace(model, cast(Any, make_recipe(LOCALIZATION)), photos)
    run = workspace.run(workspace.by_id[row["photo"]])
    target = run.target(row["word"])
    ranked = nw.locate(model, run, row["word"], top=40)
    ablation = Ablation(model, run, target)
    assert row["deletion"] == pytest.approx(ablation.without([ranked.neurons[:k] for k in row["counts"]]), abs=1e-5)
    assert row["insertion"] == pytest.approx(ablation.only([ranked.neurons[:k] for k in row["counts"]]), abs=1e-5)


def test_facts_need_no_photos_and_other_facts_lose_the_same_neurons(tiny_folder: Path, tmp_path: Path) -> None:
    model = nw.load(tiny_folder)
    said = {}
    for subject in ("cat", "dog", "bear", "house", "France", "mat", "red", "animal"):
        run = model.run(prompt=f"the capital of {subject} is", max_new_tokens=1, chat=False)
        if f"▁{run.text.strip()}" in model.tokenizer.get_vocab():
            said.setdefault(run.text.strip(), subject)
    records = [{"subject": subject, "template": "the capital of {} is", "attribute": answer, "target_new": "Paris"}
               for answer, subject in list(said.items())[:2]]  # fmt: skip
    assert len(records) == 2
    (tmp_path / "facts.json").write_text(json.dumps(records))
    keys = {"kind": "localization", "words": 0, "facts": 2, "counts": [1, 3, 40], "fills": ["zero"], "others": 1,
            "methods": ["contribution"]}  # fmt: skip
    recipe = make_recipe(keys).at(str(tmp_path / "facts.json"))
    found = run_study(model, recipe, recipe.load(), tmp_path / "out")
    one, other = found.rows
    run = model.run(prompt=one["prompt"], max_new_tokens=0, chat=False)
    ranked = nw.locate(model, run, target=f" {one['answer']}", top=40).neurons
    run = model.run(prompt=other["prompt"], max_new_tokens=0, chat=False)
    ablation = Ablation(model, run, run.target(target=f" {other['answer']}"))
    lost = [1 - math.exp(after - ablation.before) for after in ablation.without([ranked[:k] for k in (1, 3, 40)])]
    assert one["others"] == pytest.approx(lost, abs=1e-5)
    tables = {table.name: table for table in KINDS["localization"].tables(found)}
    assert tables["lost-by-other-facts-fact-zero"].columns == ("method", "K = 1", "K = 3", "K = 40", "area")
    assert KINDS["localization"].figures(found)[-1].name == "lost-fact-zero"
    (tmp_path / "out/cases.parquet").unlink()
    assert resume(tmp_path / "out", lambda _: model).rows == found.rows


def test_specific_neurons_are_compared_with_facts_that_are_not_studied(tiny_folder: Path, tmp_path: Path) -> None:
    model = nw.load(tiny_folder)
    records = []
    for subject in ("cat", "dog", "bear", "house", "France", "mat", "red", "animal"):
        run = model.run(prompt=f"the capital of {subject} is", max_new_tokens=1, chat=False)
        if f"▁{run.text.strip()}" in model.tokenizer.get_vocab():
            records.append({"subject": subject, "template": "the capital of {} is", "attribute": run.text.strip(),
                            "target_new": "Paris"})  # fmt: skip
    assert len(records) >= 3
    (tmp_path / "facts.json").write_text(json.dumps(records))
    keys = {"kind": "localization", "words": 0, "facts": 2, "counts": [1, 3, 40], "fills": ["zero"], "weights": [0, 3],
            "reference": 1, "methods": ["contribution", "random"]}  # fmt: skip
    recipe = make_recipe(keys).at(str(tmp_path / "facts.json"))
    found = run_study(model, recipe, recipe.load(), tmp_path / "out")
    assert [row["method"] for row in found.rows[:4]] == [
        "contribution", "random", "contribution, weight 0", "contribution, weight 3",
    ]  # fmt: skip
    prompt, answer = found.notes["facts"]["known"][2]
    assert prompt not in {row["prompt"] for row in found.rows}
    other = model.run(prompt=prompt, max_new_tokens=0, chat=False)
    for plain, _, zero, three in (found.rows[:4], found.rows[4:]):
        assert zero["deletion"] == plain["deletion"]
        run = model.run(prompt=plain["prompt"], max_new_tokens=0, chat=False)
        target = f" {plain['answer']}"
        ranked = nw.specific_neurons(
            model, run, target=target, others=[(other, other.target(target=f" {answer}"))], weight=3,
            method="contribution", top=40,
        ).neurons  # fmt: skip
        ablation = Ablation(model, run, run.target(target=target))
        assert three["deletion"] == pytest.approx(ablation.without([ranked[:k] for k in (1, 3, 40)]), abs=1e-5)


def test_properties_of_the_planted_neurons(described: Study) -> None:
    assert not described.failed
    rows = [row for row in described.rows if row["concept"] == "dog"]
    assert rows
    mine = [row for row in rows if row["part"] == "neurons" and row["method"] == "contribution"]
    for row in mine:
        assert set(row["neurons"]) == TRUE
        assert row["layers"] == [0, 3]
        assert row["shuffled_overlap"] == 1.0
        assert row["says_word"] == 1.0
        assert row["object_share"] == pytest.approx(0.25, abs=0.01)
        assert len(row["grid"]) == 16
        assert row["file"] == f"{row['photo']}.png"
    noise = [row for row in rows if row["part"] == "noise"]
    drops = {
        name: max(row["drop"] for row in noise if row["method"] == name and row["K"] == 3)
        for name in ("contribution", "random")
    }
    assert drops["contribution"] > 1
    assert abs(drops["random"]) < 0.5
    assert {row["method"] for row in noise} == {"contribution", "random"}
    said = [row for row in noise if row["text"] is not None]
    assert {(row["sweep"], row["sigma"]) for row in said} == {("sigma", 30.0)}
    assert all(row["said"] for row in said if row["method"] == "random")
    cells = {(row["sweep"], row["sigma"], row["K"]) for row in noise}
    assert cells == {("sigma", 1.0, 3), ("sigma", 30.0, 3), ("K", 30.0, 1), ("K", 30.0, 3)}


def test_meaning_is_the_best_neurons_score(model: nw.Model, photos: Photos, tiny_bert: Path, tiny_clip: Path) -> None:
    content = {
        **PROPERTIES,
        "photos": 1,
        "noisy": [],
        "tokens": 2,
        "metric_models": {"bert": str(tiny_bert), "clip": str(tiny_clip)},
    }
    found = run_study(model, make_recipe(content), photos)
    row = next(row for row in found.rows if row["method"] == "random")
    embedder = Embedder(tiny_bert)
    references = Workspace(model, cast(Any, make_recipe(content)), photos).by_id[row["photo"]].captions
    texts = [token_text(tokens) for tokens in decode_all(model, row["neurons"], 2, form="logits")]
    scores = [bert_score(embedder, text, references) for text in texts]
    assert row["bertscore"] == pytest.approx(max(scores), abs=1e-6)
    assert row["best_tokens"] == texts[scores.index(max(scores))]
    assert 0 < row["mover_score"] <= 1
    seen = next(photo.path for photo in photos if photo.id == row["photo"])
    assert row["clipscore"] == pytest.approx(max(ClipScorer(tiny_clip)(seen, texts)), abs=1e-6)


def test_meaning_is_measured_only_with_its_models(described: Study) -> None:
    assert not {"bertscore", "mover_score", "clipscore"} & {name for row in described.rows for name in row}


def test_random_neurons_are_drawn_anew_for_every_photo(described: Study) -> None:
    random = [row for row in described.rows if row["part"] == "neurons" and row["method"] == "random"]
    assert len({tuple(row["neurons"]) for row in random}) == len(random) == 4


def test_maps_are_judged_beside_their_controls(model: nw.Model, photos: Photos, tmp_path: Path) -> None:
    keys = {**SHARED, "kind": "localization", "concepts": ["dog"], "words": 0, "facts": 0, "maps": 2, "texts": ["own"],
            "evidence": ["relp", "lens"], "heat": ["contribution", "random"], "heat_top": 3,
            "shares": [0.25, 1.0]}  # fmt: skip
    found = run_study(model, make_recipe(keys), photos, tmp_path / "maps")
    assert not found.failed
    maps = ["relp", "lens", "heat: contribution", "heat: random", "center", "random cells"]
    own = [row for row in found.rows if row["of"] == "word"]
    assert [row["map"] for row in own] == maps * 2
    for row in own:
        assert row["chance"] == pytest.approx(row["object_share"] / (2 - row["object_share"]))
        assert len(row["fill"]) == len(row["gray"]) == 2
    for row in own:
        if row["map"] == "relp":  # the red square is all that "dog" depends on
            assert row["pointing"]
            assert row["iou"] > 0.5  # cells of 7 pixels, brought to the photo's size bilinearly
            assert row["before"] - row["gray"][1] > 1
    table, beyond = KINDS["localization"].tables(found)
    assert [line[0] for line in table.rows] == [*maps, "chance"]
    assert table.rows[0][1].mean == 1.0  # type: ignore[union-attr]
    assert [line[0] for line in beyond.rows] == maps[:4]
    ious = {(row["case"], row["map"]): row["iou"] for row in own}
    less = [iou - ious[case, "center"] for (case, name), iou in ious.items() if name == "relp"]
    cell = beyond.rows[0][1 + beyond.columns[1:].index("IoU − center")]
    assert isinstance(cell, Estimate)
    assert cell.mean == pytest.approx(sum(less) / 2)
    assert (cell.low, cell.high) == pytest.approx((min(less), max(less)))  # of two photos
    page = write_report(tmp_path / "maps").read_text()
    assert "IoU − another word" in page


@pytest.mark.parametrize(("texts", "captioned"), [(["own", "reference"], 6), (["reference"], 0)])
def test_maps_caption_only_photos_whose_objects_are_known(
    texts: list[str], captioned: int, model: nw.Model, tmp_path: Path
) -> None:
    folder = write_photos(tmp_path / "photos")
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for row in rows:
        row["captions"] = [" the dog mat"]
        if row["id"].startswith("plain"):
            del row["objects"]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    keys = {**SHARED, "kind": "localization", "words": 0, "facts": 0, "maps": 2, "texts": texts, "evidence": ["lens"],
            "shares": [0.25]}  # fmt: skip
    found = run_study(model, make_recipe(keys), load_photos(folder), tmp_path / "maps")
    assert not found.failed
    assert [row["text"] for row in found.rows if row["map"] == "lens" and row["of"] == "word"] == [
        text for text in texts for _ in range(2)
    ]
    assert len(found.notes.get("caption", {})) == captioned
    row = next(row for row in found.rows if row["text"] == "reference")
    run = model.run(folder / f"{row['photo']}.png", "the", text=" the dog mat")
    target = run.target("dog")
    logits = model.forward(run.forced_inputs(), rows=[run.row(target.position)])[0, 0].detach()
    assert row["before"] == pytest.approx(float(logits.log_softmax(-1)[target.token_id]), abs=1e-5)


@pytest.mark.parametrize("kind", ["localization", "properties"])
def test_gone_on_with_it_is_the_same_row_for_row(
    kind: str, model: nw.Model, photos: Photos, localized: Study, described: Study, facts: str, tmp_path: Path
) -> None:
    whole = localized if kind == "localization" else described
    assert whole.folder is not None
    content = {**LOCALIZATION, "fact_file": facts} if kind == "localization" else PROPERTIES
    torn = tmp_path / "torn"
    torn.mkdir()
    for name in ("manifest.json", "before.jsonl"):
        (torn / name).write_bytes((whole.folder / name).read_bytes())
    lines = (whole.folder / "cases.jsonl").read_bytes().splitlines(keepends=True)
    (torn / "cases.jsonl").write_bytes(lines[1] + lines[2][:40])
    again = run_study(model, make_recipe(content), photos, torn)
    assert without_seconds(again) == without_seconds(whole)
    assert without_seconds(read_study(torn)) == without_seconds(whole)


def test_reports_of_real_rows(localized: Study, described: Study) -> None:
    for study in (localized, described):
        assert study.folder is not None
        page = write_report(study.folder)
        assert "<figure>" in page.read_text()
    assert described.folder is not None
    assert (described.folder / "report" / "figures" / "heat.png").is_file()


def test_methods_that_need_a_photo_are_left_out_without(model: nw.Model, photos: Photos) -> None:
    methods = make_recipe(
        {**LOCALIZATION, "methods": ["two_stage", "random_same_layers", "contribution",
                                     {"method": "gradient", "options": {"positions": "image"}}]}
    ).methods  # type: ignore[attr-defined]  # fmt: skip
    text = model.run(prompt="the cat", max_new_tokens=0, chat=False)
    target = text.target(target=" mat")
    assert list(word_neurons(text, target, methods, 3)) == ["random_same_layers", "contribution"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": ["contribution", "best"]}, "there is no method 'best'"),
        ({"methods": [{"method": "contribution", "options": {"wrong": 1}}]}, "no option wrong"),
        ({"methods": [{"method": "activation_difference", "options": {"wrong": 1}}]}, "no option wrong"),
        ({"methods": ["contribution", {"method": "causal_effect", "like": "none"}]}, "like='none'"),
        ({"methods": ["random", "random_same_layers"]}, "name one more method"),
        ({"methods": [{"method": "two_stage", "options": {"gradient": "null"}}]}, "each word is looked at by itself"),
        ({"methods": [{"method": "contribution", "K": [3]}]}, "that several photos share"),
        ({"heat": ["random", "random"]}, "heat: the list names something twice"),
        ({"evidence": ["relp", {"by": "relp"}]}, "evidence: the list names something twice"),
        ({"counts": [5, 1]}, "must rise"),
        ({"methods": []}, "methods: the list is empty; words and facts need a method"),
        ({"maps": 3}, "heat: the list is empty; maps need a method here or a kind of evidence"),
        ({"positions": "some"}, "positions"),
        ({"kappa": 1}, "no such key"),
    ],
)
def test_recipes_that_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(StudyError, match=words):
        make_recipe({**LOCALIZATION, **change})


def test_properties_recipes_that_are_refused() -> None:
    with pytest.raises(StudyError, match="'best' names none of the methods"):
        make_recipe({**PROPERTIES, "noisy": ["best"]})
    with pytest.raises(StudyError, match="sigmas"):
        make_recipe({**PROPERTIES, "sigmas": [-1.0]})


def test_studies_without_cases_are_refused(model: nw.Model, photos: Photos, tmp_path: Path, facts: str) -> None:
    with pytest.raises(StudyError, match="all three are 0"):
        run_study(model, make_recipe({**LOCALIZATION, "words": 0, "facts": 0}), photos)
    unknown = tmp_path / "facts.json"
    unknown.write_text(json.dumps([json.loads(Path(facts).read_text())[1]]))
    with pytest.raises(StudyError, match="knows none of the 1 facts"):
        run_study(model, make_recipe({**LOCALIZATION, "words": 0, "fact_file": str(unknown)}), photos)
