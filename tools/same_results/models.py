"""Tiny random models of several families, and photos for them, all in memory."""

from __future__ import annotations

import math
from typing import Any

WORDS = "the a cat dog sits on mat runs Paris France capital of is in red blue teddy bear animal house".split()


SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MIXTURE: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
T5: dict[str, Any] = {
    "d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 3, "num_decoder_layers": 3, "num_heads": 4, "pad_token_id": 2,
    "decoder_start_token_id": 2, "eos_token_id": 2,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": SIZES,
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2,
             "pad_token_id": 2},
    "gemma2": {**SIZES, "head_dim": 8, "final_logit_softcapping": 5.0},
    "mixtral": {**SIZES, **MIXTURE},
    "qwen2_moe": {**SIZES, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20,
                  "decoder_sparse_step": 1, "norm_topk_prob": True, "mlp_only_layers": [],
                  "shared_expert_intermediate_size": 24},
    "gpt_oss": {**SIZES, **MIXTURE, "head_dim": 8},
    "deepseek_v3": {**SIZES, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
                    "qk_nope_head_dim": 8, "v_head_dim": 8, "head_dim": 8, "n_routed_experts": 4,
                    "num_experts_per_tok": 2, "moe_intermediate_size": 20, "n_shared_experts": 1,
                    "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1},
    "t5": T5,
}  # fmt: skip


def tokenizer(*special: str) -> Any:
    """One token for each word of WORDS; the rest is unknown."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = ["<unk>", "<s>", "</s>", ".", *(f"▁{word}" for word in WORDS), "zi", "▁gra", "ffe"]
    made = Tokenizer(models.Unigram([(token, -1.0) for token in tokens], unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    made.decoder = decoders.Metaspace(prepend_scheme="never")
    found = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    found.add_special_tokens({"additional_special_tokens": list(special)})
    return found


def tiny(kind: str) -> Any:
    """A tiny random model in which every parameter moves the logits; "llava" has a processor too."""
    import torch
    import transformers

    import neuronwise as nw

    torch.manual_seed(0)
    if kind == "llava":
        module, processor = _llava()
    else:
        processor = tokenizer()
        config = transformers.AutoConfig.for_model(kind, vocab_size=len(processor), **FAMILIES[kind])
        auto = transformers.AutoModelForSeq2SeqLM if kind == "t5" else transformers.AutoModelForCausalLM
        module = auto.from_config(config, dtype=torch.float32).eval()
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, torch.nn.Embedding)}
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() < 2:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                width = min(parameter[0].numel(), parameter.shape[-1])
                parameter.normal_(std=0.5 if id(parameter) in embeddings else 1 / math.sqrt(width))
    return nw.Model(module, processor, name=kind)


def _llava() -> tuple[Any, Any]:
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words, side, patch = tokenizer("<image>"), 28, 7
    image = words.convert_tokens_to_ids("<image>")
    vision = {"model_type": "clip_vision_model", "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
              "num_attention_heads": 2, "image_size": side, "patch_size": patch}  # fmt: skip
    config = transformers.LlavaConfig(
        vision_config=vision, text_config={"model_type": "llama", **SIZES, "vocab_size": len(words)},
        image_token_index=image, vision_feature_layer=-1, vision_feature_select_strategy="default",
    )  # fmt: skip
    size = {"height": side, "width": side}
    pixels = CLIPImageProcessorPil(size=size, crop_size=size, do_center_crop=False)
    processor = transformers.LlavaProcessor(
        image_processor=pixels, tokenizer=words, patch_size=patch, image_token="<image>",
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip
    return transformers.LlavaForConditionalGeneration(config).eval(), processor


def square_photo(red: bool = True) -> Any:
    """A gray photo, with a red square or without."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(90, 110, (28, 28, 1)).repeat(3, 2).astype(np.uint8)
    if red:
        pixels[4:18, 7:21] = (255, 0, 0)
    return Image.fromarray(pixels)
