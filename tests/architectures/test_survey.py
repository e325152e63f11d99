"""Every architecture of the installed transformers, built without weights: found, or refused with a reason."""

from __future__ import annotations

import json

import pytest

from neuronwise.architectures.survey import Architecture, Writers, markdown, share_addressable, survey
from neuronwise.errors import ModelError

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def everything() -> list[Architecture]:
    return survey()


def row(found: list[Architecture], name: str, kind: str = "text") -> Architecture:
    return next(a for a in found if a.name == name and a.kind == kind)


def test_nearly_all_with_feed_forward_neurons_are_addressable(everything: list[Architecture]) -> None:
    assert len(everything) > 200
    assert share_addressable(everything) >= 0.95
    assert sum(a.status == "not built" for a in everything) < 0.1 * len(everything)
    for a in everything:
        assert a.addressable == (a.reason is None) == bool(a.writers)


def test_known_architectures(everything: list[Architecture]) -> None:
    llama = row(everything, "llama")
    assert (llama.decoder, llama.layers, llama.hidden_size) == ("model.layers", 32, 4096)
    assert llama.writers == (Writers("mlp.down_proj", 11008, 32),)
    assert llama.neurons == 32 * 11008
    assert row(everything, "gpt2").writers == (Writers("mlp.c_proj", 3072, 12),)
    assert row(everything, "mixtral").writers == (Writers("mlp.experts.down_proj", 14336, 32, experts=8),)
    deepseek = row(everything, "deepseek_v3")
    assert Writers("mlp.down_proj", 18432, 3) in deepseek.writers
    assert Writers("mlp.shared_experts.down_proj", 2048, 58) in deepseek.writers
    assert Writers("mlp.experts.down_proj", 2048, 58, experts=256) in deepseek.writers
    assert row(everything, "llava", "image-text").decoder == "model.language_model.layers"
    assert row(everything, "blip-2", "image-text").decoder == "language_model.model.decoder.layers"
    owl = row(everything, "mplug_owl2", "image-text")  # two that transformers lacks
    assert (owl.decoder, owl.neurons) == ("model.layers", 32 * 11008)
    assert row(everything, "minigpt4_patches", "image-text").addressable
    assert row(everything, "bart").decoder == "model.decoder.layers"
    assert row(everything, "blt").decoder == "model.local_decoder.layers"  # not the encoder of its bytes
    assert sum(w.layers for w in row(everything, "zamba2").writers) == 9  # a hybrid: the other layers are Mamba's


def test_no_writer_is_an_attention_output_or_of_another_tower(everything: list[Architecture]) -> None:
    for a in everything:
        for part in ("vision", "visual", "image", "audio"):
            assert part not in (a.decoder or "")
        for writer in a.writers:
            for part in ("attn", "attention", "o_proj", "out_proj", "router", "lora"):
                assert part not in writer.module


def test_state_space_models_are_refused_with_a_sentence() -> None:
    (mamba,) = survey("mamba")
    assert mamba.status == "no feed-forward neurons"
    assert mamba.reason is not None
    assert "has no addressable feed-forward neurons" in mamba.reason


def test_stacks_that_take_turns_are_refused() -> None:
    (hrm,) = survey("hrm_text")
    assert hrm.status == "not addressable"
    assert "take turns" in (hrm.reason or "")


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(ModelError, match="gpt2"):
        survey("gpt-17")


def test_it_is_quiet_and_speaks_json(capfd: pytest.CaptureFixture[str]) -> None:
    (first, *_) = survey("gemma2")
    assert json.loads(json.dumps(first.to_dict()))["writers"][0]["module"] == "mlp.down_proj"
    assert capfd.readouterr() == ("", "")


def test_the_table_has_a_row_for_each(everything: list[Architecture]) -> None:
    table = markdown(everything)
    assert sum(line.startswith("| ") for line in table.splitlines()) == len(everything) + 2
    assert "`mlp.experts.down_proj` (8 experts × 14336) × 32" in table
