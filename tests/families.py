"""Tiny random models of many architectures, in memory: ``tiny("llama") -> (module, inputs)``.

Every weight is drawn anew with a scale at which nothing may be ignored: norms' gains and biases, gates that start at
zero, router corrections and the multipliers of an architecture all move the logits. Images are tensors made by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from neuronwise.architectures import mplug_owl2  # noqa: F401  (registers it)

IMAGE = 60  # the image token, no word of the tiny tokenizer
VOCABULARY = 64
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
T5: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 3, "num_decoder_layers": 3,
    "num_heads": 4, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
BART: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
OPT: dict[str, Any] = {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32}
MLA: dict[str, Any] = {  # multi-head latent attention
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "num_key_value_heads": 4,
}  # fmt: skip
CLIP: dict[str, Any] = {
    "model_type": "clip_vision_model", "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 2, "image_size": 16, "patch_size": 8, "projection_dim": 24,
}  # fmt: skip
SIGLIP: dict[str, Any] = {**CLIP, "model_type": "siglip_vision_model", "vision_use_head": False}
EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
QWEN_EXPERTS: dict[str, Any] = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20, "decoder_sparse_step": 1,
    "norm_topk_prob": True, "mlp_only_layers": [],
}  # fmt: skip
MROPE: dict[str, Any] = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}


def text(kind: str, **settings: Any) -> dict[str, Any]:
    """Settings of a decoder in LLaMA's words."""
    return {"model_type": kind, **SIZES, **settings}


