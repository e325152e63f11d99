"""Decoding is the product of the unembedding and the value vector."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import neuronwise as nw
from neuronwise.errors import MethodError
from neuronwise.read import decode_all


@pytest.mark.parametrize("bottom", [False, True])
@pytest.mark.parametrize("through_norm", [False, True])
def test_decode_is_the_extreme_of_the_product(tiny_folder: Any, bottom: bool, through_norm: bool) -> None:
    model = nw.load(tiny_folder)
    with torch.no_grad():
        model.module.model.norm.weight.copy_(torch.rand(32) * 2 - 0.5)
    vector = model.module.model.layers[1].mlp.down_proj.weight[:, 7].detach()
    gain = model.module.model.norm.weight.detach() if through_norm else 1.0
    logits = model.module.lm_head.weight.detach() @ (gain * vector)
    expected = logits.argsort(descending=not bottom)[:6].tolist()
    tokens = nw.decode(model, "L1.U7", k=6, bottom=bottom, through_norm=through_norm)
    assert tokens == [model.tokenizer.decode([token]) for token in expected]


def test_many_are_decoded_as_each_alone(tiny_model: Any) -> None:
    neurons = ["L0.U1", "L2.U40", "L0.U1", "L1.U3"]
    assert decode_all(tiny_model, neurons) == [nw.decode(tiny_model, neuron) for neuron in neurons]
    assert decode_all(tiny_model, []) == []


def test_more_tokens_than_there_are(tiny_model: Any) -> None:
    with pytest.raises(MethodError, match="ask for 1 to"):
        nw.decode(tiny_model, "L0.U1", k=10**6)
