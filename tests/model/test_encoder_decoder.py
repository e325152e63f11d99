"""Encoder–decoders: the decoder's neurons, positions of its own, no rows for the prompt."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import neuronwise as nw
from neuronwise.locate.methods import methods


@pytest.fixture(scope="module")
def model(tiny_tokenizer: Any) -> nw.Model:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        d_model=32, d_ff=40, num_layers=3, num_decoder_layers=3, num_heads=2, d_kv=16, vocab_size=len(tiny_tokenizer),
        eos_token_id=2, pad_token_id=2, initializer_factor=3.0,
    )  # fmt: skip
    config.decoder_start_token_id = 1
    return nw.Model(T5ForConditionalGeneration(config), tiny_tokenizer)


def test_the_decoder_is_what_is_read(model: nw.Model) -> None:
    assert (model.num_layers, model.num_neurons) == (3, 120)
    assert (
        model.blocks[2].value_vectors.data_ptr()
        == model.module.decoder.block[2].layer[2].DenseReluDense.wo.weight.data_ptr()
    )


@pytest.mark.parametrize("length", [0, 5])
def test_recorded_as_generated(model: nw.Model, length: int) -> None:
    run = model.run(prompt="the cat sits on the mat", max_new_tokens=length)
    for position in range(len(run.steps)):
        forced = model.record(run.forced_inputs(), rows=[run.row(position)])
        for layer in range(3):
            assert torch.allclose(run.activations(position).dense[layer], forced.dense[layer], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", sorted(set(methods("run")) - {"log_prob_increase"}))
def test_every_method_works(model: nw.Model, method: str) -> None:
    run = model.run(prompt="the cat sits", max_new_tokens=0)
    assert len(nw.locate(model, run, target=" dog", method=method, top=7)) == 7
