"""The size of an activation, against what W_down gets."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import neuronwise as nw
from neuronwise.model.prompt import Prompted


def test_scores_are_powers_of_the_size() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=50, num_attention_heads=2, **sizes)
    module: Any = LlamaForCausalLM(config).eval()  # random weights
    inputs = {"input_ids": torch.tensor([[1, 7, 23, 4]])}
    run = nw.Run.of(nw.Model(module), Prompted("", False, inputs))
    got: list[torch.Tensor] = []
    module.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _, given: got.append(given[0][0, -1]))
    module(**inputs)
    scores = nw.scores(run.model, run, target=29, method="loudest", power=2.0)
    torch.testing.assert_close(scores.layer(1), got[0].detach() ** 2)
