"""What a finding says, and that it says it in the form of its schema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

import neuronwise as nw
from neuronwise.locate import shares
from neuronwise.locate.default import locate_by_default
from neuronwise.read import find, with_lens
from schema_guard import validated


def test_the_schema_is_one_and_refuses_what_it_should(tiny_model: Any) -> None:
    run = tiny_model.run(prompt="the cat sits", max_new_tokens=0)
    content = validated(find(tiny_model, run, targets=[5], top=3).to_dict())
    neuron = content["concepts"][0]["neurons"][0]
    for name in ("baseline", "raises", "lowers", "tokens"):
        broken = json.loads(json.dumps(content))
        del broken["concepts"][0]["neurons"][0][name]
        with pytest.raises(jsonschema.ValidationError, match=name):
            validated(broken)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**content, "schema": "neuronwise.find/1"}, nw.schemas()["neuronwise.find/2"])
    assert neuron["baseline"] is not None


@pytest.mark.parametrize("method", ["contribution", "relp", "gradient", "random", "log_prob_increase"])
def test_every_kind_of_method_is_valid(tiny_model: Any, method: str) -> None:
    run = tiny_model.run(prompt="the cat sits", max_new_tokens=4)
    content = validated(find(tiny_model, run, targets=[5, run.output_ids[0]], method=method, top=4, seed=3).to_dict())
    assert content["rendered"] == "<unk> cat sits"  # as the tokenizer of these tests reads it
    for neuron in content["concepts"][1]["neurons"]:
        member = nw.ScoredNeuron.from_row(neuron)
        assert neuron["raises"] == nw.decode(tiny_model, member)
        assert neuron["lowers"] == nw.decode(tiny_model, member, bottom=True)
        assert neuron["tokens"] == neuron["raises"]


def test_the_default_without_exact_shares_is_the_nearest(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = model.run(prompt="the cat sits", max_new_tokens=0)
    whole = find(model, run, targets=[5], top=3)
    assert (whole.note, whole.options) == (None, {"contrast": 10, "normalize": True, "baseline": "self", "focus": 3.5})
    monkeypatch.setattr(shares, "closed_form", lambda model: None)
    monkeypatch.setattr(shares, "share_total", lambda written, index: 1e6)
    found = find(model, run, targets=[5], top=3)
    assert found.options == {"contrast": 10, "normalize": False, "baseline": "self", "focus": 3.5}
    assert "no exact shares" in validated(found.to_dict())["note"]
    wanted = nw.locate(model, run, target=5, top=3, contrast=10, baseline="self", focus=3.5)
    assert found.concepts[0].neurons.members == wanted.members
    with pytest.raises(nw.NeuronwiseError, match="use normalize=False"):
        find(model, run, targets=[5], normalize=True)


def test_the_default_of_a_model_that_does_not_generate(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = model.run(prompt="the cat sits on the mat", max_new_tokens=3)
    word = run.text.split()[0]
    monkeypatch.setattr(model.module, "generation_config", None)
    found = locate_by_default(model, run, word, 3)
    assert "activations are measured from 0" in found.record["nearest"]
    assert found.members == nw.locate(model, run, word, top=3, contrast=10, normalize=True, focus=3.5).members
    with pytest.raises(nw.NeuronwiseError, match="does not generate"):
        locate_by_default(model, run, word, 3, {"baseline": "self", "focus": 3.5})


def test_the_lens_reads_each_word_where_it_is_asked_for(tiny_model: Any) -> None:
    run = tiny_model.run(prompt="the cat sits", max_new_tokens=4)
    found = find(tiny_model, run, targets=[5, run.output_ids[0]], top=3)
    found = with_lens(found)
    rows = validated(found.to_dict())["concepts"]
    for one, row in zip(found.concepts, rows, strict=True):
        expected = nw.lens(tiny_model, run, target=one.target.token_id, position=one.target.position)
        assert row["lens"] == expected.cells()
        assert len(row["lens"]["log_probs"]) == tiny_model.num_layers
    assert "lens" not in find(tiny_model, run, targets=[5], top=3).to_dict()["concepts"][0]