TEXT: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", **GPT},
    "gptj": {"model_type": "gptj", **GPT, "rotary_dim": 4},
    "gpt_neo": {"model_type": "gpt_neo", **SIZES, "num_layers": 2, "num_heads": 4,
                "num_hidden_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "gpt_bigcode": {"model_type": "gpt_bigcode", **GPT},
    "gpt_neox": text("gpt_neox"),
    "opt": {"model_type": "opt", **OPT},
    "bloom": {"model_type": "bloom", **GPT, "hidden_size": 32},
    "llama": text("llama"),
    "llama_bias": text("llama", mlp_bias=True, attention_bias=True),
    "llama_shared": text("llama"),  # the last layer's feed-forward block is the first's
    "mistral": text("mistral"),
    "qwen2": text("qwen2"),
    "qwen3": text("qwen3", head_dim=8),
    "gemma": text("gemma", head_dim=8),
    "gemma2": text("gemma2", head_dim=8, final_logit_softcapping=5.0),
    "gemma3_text": text("gemma3_text", head_dim=8),
    "gemma4_text": text("gemma4_text", head_dim=8, global_head_dim=8, hidden_size_per_layer_input=8,
                        vocab_size_per_layer_input=VOCABULARY, num_kv_shared_layers=0),
    "phi": text("phi", partial_rotary_factor=0.5),
    "phi3": text("phi3"),
    "falcon": {"model_type": "falcon", **SIZES, "parallel_attn": True, "new_decoder_architecture": False, "bias": True},
    "falcon_sequential": {"model_type": "falcon", **SIZES, "parallel_attn": False, "alibi": True, "bias": True,
                          "new_decoder_architecture": False, "multi_query": False},
    "falcon_new": {"model_type": "falcon", **SIZES, "new_decoder_architecture": True, "num_kv_heads": 2},
    "mpt": {"model_type": "mpt", "d_model": 32, "n_heads": 4, "n_layers": 3, "expansion_ratio": 2,
            "vocab_size": VOCABULARY, "max_seq_len": 64},
    "olmo": text("olmo"),
    "olmo2": text("olmo2"),
    "cohere": text("cohere", logit_scale=0.25),
    "cohere2": text("cohere2", logit_scale=0.25, head_dim=8),
    "granite": text("granite", embedding_multiplier=3.0, logits_scaling=4.0, residual_multiplier=0.3,
                    attention_multiplier=0.2),
    "stablelm": text("stablelm"),
    "stablelm_parallel": text("stablelm", use_parallel_residual=True, use_qkv_bias=True),
    "starcoder2": text("starcoder2", use_bias=True),
    "codegen": {"model_type": "codegen", **GPT, "rotary_dim": 4},
    "nanochat": text("nanochat", final_logit_softcapping=5.0),
    "smollm3": text("smollm3"),
    "glm4": text("glm4", head_dim=8),
    "xglm": {"model_type": "xglm", **SIZES, "d_model": 32, "ffn_dim": 48, "num_layers": 3, "attention_heads": 4},
    # Mixtures of experts
    "mixtral": text("mixtral", **EXPERTS),
    "qwen2_moe": text("qwen2_moe", **QWEN_EXPERTS, shared_expert_intermediate_size=24),
    "qwen3_moe": text("qwen3_moe", **QWEN_EXPERTS, head_dim=8),
    "qwen3_next": text("qwen3_next", **QWEN_EXPERTS, shared_expert_intermediate_size=24, head_dim=8,
                       num_hidden_layers=2, layer_types=["linear_attention", "full_attention"],
                       linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=8,
                       linear_value_head_dim=8),
    "olmoe": text("olmoe", num_experts=4, num_experts_per_tok=2),
    "granitemoe": text("granitemoe", **EXPERTS, embedding_multiplier=3.0, logits_scaling=4.0, residual_multiplier=0.3,
                       attention_multiplier=0.2),
    "granitemoehybrid": text("granitemoehybrid", **EXPERTS, shared_intermediate_size=24, mamba_n_heads=8,
                             mamba_d_head=8, mamba_n_groups=1, mamba_d_state=8, residual_multiplier=0.3,
                             layer_types=["mamba", "attention", "mamba"]),
    "gpt_oss": text("gpt_oss", **EXPERTS, head_dim=8),
    "gpt_oss_square": text("gpt_oss", **EXPERTS, head_dim=8, intermediate_size=32),
    "deepseek_v2": text("deepseek_v2", **MLA, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=20,
                        n_shared_experts=2, first_k_dense_replace=1, n_group=1, topk_group=1),
    "deepseek_v3": text("deepseek_v3", **MLA, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=20,
                        n_shared_experts=1, first_k_dense_replace=1, n_group=2, topk_group=1, head_dim=8),
    "llama4_text": text("llama4_text", **{**EXPERTS, "num_experts_per_tok": 1}, intermediate_size_mlp=40, head_dim=8,
                        interleave_moe_layer_step=2),
    "dbrx": {"model_type": "dbrx", **{k: v for k, v in SIZES.items() if "token_id" in k}, "d_model": 32, "n_heads": 4,
             "n_layers": 2, "vocab_size": VOCABULARY, "max_seq_len": 64,
             "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
             "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2}},
    "jetmoe": text("jetmoe", **EXPERTS, kv_channels=8, num_key_value_heads=2),
    "phimoe": text("phimoe", **EXPERTS),
    "jamba": text("jamba", num_experts=4, num_experts_per_tok=2, attn_layer_period=2, attn_layer_offset=1,
                  mamba_d_state=4, mamba_dt_rank=4, use_mamba_kernels=False),
    "nemotron_h": text("nemotron_h", num_hidden_layers=4, layers_block_type=["mamba", "moe", "attention", "mlp"],
                       n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=20, head_dim=8,
                       moe_shared_expert_intermediate_size=24, mamba_num_heads=8, mamba_head_dim=8, ssm_state_size=8,
                       n_groups=1, n_group=1, topk_group=1),
    "bamba": text("bamba", attn_layer_indices=[1], mamba_n_heads=8, mamba_d_head=8, mamba_n_groups=1, mamba_d_state=8),
    "zamba2": text("zamba2", num_hidden_layers=4, layers_block_type=["mamba", "hybrid", "mamba", "hybrid"],
                   mamba_d_state=8, mamba_expand=2, n_mamba_heads=8, mamba_ngroups=1, num_mem_blocks=1,
                   use_mem_rope=True, adapter_rank=4),
    # Encoders and decoders
    "t5": {"model_type": "t5", **T5},
    "flan_t5": {"model_type": "t5", **T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "bart": {"model_type": "bart", **BART},
    "switch_transformers": {"model_type": "switch_transformers", **T5, "num_experts": 4, "expert_capacity": 64,
                            "num_sparse_decoder_layers": 1, "num_sparse_encoder_layers": 1},
}  # fmt: skip

LLAMA = text("llama")
IMAGE_TEXT: dict[str, dict[str, Any]] = {
    "llava": {"model_type": "llava", "text_config": LLAMA, "vision_config": CLIP, "vision_feature_layer": -1},
    "llava_next": {"model_type": "llava_next", "text_config": LLAMA, "vision_config": CLIP,
                   "vision_feature_layer": -1, "image_grid_pinpoints": [[16, 32], [32, 16]]},
    "llava_onevision": {"model_type": "llava_onevision", "text_config": text("qwen2"), "vision_config": SIGLIP,
                        "vision_feature_layer": -1, "image_grid_pinpoints": [[16, 32], [32, 16]],
                        "vision_feature_select_strategy": "full"},
    "blip_2": {"model_type": "blip-2", "text_config": {"model_type": "opt", **OPT},
               "vision_config": {**CLIP, "model_type": "blip_2_vision_model"},
               "qformer_config": {"vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2,
                                  "num_attention_heads": 2, "intermediate_size": 40, "encoder_hidden_size": 24},
               "num_query_tokens": 4},
    "instructblip": {"model_type": "instructblip", "text_config": LLAMA,
                     "vision_config": {**CLIP, "model_type": "instructblip_vision_model"},
                     "qformer_config": {"vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2,
                                        "num_attention_heads": 2, "intermediate_size": 40, "encoder_hidden_size": 24},
                     "num_query_tokens": 4},
    "qwen2_vl": {"model_type": "qwen2_vl", "text_config": text("qwen2_vl_text", rope_parameters=MROPE),
                 "vision_config": {"depth": 2, "embed_dim": 16, "num_heads": 2, "hidden_size": 32, "mlp_ratio": 2,
                                   "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}},
    "qwen2_5_vl": {"model_type": "qwen2_5_vl", "text_config": text("qwen2_5_vl_text", rope_parameters=MROPE),
                   "vision_config": {"depth": 2, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24,
                                     "out_hidden_size": 32, "patch_size": 4, "spatial_merge_size": 2,
                                     "temporal_patch_size": 2, "window_size": 16, "fullatt_block_indexes": [1]}},
    "qwen3_vl": {"model_type": "qwen3_vl", "text_config": text("qwen3_vl_text", rope_parameters=MROPE, head_dim=8),
                 "vision_config": {"depth": 2, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24,
                                   "out_hidden_size": 32, "patch_size": 4, "spatial_merge_size": 2,
                                   "temporal_patch_size": 2, "num_position_embeddings": 16,
                                   "deepstack_visual_indexes": [0, 1]}},
    "qwen3_vl_moe": {"model_type": "qwen3_vl_moe",
                     "text_config": text("qwen3_vl_moe_text", rope_parameters=MROPE, head_dim=8, **QWEN_EXPERTS),
                     "vision_config": {"depth": 2, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24,
                                       "out_hidden_size": 32, "patch_size": 4, "spatial_merge_size": 2,
                                       "temporal_patch_size": 2, "num_position_embeddings": 16,
                                       "deepstack_visual_indexes": [0, 1]}},
    "internvl": {"model_type": "internvl", "text_config": text("qwen2"),
                 "vision_config": {**CLIP, "model_type": "internvl_vision", "image_size": [16, 16],
                                   "patch_size": [4, 4]}},
    "idefics3": {"model_type": "idefics3", "text_config": LLAMA, "scale_factor": 2,
                 "vision_config": {**CLIP, "model_type": "idefics3_vision", "patch_size": 4}},
    "paligemma": {"model_type": "paligemma", "text_config": text("gemma", head_dim=8), "vision_config": SIGLIP,
                  "projection_dim": 32},
    "gemma3": {"model_type": "gemma3", "text_config": text("gemma3_text", head_dim=8), "vision_config": SIGLIP,
               "mm_tokens_per_image": 4, "boi_token_index": 5, "eoi_token_index": 6},
    "mllama": {"model_type": "mllama",
               "text_config": text("mllama_text_model", cross_attention_layers=[1], vocab_size=VOCABULARY,
                                   rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
               "vision_config": {"hidden_size": 16, "num_hidden_layers": 2, "num_global_layers": 1,
                                 "attention_heads": 2, "intermediate_size": 24, "image_size": 16, "patch_size": 8,
                                 "max_num_tiles": 2, "vision_output_dim": 32, "intermediate_layers_indices": [0],
                                 "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]]}},
    "mplug_owl2": text("mplug_owl2", visual_config={
        "visual_model": {key: value for key, value in CLIP.items() if key != "model_type"},
        "visual_abstractor": {"hidden_size": 24, "encoder_hidden_size": 24, "intermediate_size": 20, "grid_size": 2,
                              "num_hidden_layers": 2, "num_attention_heads": 2, "num_learnable_queries": 4}}),
}  # fmt: skip

NAMES = (*TEXT, *IMAGE_TEXT)


def tiny(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[nn.Module, dict[str, Any]]:
    """A tiny random model of one architecture, in evaluation mode, and inputs of one forward pass (batch of one)."""
    torch.manual_seed(seed)
    settings = dict({**TEXT, **IMAGE_TEXT}[name])
    kind = settings.pop("model_type")
    if name in IMAGE_TEXT:
        settings.update({"image_token_id": IMAGE, "image_token_index": IMAGE})
    config = transformers.AutoConfig.for_model(kind, **settings)
    auto = transformers.AutoModelForCausalLM
    if name in IMAGE_TEXT:
        auto = transformers.AutoModelForImageTextToText
    elif config.is_encoder_decoder:
        auto = transformers.AutoModelForSeq2SeqLM
    module = auto.from_config(config, dtype=torch.float32).eval()
    if name == "llama_shared":
        module.model.layers[2].mlp = module.model.layers[0].mlp
    shake(module)
    inputs = image_inputs(name, module) if name in IMAGE_TEXT else text_inputs()
    if dtype == torch.float64:  # the fused kernels of experts take no doubles
        module.set_experts_implementation("eager")
    return module.to(dtype), inputs


@torch.no_grad()
def shake(module: nn.Module) -> None:
    """Draw every parameter and every float buffer that corrects a score, so that none is zero, one or negligible."""
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    for parameter in module.parameters():
        if parameter.dim() < 2:
            parameter.add_(0.3 * torch.randn_like(parameter))
        else:
            width = min(parameter[0].numel(), parameter.shape[-1])
            parameter.normal_(std=0.5 if id(parameter) in embeddings else 1 / math.sqrt(width))
    for name, buffer in module.named_buffers():
        if name.endswith("bias") and buffer.is_floating_point() and buffer.dim() == 1:
            buffer.add_(0.3 * torch.randn_like(buffer))


def text_inputs() -> dict[str, Any]:
    ids = torch.tensor([[1, 11, 23, 12, 41, 30, 9]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def image_inputs(name: str, module: Any) -> dict[str, Any]:
    """Pixels, and token ids with as many image tokens as the model makes features of them."""
    inputs = PIXELS.get(name, _one_image)(module)
    count = 1 if name == "mllama" else _features(name, module, inputs)
    ids = torch.tensor([[1, *[IMAGE] * count, 11, 23, 12, 41, 30]])
    inputs["input_ids"] = ids
    inputs["attention_mask"] = torch.ones_like(ids)
    if name in ("gemma3", "paligemma"):
        inputs["token_type_ids"] = (ids == IMAGE).long() if name == "gemma3" else torch.zeros_like(ids)
    if name.startswith("qwen"):
        inputs["mm_token_type_ids"] = (ids == IMAGE).long()
    if name == "mllama":
        inputs["cross_attention_mask"] = torch.ones(1, ids.shape[1], 1, 2, dtype=torch.long)
        inputs["cross_attention_mask"][..., 1] = 0
    return inputs


def _features(name: str, module: Any, inputs: dict[str, Any]) -> int:
    if name in ("blip_2", "instructblip"):
        return module.config.num_query_tokens
    with torch.no_grad():
        found = module.get_image_features(**inputs)
    found = getattr(found, "pooler_output", found)
    if isinstance(found, Tensor):
        return found.reshape(-1, found.shape[-1]).shape[0]
    return sum(part.reshape(-1, part.shape[-1]).shape[0] for part in found)


def _pixels(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def _one_image(module: Any) -> dict[str, Any]:
    return {"pixel_values": _pixels(1, 3, 16, 16)}


def _tiles(module: Any) -> dict[str, Any]:
    return {"pixel_values": _pixels(1, 3, 3, 16, 16), "image_sizes": torch.tensor([[16, 32]])}


def _patches(module: Any) -> dict[str, Any]:
    return {"pixel_values": _pixels(16, 3 * 2 * 4 * 4), "image_grid_thw": torch.tensor([[1, 4, 4]])}


def _instruct(module: Any) -> dict[str, Any]:
    ids = torch.tensor([[3, 4, 5]])
    return {**_one_image(module), "qformer_input_ids": ids, "qformer_attention_mask": torch.ones_like(ids)}


def _mllama(module: Any) -> dict[str, Any]:
    return {
        "pixel_values": _pixels(1, 1, 2, 3, 16, 16),
        "aspect_ratio_ids": torch.tensor([[1]]),
        "aspect_ratio_mask": torch.tensor([[[1, 0]]]),
    }


PIXELS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "llava_next": _tiles,
    "llava_onevision": _tiles,
    "instructblip": _instruct,
    "qwen2_vl": _patches,
    "qwen2_5_vl": _patches,
    "qwen3_vl": _patches,
    "qwen3_vl_moe": _patches,
    "idefics3": lambda module: {"pixel_values": _pixels(1, 1, 3, 16, 16)},
    "mllama": _mllama,
}
