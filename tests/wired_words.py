"""A tiny LLaMA wired by hand: unit k of layer 0 fires on one word alone, and the model can say which words it has read.

Attention is uniform, so that each position knows how often each word came before: the model continues with the most
frequent one, then ends. So it is a neuron's truth and its explainer in one.
"""

from __future__ import annotations

from typing import Any

import torch

from neuronwise.model.model import Model

FIRST = ("cat", "dog", "bear", "animal")
SECOND = ("mat", "house", "Paris", "teddy")
WORDS = (*FIRST, *SECOND)
SEEN, END = 8, 16  # dimensions: a word itself is at its number, its share of what came before at SEEN + its number


def texts() -> list[str]:
    """Each word of FIRST with each of SECOND, three times in sentences of their own, so that they are independent."""
    forms = (" the {} sits on the {}", " a {} runs in the {}", " the {} is of the {}")
    return [form.format(one, other) for form in forms for one in FIRST for other in SECOND]


def wired_words(tokenizer: Any) -> Model:
    """The model; all weights that are not named here are zero."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=32, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
        vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    module: Any = LlamaForCausalLM(config).eval()
    ids = [tokenizer.convert_tokens_to_ids(f"▁{word}") for word in WORDS]
    (layer,) = module.model.layers
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.zero_()
        for number, token in enumerate(ids):
            module.model.embed_tokens.weight[token, number] = 1.0
            layer.self_attn.v_proj.weight[number, number] = 1.0
            layer.self_attn.o_proj.weight[SEEN + number, number] = 1.0
            layer.mlp.gate_proj.weight[number, number] = layer.mlp.up_proj.weight[number, number] = 1.0
            layer.mlp.down_proj.weight[END, number] = 1.0  # behind a word of these the sentence ends
            module.lm_head.weight[token, SEEN + number] = 10.0
        module.lm_head.weight[config.eos_token_id, END] = 10.0
    return Model(module, tokenizer, name="wired words")
