"""Which modules hold the neurons, for each family; what is found in the decoder and never in another tower."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from families import NAMES, tiny
from neuronwise.errors import ModelError
from neuronwise.model.anatomy import Anatomy, dissect

# layers at: writer[width f] × layers (experts × width for routed ones)
WRITERS = {
    "gpt2": "transformer.h: mlp.c_proj[128] x3",
    "gptj": "transformer.h: mlp.fc_out[128] x3",
    "gpt_neo": "transformer.h: mlp.c_proj[48] x2",
    "gpt_bigcode": "transformer.h: mlp.c_proj[128] x3",
    "gpt_neox": "gpt_neox.layers: mlp.dense_4h_to_h[48] x3",
    "opt": "model.decoder.layers: fc2[48] x3",
    "bloom": "transformer.h: mlp.dense_4h_to_h[128] x3",
    "llama": "model.layers: mlp.down_proj[48] x3",
    "llama_bias": "model.layers: mlp.down_proj[48] x3",
    "llama_shared": "model.layers: mlp.down_proj[48] x3",
    "mistral": "model.layers: mlp.down_proj[48] x3",
    "qwen2": "model.layers: mlp.down_proj[48] x3",
    "qwen3": "model.layers: mlp.down_proj[48] x3",
    "gemma": "model.layers: mlp.down_proj[48] x3",
    "gemma2": "model.layers: mlp.down_proj[48] x3",
    "gemma3_text": "model.layers: mlp.down_proj[48] x3",
    "gemma4_text": "model.layers: mlp.down_proj[48] x3",
    "phi": "model.layers: mlp.fc2[48] x3",
    "phi3": "model.layers: mlp.down_proj[48] x3",
    "falcon": "transformer.h: mlp.dense_4h_to_h[128] x3",
    "falcon_sequential": "transformer.h: mlp.dense_4h_to_h[128] x3",
    "falcon_new": "transformer.h: mlp.dense_4h_to_h[128] x3",
    "mpt": "transformer.blocks: ffn.down_proj[128] x3",
    "olmo": "model.layers: mlp.down_proj[48] x3",
    "olmo2": "model.layers: mlp.down_proj[48] x3",
    "cohere": "model.layers: mlp.down_proj[48] x3",
    "cohere2": "model.layers: mlp.down_proj[48] x3",
    "granite": "model.layers: mlp.down_proj[48] x3",
    "stablelm": "model.layers: mlp.down_proj[48] x3",
    "stablelm_parallel": "model.layers: mlp.down_proj[48] x3",
    "starcoder2": "model.layers: mlp.c_proj[48] x3",
    "codegen": "transformer.h: mlp.fc_out[128] x3",
    "nanochat": "model.layers: mlp.fc2[48] x3",
    "smollm3": "model.layers: mlp.down_proj[48] x3",
    "glm4": "model.layers: mlp.down_proj[48] x3",
    "xglm": "model.layers: fc2[48] x3",
    "mixtral": "model.layers: mlp.experts.down_proj[4x48] x3",
    "qwen2_moe": "model.layers: mlp.shared_expert.down_proj[24] + mlp.experts.down_proj[4x20] x3",
    "qwen3_moe": "model.layers: mlp.experts.down_proj[4x20] x3",
    "qwen3_next": "model.layers: mlp.shared_expert.down_proj[24] + mlp.experts.down_proj[4x20] x2",
    "olmoe": "model.layers: mlp.experts.down_proj[4x48] x3",
    "granitemoe": "model.layers: block_sparse_moe.experts.down_proj[4x48] x3",
    "granitemoehybrid": "model.layers: shared_mlp.output_linear[24] + block_sparse_moe.experts.down_proj[4x48] x3",
    "gpt_oss": "model.layers: mlp.experts.down_proj[4x48] x3",
    "gpt_oss_square": "model.layers: mlp.experts.down_proj[4x32] x3",
    "deepseek_v2": "model.layers: mlp.down_proj[48] x1; "
    "mlp.shared_experts.down_proj[40] + mlp.experts.down_proj[4x20] x2",
    "deepseek_v3": "model.layers: mlp.down_proj[48] x1; "
    "mlp.shared_experts.down_proj[20] + mlp.experts.down_proj[4x20] x2",
    "llama4_text": "model.layers: feed_forward.down_proj[40] x2; "
    "feed_forward.shared_expert.down_proj[48] + feed_forward.experts.down_proj[4x48] x1",
    "dbrx": "transformer.blocks: ffn.experts.mlp.w2[4x48] x2",
    "jetmoe": "model.layers: mlp.output_linear.weight[4x48] x3",
    "phimoe": "model.layers: mlp.experts.down_proj[4x48] x3",
    "jamba": "model.layers: feed_forward.down_proj[48] x2; feed_forward.experts.down_proj[4x48] x1",
    "nemotron_h": "model.layers: none x2; "
    "mixer.shared_experts.down_proj[24] + mixer.experts.down_proj[4x20] x1; mixer.down_proj[48] x1",
    "bamba": "model.layers: feed_forward.down_proj[48] x3",
    "zamba2": "model.layers: none x2; shared_transformer.feed_forward.down_proj[48] x2",
    "t5": "decoder.block: layer.2.DenseReluDense.wo[48] x3",
    "flan_t5": "decoder.block: layer.2.DenseReluDense.wo[48] x3",
    "bart": "model.decoder.layers: fc2[48] x3",
    "switch_transformers": "decoder.block: layer.2.mlp.wo[48] x2; layer.2.mlp.experts[4x48] x1",
    "llava": "model.language_model.layers: mlp.down_proj[48] x3",
    "mplug_owl2": "model.layers: mlp.down_proj[48] x3",
    "llava_next": "model.language_model.layers: mlp.down_proj[48] x3",
    "llava_onevision": "model.language_model.layers: mlp.down_proj[48] x3",
    "blip_2": "language_model.model.decoder.layers: fc2[48] x3",
    "instructblip": "language_model.model.layers: mlp.down_proj[48] x3",
    "qwen2_vl": "model.language_model.layers: mlp.down_proj[48] x3",
    "qwen2_5_vl": "model.language_model.layers: mlp.down_proj[48] x3",
    "qwen3_vl": "model.language_model.layers: mlp.down_proj[48] x3",
    "qwen3_vl_moe": "model.language_model.layers: mlp.experts.down_proj[4x20] x3",
    "internvl": "model.language_model.layers: mlp.down_proj[48] x3",
    "idefics3": "model.text_model.layers: mlp.down_proj[48] x3",
    "paligemma": "model.language_model.layers: mlp.down_proj[48] x3",
    "gemma3": "model.language_model.layers: mlp.down_proj[48] x3",
    "mllama": "model.language_model.layers: mlp.down_proj[48] x3",
}


def described(anatomy: Anatomy) -> str:
    forms: Counter[str] = Counter()
    for parts in anatomy.layers:
        dense = [f"{writer.path}[{writer.width}]" for writer in parts.dense]
        routed = [f"{'.'.join(filter(None, (r.path, r.parameter)))}[{r.count}x{r.width}]" for r in parts.experts]
        forms[" + ".join(dense + routed) or "none"] += 1
    stack = anatomy.layers[0].path.rpartition(".")[0]
    return f"{stack}: " + "; ".join(f"{form} x{count}" for form, count in forms.items())


@pytest.mark.parametrize("name", NAMES)
def test_the_right_writers_are_found(name: str) -> None:
    anatomy = dissect(tiny(name)[0])
    assert described(anatomy) == WRITERS[name]
    assert anatomy.hidden_size == 32


def test_it_reads_structure_not_names() -> None:
    """A decoder that no one has seen before, its neurons in modules with names of its own."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.grow = nn.Linear(32, 48)
            self.shrink = nn.Linear(48, 32)

    module = tiny("llama")[0]
    for layer in module.model.layers:  # type: ignore[union-attr]
        layer.mlp = Layer()  # type: ignore[union-attr]
    assert described(dissect(module)) == "model.layers: mlp.shrink[48] x3"


def test_adapters_beside_a_block_hold_no_neurons() -> None:
    module = tiny("llama")[0]
    for layer in module.model.layers:  # type: ignore[union-attr]
        layer.adapter = nn.Sequential(nn.Linear(32, 4), nn.Linear(4, 32))  # type: ignore[union-attr]
    assert described(dissect(module)) == WRITERS["llama"]


def test_a_model_without_neurons_is_refused_with_a_sentence() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    with torch.device("meta"):
        module = MambaForCausalLM(MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=64, state_size=4))
    with pytest.raises(ModelError, match="no addressable feed-forward neurons"):
        dissect(module)
