"""The benchmarks' own computations on tiny models: a planted fact is lost, and the published scores are ours."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import neuronwise as nw
from neuronwise.locate import locate, score_all
from neuronwise.model.interfere import LastPosition

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scripts() -> Iterator[Any]:
    """Imports a script of the benchmarks folder by name."""
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def planted(tiny_folder: Path) -> Any:
    """A text model in which three neurons of each layer write the answer, strongly, wherever they are."""
    model = nw.load(tiny_folder)
    answer = model.tokenizer.convert_tokens_to_ids("▁Paris")
    with torch.no_grad():
        for block in model.blocks:
            mlp: Any = block.module.mlp
            for unit in (5, 11, 17):
                mlp.up_proj.weight[unit] = mlp.gate_proj.weight[unit]  # the activation is gate · silu(gate) >= 0
                block.value_vectors[:, unit] = 3 * model.unembedding[answer]
    return model


FACTS = ["the capital of France is", "a cat sits on the mat in", "the dog runs in the house of", "a red animal is"]


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    path = tmp_path / "facts.json"
    path.write_text(json.dumps([{"prompt": prompt, "attribute": "Paris"} for prompt in FACTS]), encoding="utf-8")
    return path


def test_zeroing_what_was_planted_loses_the_answer(scripts: Any, planted: Any, facts: Path) -> None:
    deletion = scripts("deletion")
    given = deletion.known(planted, deletion.read_facts(planted, facts))
    assert given, "the planted neurons make the answer the first choice"
    row = deletion.measure(planted, given[0], given[1:2], seed=0)
    own = row["measured"][0]
    lost = {(name, k): 1 - after / own["before"] for (name, k), after in zip(row["places"], own["after"], strict=True)}
    assert lost["contribution, contrast, normalize", 10] > 0.5
    assert lost["causal_effect", 10] > 0.5
    assert abs(lost["random_same_layers", 10]) < 0.5 * lost["contribution, contrast, normalize", 10]


def test_zeroing_a_set_equals_suppressing_it_at_one_position(scripts: Any, planted: Any) -> None:
    run = planted.run(prompt="Paris", max_new_tokens=0, chat=False)  # one token: its only position is the last
    found = locate(planted, run, target=7, top=6)
    last = LastPosition(planted, run.forced_inputs())
    alone, both = scripts("deletion").after_zeroing(planted, last, 7, [found.neurons[:1], found.neurons], batch=2)
    for neurons, measured in ((found[:1], alone), (found, both)):
        with nw.suppress(planted, neurons), torch.no_grad():
            logits = planted.forward(run.forced_inputs(), rows=[-1])[0, -1]
        assert measured == pytest.approx(float(logits.softmax(-1)[7]), rel=1e-4)


def test_the_report_sums_up_rows(scripts: Any, tmp_path: Path) -> None:
    rows = [
        {"seconds": {"a": 1.0, "b": 3.0}, "places": [["a", 1], ["a", 10], ["a", 100], ["a", 200], ["b", 1], ["b", 200]],
         "measured": [{"before": 0.5, "after": [0.25, 0.25, 0.25, 0.25, 0.5, 0.5]},
                      {"before": 0.2, "after": [0.2, 0.2, 0.1, 0.0, 0.2, 0.2]}]},
    ] * 2  # fmt: skip
    report = scripts("deletion_report")
    text = report.report(rows, {"model": "tiny"}, tmp_path / "summary.json", None)
    found = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["methods"]
    assert found["a"]["lost"]["10"] == [0.5, 0.5, 0.5]
    assert found["a"]["lost_by_others"]["100"][0] == pytest.approx(0.5)
    assert found["a"]["area"]["200"] == pytest.approx(0.5)
    assert found["b"]["area"]["200"] == 0
    assert "| a | 0.50 (0.50–0.50) |" in text


def test_areas_are_taken_over_the_logarithm(scripts: Any) -> None:
    area = scripts("deletion_report").curve_area((1, 10, 100), (0.0, 1.0, 1.0), 100)
    assert area == pytest.approx(0.75)


@pytest.fixture(scope="module")
def random_llava(scripts: Any) -> Any:
    return scripts("shapes").random_model("tiny", torch.float32, "cpu")


@pytest.fixture(scope="module")
def photo() -> Any:
    from PIL import Image

    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))


def test_published_scores_are_ours(scripts: Any, random_llava: Any, photo: Any) -> None:
    published = scripts("published")
    prepared = published.prepare(random_llava, dtype=torch.float32)
    prompted = published.lay_out(random_llava, photo)
    theirs = published.find(random_llava, prompted, prepared, length=8, top=20, dtype=torch.float32)
    run = random_llava.run(image=photo, max_new_tokens=8, heat=True)
    assert theirs.ids == run.output_ids
    assert [concept.word for concept in run.concepts] == list(theirs.scores)
    targets = [run.target(concept) for concept in run.concepts]
    for concept, ours in zip(
        run.concepts, score_all(random_llava, run, targets, "contribution", activation="gate"), strict=True
    ):
        expected = torch.stack([ours.layer(layer) for layer in range(random_llava.num_layers)])
        torch.testing.assert_close(theirs.scores[concept.word], expected, rtol=1e-3, atol=1e-5)
        assert [(m.neuron.layer, m.neuron.unit) for m in ours.top(5)] == theirs.top[concept.word][:5]
        assert theirs.tokens[concept.word][0] == [
            word.strip() for word in nw.decode(random_llava, ours.top(1)[0].neuron, 10)
        ]
        assert theirs.maps[concept.word].shape == (32, 32, 1)


def test_everything_is_measured_and_tabled(scripts: Any, random_llava: Any, photo: Any) -> None:
    find = scripts("find")
    result = find.measure(random_llava, photo, length=6, repeats=2, with_published=True)
    assert result["same tokens"]
    assert result["nouns"]
    assert set(result["seconds"]) == {"plain generate", "find", "published", find.SAME_OUTPUT}
    assert result["preparation"]["bytes"] == 3 * 96 * 512 * 2
    assert "| published |" in find.table(result)


def test_heat_kept_while_generating_is_the_heat_of_a_pass_of_its_own(
    random_llava: Any, photo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuronwise.model.model.HEAT_SHARE", 1.0)
    kept = random_llava.run(image=photo, max_new_tokens=4, heat=True)
    assert kept.seen.dense
    plain = random_llava.run(image=photo, max_new_tokens=4)
    assert plain.seen is None
    neurons = ["L0.U3", "L2.U90", "L0.U1"]
    np.testing.assert_allclose(
        nw.heatmap(random_llava, kept, neurons).each, nw.heatmap(random_llava, plain, neurons).each, atol=1e-5
    )


def test_heat_too_large_to_keep_is_read_when_it_is_asked_for(
    random_llava: Any, photo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuronwise.model.model.HEAT_SHARE", 1e-3)
    run = random_llava.run(image=photo, max_new_tokens=4, heat=True)
    assert not run.seen.dense
    assert nw.heatmap(random_llava, run, ["L0.U3"]).grid.shape == (4, 4)
