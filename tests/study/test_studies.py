"""The suppression study on a model whose truth is planted, and what the runner does with bad photos, folders, disks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import neuronwise as nw
from neuronwise.data.photos import Photos, load_photos
from neuronwise.errors import MethodError, NeuronwiseError, StudyError
from neuronwise.measure.score import suppression_score
from neuronwise.measure.semantic import ClipScorer, Embedder, bert_score, mover_score
from neuronwise.study.kind import Case, Study
from neuronwise.study.kinds import KINDS
from neuronwise.study.photo_study import photo_kind
from neuronwise.study.recipe_fields import PhotoRecipe
from neuronwise.study.recipe_file import make_recipe
from neuronwise.study.results import read_study
from neuronwise.study.runner import resume, run_study
from neuronwise.study.workspace import Workspace
from wired import DECOYS, PLANTED
from wired_study import PLACES, RECIPE, write_photos

EXACTLY = sorted([1, unit] for unit in PLANTED)


def of(found: Study, method: str, role: str | None = None, **columns: Any) -> list[Any]:
    wanted = {"method": method, **({} if role is None else {"role": role}), **columns}
    return [row for row in found.rows if all(row[column] == value for column, value in wanted.items())]


def mean(rows: list[Any], column: str) -> float:
    return sum(row[column] for row in rows) / len(rows)


@pytest.fixture(scope="module")
def found(model: nw.Model, photos: Photos, tmp_path_factory: pytest.TempPathFactory) -> Study:
    methods = [*RECIPE["methods"], "activation"]
    recipe = {**RECIPE, "K": [3, 5, "found"], "methods": methods, "interventions": ["suppress", "mean_ablate"]}
    return run_study(model, make_recipe(recipe), photos, tmp_path_factory.mktemp("out") / "study")


@pytest.mark.parametrize("role", ["found_on", "held_out"])
def test_planted_neurons_take_the_word_and_leave_the_rest(found: Study, role: str) -> None:
    for method in ("two_stage", "contribution"):
        rows = of(found, method, role, K=3, intervention="suppress")
        assert {(row["before"], row["after"]) for row in rows} == {("dog mat", "mat mat")}
        assert suppression_score(mean(rows, "suppressed"), mean(rows, "retained")) == 1.0
        assert {(row["mentions"], row["mentions_before"], row["unsupported"]) for row in rows} == {(0, 1, 0)}
    for method in ("random", "random_same_layers"):
        rows = of(found, method, role, K=3, intervention="suppress")
        assert rows
        assert all(row["unchanged"] and not row["suppressed"] for row in rows)


def test_photos_without_the_concept_stay_as_they_were(found: Study) -> None:
    rows = of(found, "two_stage", "without", intervention="suppress")
    assert len(rows) == 3 * 3  # photos, and K
    assert all(row["unchanged"] and row["suppressed"] is None for row in rows)
    assert {(row["to_before.bleu-1"] > 0.99, row["length"]) for row in rows} == {(True, 2)}


def test_captions_are_scored_by_models_where_the_recipe_names_them(
    model: nw.Model, photos: Photos, tiny_bert: Path, tiny_clip: Path
) -> None:
    folders = {"bert": str(tiny_bert), "clip": str(tiny_clip)}
    recipe = {**RECIPE, "K": [3], "methods": ["random"], "metric_models": folders}
    row = run_study(model, make_recipe(recipe), photos).rows[0]
    embedder = Embedder(tiny_bert)
    for name, score in (("bertscore", bert_score), ("mover_score", mover_score)):
        assert row[f"to_before.{name}"] == pytest.approx(score(embedder, row["after"], [row["before"]]), abs=1e-6)
    seen = next(photo.path for photo in photos if photo.id == row["photo"])
    now, before = ClipScorer(tiny_clip)(seen, [row["after"], row["before"]])
    assert (row["clipscore"], row["clipscore_before"]) == pytest.approx((now, before), abs=1e-6)


def test_which_neurons_were_found_and_how_many_are_changed(found: Study) -> None:
    kept = found.notes["found"]
    assert sorted(kept["dog/two_stage"]["neurons"]) == EXACTLY
    assert kept["dog/two_stage"]["funnel"]["after_vote"] == len(PLANTED)
    assert sorted(kept["dog/activation"]["neurons"][:5]) == sorted([*EXACTLY, *([1, unit] for unit in DECOYS)])
    assert {row["neurons"] for row in of(found, "two_stage", K=5)} == {3}  # it let no more through
    assert {row["neurons"] for row in of(found, "activation", K=5)} == {5}
    assert {row["neurons"] for row in of(found, "activation", K=None)} == {3}  # as many as the filter found
    assert {row["neurons"] for row in of(found, "random_same_layers", K=None)} == {3}


def test_finding_and_testing_are_on_different_photos(found: Study) -> None:
    split = found.notes["split"]["dog"]
    assert sorted(split["found_on"] + split["held_out"]) == [f"dog{number}" for number in range(len(PLACES))]
    assert len(split["held_out"]) == 3
    assert all(name.startswith("plain") for name in split["without"])
    assert {row["photo"] for row in of(found, "random", "held_out")} == set(split["held_out"])


def test_mean_ablation_puts_means_in_place_of_activations(found: Study, model: nw.Model, photos: Photos) -> None:
    row = of(found, "two_stage", "held_out", intervention="mean_ablate", K=3)[0]
    runs = [model.run(photo.path, "the", max_new_tokens=2) for photo in photos]
    neurons = [f"L1.U{unit}" for unit in PLANTED]
    from neuronwise.intervene import mean_ablate

    with mean_ablate(model, neurons, nw.Baseline.gather(model, runs)):
        path = next(photo.path for photo in photos if photo.id == row["photo"])
        assert row["after"] == model.run(path, "the", max_new_tokens=2).text


def test_means_are_reported_beside_zeros_by_default_and_may_be_a_saved_baseline(
    model: nw.Model, tiny_model: nw.Model, photos: Photos, tmp_path: Path
) -> None:
    gray = [photo.path for photo in photos if photo.id.startswith("plain")]
    nw.Baseline.gather(model, [model.run(path, "the", max_new_tokens=2) for path in gray]).save(tmp_path / "usual")
    plain = {name: value for name, value in RECIPE.items() if name != "interventions"} | {"methods": ["contribution"]}
    recipe = make_recipe({**plain, "means": str(tmp_path / "usual")})
    found = run_study(model, recipe, photos)
    names = [one.name for one in KINDS["suppression"].tables(found)]
    assert [name for name in names if name.endswith("held_out")] == [
        "suppression-mean-ablate-held_out", "suppression-suppress-held_out",
    ]  # fmt: skip
    ablated = of(found, "contribution", "held_out", intervention="mean_ablate")
    assert {row["after"] for row in ablated} == {"mat mat"}  # usual is what they do without a dog
    whole = run_study(model, make_recipe(plain), photos)  # over the captions of all photos, half of them a dog's
    assert {row["after"] for row in of(whole, "contribution", "held_out", intervention="mean_ablate")} == {"dog mat"}
    nw.Baseline.gather(tiny_model, texts=["a dog sits"]).save(tmp_path / "other")
    with pytest.raises(MethodError, match="This baseline has 3 layers"):
        run_study(model, make_recipe({**plain, "means": str(tmp_path / "other")}), photos)
    with pytest.raises(StudyError, match="means: there is no baseline 'nowhere'"):
        make_recipe({**plain, "means": "nowhere"})


def test_hallucinated_concepts_are_those_that_nothing_supports(model: nw.Model, tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos")
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for row in rows[:4]:
        row |= {"captions": ["a red square"], "objects": []}
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = {**RECIPE, "methods": ["contribution", "random"], "hallucinated": True, "at_least": 2, "without": 5,
              "concepts": ["dog"]}  # fmt: skip
    found = run_study(model, make_recipe(recipe), load_photos(folder))
    roles = {role: sorted({row["photo"] for row in found.rows if row["role"] == role})
             for role in ("found_on", "held_out", "supported")}  # fmt: skip
    assert sorted(roles["found_on"] + roles["held_out"]) == ["dog0", "dog1", "dog2", "dog3"]
    assert roles["supported"] == ["dog4", "dog5"]
    table = next(one for one in KINDS["suppression"].tables(found) if one.name == "hallucinated-suppress")
    gone, before, after, _, kept, named, unchanged = (str(cell) for cell in table.rows[0][2:])
    assert [gone[:4], before[:4], after[:4], kept[:4], named[:4], unchanged[:4]] == [
        "1.00", "1.00", "0.00", "1.00", "0.00", "0.00",
    ]  # fmt: skip


def test_a_sweep_is_a_method_for_every_combination(model: nw.Model, photos: Photos) -> None:
    by_hand = {"method": "two_stage", "name": "hand", "sweep": {"difference": [0.2, 1e6], "gradient": [0.2]}}
    auto = {"method": "two_stage", "options": {"difference": "null", "gradient": "null"}}
    found = run_study(model, make_recipe({**RECIPE, "methods": [by_hand, auto], "K": ["found"]}), photos)
    assert {row["neurons"] for row in of(found, "hand difference=0.2 gradient=0.2")} == {3}
    assert {row["neurons"] for row in of(found, "hand difference=1000000.0 gradient=0.2")} == {0}
    assert all(row["unchanged"] for row in of(found, "hand difference=1000000.0 gradient=0.2"))
    assert sorted(found.notes["found"]["dog/two_stage difference=null gradient=null"]["neurons"]) == EXACTLY
    assert found.folder is None


def test_the_same_call_again_measures_nothing(
    found: Study, model: nw.Model, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found.folder is not None
    held = {path.name: path.read_bytes() for path in found.folder.iterdir() if path.suffix in (".json", ".jsonl")}

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("nothing is to be generated again")

    monkeypatch.setattr(nw.Model, "run", refuse)
    keys = {key: value for key, value in found.recipe.items() if key not in ("revision", "weights_dtype", "sha256")}
    again = run_study(model, make_recipe(keys), photos, found.folder)
    assert again.rows == found.rows == read_study(found.folder).rows
    assert resume(found.folder, lambda _: model).rows == found.rows
    (found.folder / "cases.parquet").unlink()
    resume(found.folder, lambda _: model)
    assert (found.folder / "cases.parquet").exists()
    assert held == {name: (found.folder / name).read_bytes() for name in held}


def test_other_recipes_and_other_data_are_refused(
    found: Study, model: nw.Model, photos: Photos, tmp_path: Path
) -> None:
    assert found.folder is not None
    keys = {key: value for key, value in found.recipe.items() if key not in ("revision", "weights_dtype", "sha256")}
    with pytest.raises(StudyError, match="begun with seed=0, not 1"):
        run_study(model, make_recipe({**keys, "seed": 1}), photos, found.folder)
    other = load_photos(write_photos(tmp_path / "more", plain=5))
    with pytest.raises(StudyError, match="begun with sha256="):
        run_study(model, make_recipe(keys), other, found.folder)


@pytest.fixture
def toys() -> Iterator[Callable[..., None]]:
    """Puts a kind "toy" of four cases into the table, with this way to measure one."""

    def put(measure: Callable[[Workspace, Case], Any], ids: Sequence[str] = ("0", "1", "2", "3")) -> None:
        if "toy" in KINDS:
            KINDS.remove("toy")
        listed = [Case(f"case {name}", {"n": int(name)}) for name in ids]
        nothing: Callable[[Study], list[Any]] = lambda study: []  # noqa: E731
        kind = photo_kind(
            "toy", PhotoRecipe, lambda workspace: listed, measure, nothing, nothing, title="Toys", sentence="Is it run?"
        )
        KINDS.add("toy", kind)

    yield put
    KINDS.remove("toy")


def test_a_failed_case_is_kept_with_its_reason_and_the_study_goes_on(
    toys: Callable[..., None], model: nw.Model, photos: Photos, tmp_path: Path
) -> None:
    calls = []

    def measure(workspace: Workspace, case: Case) -> list[Any]:
        calls.append(case.id)
        if case.inputs["n"] == 1:
            raise MethodError("This word cannot be scored.")
        return [{"x": float("nan") if case.inputs["n"] == 2 else 1.0}]

    toys(measure)
    recipe = make_recipe({"kind": "toy"})
    done = run_study(model, recipe, photos, tmp_path / "out")
    assert list(done.failed) == ["case 1", "case 2"]
    assert done.failed["case 1"] == "This word cannot be scored."
    assert "x is nan" in done.failed["case 2"]
    assert [row["n"] for row in done.rows] == [0, 3]
    assert done.finished
    run_study(model, recipe, photos, tmp_path / "out")
    assert len(calls) == 4  # a failed case is finished too


def test_a_full_disk_leaves_what_is_finished(
    toys: Callable[..., None],
    model: nw.Model,
    photos: Photos,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    room_for: Callable[[int], None],
) -> None:
    toys(lambda workspace, case: [{"x": case.inputs["n"], "y": workspace.kept("part", case.id, lambda: "z" * 50)}])
    recipe = make_recipe({"kind": "toy"})
    room_for(1200)
    with pytest.raises(StudyError, match="No space left on device"):
        run_study(model, recipe, photos, tmp_path / "out")
    monkeypatch.undo()
    toys(lambda workspace, case: [{"x": 100 + case.inputs["n"], "y": "new"}])
    kept = read_study(tmp_path / "out")
    assert 0 < kept.cases < 4
    done = run_study(model, recipe, photos, tmp_path / "out")
    assert [row["x"] for row in done.rows] == [n if n < kept.cases else 100 + n for n in range(4)]
    assert not done.failed


def test_concepts_without_photos_or_words_are_skipped_and_said(model: nw.Model, photos: Photos, tmp_path: Path) -> None:
    found = run_study(model, make_recipe({**RECIPE, "concepts": ["zebra", "dog", "mat"], "at_least": 6}), photos)
    assert found.skipped == {"zebra": "no caption names it"} or "zebra" in found.skipped
    assert {row["concept"] for row in found.rows} == {"dog"}
    with pytest.raises(StudyError, match=r"No concept has enough photos.*dog: 6 captions name it, 6 of photos"):
        run_study(model, make_recipe({**RECIPE, "at_least": 7}), photos, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(StudyError, match="zebra: no caption names it"):
        run_study(model, make_recipe({**RECIPE, "concepts": ["zebra"]}), photos)


def test_a_part_of_coco_is_found_again(toys: Callable[..., None], model: nw.Model, tmp_path: Path) -> None:
    write_photos(tmp_path / "coco/val2017")
    images = [{"id": n, "file_name": f"dog{n}.png", "width": 28, "height": 28} for n in range(2)]
    said = [{"id": n, "image_id": n, "caption": "a dog"} for n in range(2)]
    (tmp_path / "coco/annotations").mkdir()
    for part in ("val2017", "train2017"):
        content = json.dumps({"images": images, "annotations": said})
        (tmp_path / f"coco/annotations/captions_{part}.json").write_text(content)
    toys(lambda workspace, case: [{"photos": sorted(workspace.by_id)}])
    recipe = make_recipe({"kind": "toy", "data": {"part": "val2017"}})
    done = run_study(model, recipe, load_photos(tmp_path / "coco", "val2017"), tmp_path / "out")
    assert done.rows[0]["photos"] == ["0", "1"]
    (tmp_path / "out/cases.parquet").unlink()
    assert resume(tmp_path / "out", lambda _: model).rows == done.rows
    (tmp_path / "coco").rename(tmp_path / "moved")
    (tmp_path / "out/cases.parquet").unlink()
    with pytest.raises(NeuronwiseError, match="no folder"):
        resume(tmp_path / "out", lambda _: model)
    assert resume(tmp_path / "out", lambda _: model, tmp_path / "moved").rows == done.rows


def test_photos_captioned_together_say_what_they_say_alone(model: nw.Model, photos: Photos) -> None:
    alone, *together = (
        run_study(model, make_recipe({**RECIPE, "batch": batch, "K": [1, 3]}), photos) for batch in (1, 4, "auto")
    )
    rows = [[{**row, "seconds": 0} for row in one.rows] for one in (alone, *together)]
    assert rows[1:] == [rows[0]] * 2


def test_photos_that_cannot_be_read_are_left_out_and_said(model: nw.Model, tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos")
    (folder / "plain0.png").write_bytes(b"no photo")
    with (folder / "metadata.jsonl").open("a") as stream:
        stream.write("\n" + json.dumps({"file_name": "gone.png"}))
    photos = load_photos(folder)
    assert len(photos.problems) == 1
    found = run_study(model, make_recipe({**RECIPE, "methods": ["contribution"]}), photos)
    assert "not an image" in found.skipped["plain0"]
    assert {row["photo"] for row in found.rows if row["role"] == "without"} == {"plain1", "plain2", "plain3"}


def test_a_concept_without_masks_is_skipped_for_two_stage_alone(model: nw.Model, tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos")
    text = (folder / "metadata.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    for row in rows:
        row["objects"] = [one["category"] for one in row["objects"]]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    photos = load_photos(folder)
    with pytest.raises(StudyError, match="no photo is left to find its neurons on"):
        run_study(model, make_recipe(RECIPE), photos)
    found = run_study(model, make_recipe({**RECIPE, "methods": ["contribution"]}), photos)
    assert mean(of(found, "contribution", "held_out"), "suppressed") == 1.0


def test_cases_with_the_same_id_are_a_defect_of_the_kind(
    toys: Callable[..., None], model: nw.Model, photos: Photos
) -> None:
    toys(lambda workspace, case: [], ids=("1", "1"))
    with pytest.raises(StudyError, match="'case 1'"):
        run_study(model, make_recipe({"kind": "toy"}), photos)


@pytest.mark.parametrize(
    ("suppression", "retention", "score"),
    [(1.0, 1.0, 1.0), (1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.5, 1.0, 2 / 3), (None, 1.0, None)],
)
def test_the_score(suppression: float | None, retention: float | None, score: float | None) -> None:
    found = suppression_score(suppression, retention)
    assert found == (None if score is None else pytest.approx(score))
