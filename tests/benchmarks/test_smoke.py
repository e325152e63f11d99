"""The benchmarks' own computations on tiny models: the published scores are ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import neuronwise as nw
from neuronwise.locate import score_all


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
    prompted = random_llava.prepare(photo)[0]
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
            word.strip() for word in nw.decode(random_llava, ours.top(1)[0].neuron, 10, form="logits")
        ]
        assert theirs.maps[concept.word].shape == (32, 32, 1)


def test_everything_is_measured_and_tabled(scripts: Any, random_llava: Any, photo: Any) -> None:
    find = scripts("find")
    result = find.measure(random_llava, photo, length=6, repeats=2, with_published=True)
    assert result["same tokens"]
    assert result["nouns"]
    assert set(result["seconds"]) == {"plain generate", "find", find.AGAIN, "published", find.SAME_OUTPUT}
    assert result["preparation"]["bytes"] == 3 * 96 * 512 * 2
    assert "| published |" in find.table(result)


def test_heat_kept_while_generating_is_the_heat_of_a_pass_of_its_own(
    random_llava: Any, photo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuronwise.model.many.HEAT_SHARE", 1.0)
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
    monkeypatch.setattr("neuronwise.model.many.HEAT_SHARE", 1e-3)
    run = random_llava.run(image=photo, max_new_tokens=4, heat=True)
    assert not run.seen.dense
    assert nw.heatmap(random_llava, run, ["L0.U3"]).grid.shape == (4, 4)


def test_an_index_of_a_shape_is_measured(scripts: Any, tmp_path: Any) -> None:
    result = scripts("index").of_shape(2, 24, 5, tmp_path / "index")
    assert result["neurons"] == 48
    assert 0 < result["megabytes"] < result["state_megabytes"]


def test_batches_are_measured_with_their_results(scripts: Any, tiny_model: Any) -> None:
    batches = scripts("batches")
    work = batches.texts(tiny_model, ["the cat", "the capital of France is", "a red dog"], 3)
    found = batches.measure(tiny_model, work, 3, 2)
    assert (found["same tokens"], found["same neurons"], len(found["ratios"])) == (3, 3, 2)
    assert found["activations"] < 1e-4
    assert "| 3 texts |" in batches.table({"texts": found}, 3)
