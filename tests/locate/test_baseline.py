"""What neurons usually do, and scores measured against it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import families
import neuronwise as nw
from conformed import tiny
from neuronwise import intervene
from neuronwise.errors import MethodError
from neuronwise.locate import Baseline, score_all
from neuronwise.locate.baseline import predicting_rows
from neuronwise.model import Model, Run, Target
from neuronwise.model.hashes import stored_hash
from neuronwise.model.prompt import Prompted
from neuronwise.model.state import weights_hash
from tiny_checkpoint import written_tiny

TEXTS = ["the cat sits on the mat", "a dog runs"]


def test_means_and_spreads_are_those_of_the_predicting_rows(model: Model) -> None:
    runs = [model.run(prompt=text, max_new_tokens=3) for text in TEXTS]
    baseline = Baseline.gather(model, runs)
    rows = [[run.length + row for row in predicting_rows(run)] for run in runs]
    for run, own in zip(runs, rows, strict=True):
        assert own == list(range(len(run.prompted.input_ids) - 1, run.length - 1))
    for writer in model.writers:
        recorded = [
            model.record(run.forced_inputs()).dense[writer.layer][own] for run, own in zip(runs, rows, strict=True)
        ]
        expected = torch.cat(recorded)
        torch.testing.assert_close(baseline.mean(writer), expected.mean(0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(baseline.spread(writer), expected.std(0, correction=0), rtol=1e-3, atol=1e-5)
    assert baseline.record["positions"] == sum(map(len, rows))


def test_of_texts_the_first_token_does_not_count(model: Model) -> None:
    baseline = Baseline.gather(model, texts=TEXTS)
    rows = torch.cat([model.record(model.prepare(None, text, False)[0].inputs).dense[1][1:] for text in TEXTS])
    torch.testing.assert_close(baseline.mean(model.blocks[1].writers[0]), rows.mean(0), rtol=1e-5, atol=1e-6)


def test_self_is_gathered_once_for_the_weights_as_they_are(model: Model) -> None:
    first = Baseline.gather(model, "self")
    assert Baseline.gather(model, "self") is first
    assert first.record["positions"] == 64 * 32
    with torch.no_grad():
        model.blocks[0].value_vectors[:, 3] *= 4
    other = Baseline.gather(model, "self")
    assert other.record["weights"] != first.record["weights"]
    with torch.no_grad():
        model.blocks[0].value_vectors[:, 3] /= 4
    again = Baseline.gather(nw.Model(model.module, model.tokenizer), "self")
    assert torch.equal(again.mean(model.writers[2]), first.mean(model.writers[2]))  # seeded
    with nw.suppress(model, ["L0.U1"]), pytest.raises(MethodError, match="within an intervention"):
        nw.locate(model, model.run(prompt=TEXTS[0], max_new_tokens=0), target=5, baseline="self")


def test_that_of_a_larger_model_is_kept_on_disk(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = sys.modules[Baseline.__module__]
    monkeypatch.setattr(home, "WORTH_A_FILE", 1)
    monkeypatch.setenv("NEURONWISE_CACHE", str(tmp_path / "cache"))
    first = Baseline.gather(model, "self")
    with monkeypatch.context() as within:
        within.setattr(home, "drawn", None)  # is not asked again
        again = Baseline.gather(nw.Model(model.module, model.tokenizer), "self")
    assert all(torch.equal(again.mean(writer), first.mean(writer)) for writer in model.writers)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NEURONWISE_CACHE", str(tmp_path / "file"))  # where no folder can be made
    assert Baseline.gather(nw.Model(model.module, model.tokenizer), "self").record["positions"] == 64 * 32
    (tmp_path / "cache/baselines").rename(tmp_path / "moved")
    taken = next((tmp_path / "moved").iterdir())
    (taken / "baseline.json").write_text("{}")
    monkeypatch.setenv("NEURONWISE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "moved").rename(tmp_path / "cache/baselines")  # a damaged one is gathered anew
    assert Baseline.gather(nw.Model(model.module, model.tokenizer), "self").record["positions"] == 64 * 32


def test_the_hash_of_files_that_have_not_changed_is_read(
    tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURONWISE_CACHE", str(tmp_path / "cache"))
    folder = written_tiny(tmp_path / "tiny", tiny_tokenizer)
    model = nw.load(folder)
    expected = weights_hash(model)
    assert stored_hash(model) == expected
    (kept,) = (tmp_path / "cache/hashes").iterdir()
    kept.write_text("0" * 64)
    assert stored_hash(nw.load(folder)) == "0" * 64
    assert stored_hash(nw.load(folder, dtype="bfloat16")) not in (expected, "0" * 64)
    kept.write_text("damaged")
    assert stored_hash(nw.load(folder)) == kept.read_text() == expected
    with torch.no_grad():
        model.blocks[0].value_vectors[:, 3] *= 4
    assert stored_hash(model) == weights_hash(model) != expected
    kept.write_text("0" * 64)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert stored_hash(nw.load(folder)) == expected


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "qwen2_moe", "gpt_oss", "t5"])
def test_surpluses_and_the_usual_part_add_up_to_the_logit(name: str) -> None:
    model, prompted, _ = tiny(name)
    run = Run.of(model, prompted)
    baseline = Baseline.gather(model, [run], seed=0)
    for mean in baseline.means.values():  # of this very run: otherwise every surplus would be 0
        mean.add_(torch.randn(mean.shape, generator=torch.Generator().manual_seed(len(mean))))
    with torch.no_grad():
        logits = model.forward(run.forced_inputs(), rows=[-1])[0, 0].float()
    target = Target(29, 0, "t")
    scores = score_all(model, run, [target], "contribution", normalize=True, contrast=[11, 12], baseline=baseline)[0]
    cap = getattr(model.config.get_text_config(decoder=True), "final_logit_softcapping", None)
    if cap:
        logits = torch.atanh(logits / cap) * cap
    expected = float(logits[29] - (logits[11] + logits[12]) / 2)
    total = sum(float(values.sum()) for values in scores.values()) + (scores.usual or 0)
    assert total == pytest.approx(expected, abs=1e-3)
    assert set(scores) == set(model.writers)  # of experts that were not asked, too
    plain = score_all(model, run, [target], "contribution", normalize=True, contrast=[11, 12])[0]
    for writer in plain:
        a, mean = plain.activations[writer], baseline.mean(writer)
        known = a.abs() > 1e-3  # plain / a is what the logit is read by
        torch.testing.assert_close(scores[writer][known], (plain[writer] / a * (a - mean))[known], rtol=1e-3, atol=1e-4)
    found = scores.top(3)
    assert found[0].baseline == pytest.approx(baseline.of(model, found[0].neuron))
    assert found.record["usual"] == scores.usual


def test_it_is_saved_and_read_again(model: Model, tmp_path: Path) -> None:
    baseline = Baseline.gather(model, texts=TEXTS)
    baseline.save(tmp_path / "usual")
    again = Baseline.load(tmp_path / "usual")
    assert again.record == dict(baseline.record)
    run = model.run(prompt="the cat sits", max_new_tokens=0)
    found = nw.locate(model, run, target=5, baseline=str(tmp_path / "usual"), top=4)
    assert found.members == nw.locate(model, run, target=5, baseline=baseline, top=4).members
    given = nw.locate(model, run, target=5, baseline=again, top=4)
    assert given.record["options"]["baseline"]["source"] == "texts"
    given.save(tmp_path / "found.json")
    assert nw.NeuronSet.load(tmp_path / "found.json") == given


def test_bad_baselines_get_a_sentence(model: Model, make: Any, tmp_path: Path) -> None:
    run = model.run(prompt="the cat sits", max_new_tokens=0)
    baseline = Baseline.gather(model, [run])
    short, _ = families.tiny("gpt_neo")
    with pytest.raises(MethodError, match=r"has 3 layers, .* has 2"):
        baseline.require(Model(short))
    with pytest.raises(MethodError, match=r"was gathered for .*, not for llama"):
        baseline.require(make("llama"))
    for given, said in ((7, "baseline=7"), (str(tmp_path / "none"), "There is no baseline")):
        with pytest.raises(MethodError, match=said):
            nw.locate(model, run, target=5, baseline=given)
    with pytest.raises(MethodError, match="activation='ffn'"):
        nw.locate(model, run, target=5, baseline=baseline, activation="gate")
    wrong: list[dict[str, Any]] = [{}, {"runs": "mine"}, {"runs": [run], "texts": TEXTS}]
    for arguments in wrong:
        with pytest.raises(MethodError, match="Gather a baseline over"):
            Baseline.gather(model, **arguments)
    with pytest.raises(MethodError, match="one text, photo or run"):
        Baseline.gather(model, [])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "baseline.json").write_text("{}")
    with pytest.raises(MethodError, match="is missing"):
        Baseline.load(tmp_path / "broken")
    (tmp_path / "broken" / "baseline.safetensors").write_bytes(b"")
    with pytest.raises(MethodError, match="damaged"):
        Baseline.load(tmp_path / "broken")


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_routed_neurons_are_set_to_their_means(name: str) -> None:
    """The same logits as with value vectors of 0 and ā·v added to what the layer's experts return, in one of them."""
    module, inputs = families.tiny(name)
    model = Model(module)
    run = Run.of(model, Prompted("", False, inputs))
    baseline = Baseline.gather(model, [run])
    neurons = [nw.Neuron(1, 2, expert) for expert in range(model.blocks[1].num_experts)]
    before = model.module(**inputs).logits.detach()
    vectors = [model.blocks[1].value_vector(neuron).float().clone() for neuron in neurons]
    constant = sum(baseline.of(model, n) * v for n, v in zip(neurons, vectors, strict=True))
    unit = model.blocks[1].module.get_submodule(model.writer(neurons[0]).site[1])

    def add(module: Any, args: Any, output: Any) -> Any:
        first = output if isinstance(output, torch.Tensor) else output[0]
        return first + constant if first is output else (first + constant, *output[1:])

    with nw.suppress(model, neurons):
        handle = unit.register_forward_hook(add)
        expected = model.module(**inputs).logits.detach()
        handle.remove()
    with intervene.mean_ablate(model, neurons, baseline):
        found = model.module(**inputs).logits.detach()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, before, atol=1e-5)
    assert torch.equal(model.module(**inputs).logits, before)
    dense = {neuron: baseline.of(model, neuron) for neuron in neurons}
    assert intervene.mean_activations(model, neurons, [run]).keys() == dense.keys()
    with pytest.raises(MethodError, match="at all positions"), intervene.mean_ablate(model, neurons, dense, [0]):
        pass
