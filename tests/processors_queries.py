"""The families whose image tokens are answers to queries, tiny and with their processors, as in ``processors``."""

from __future__ import annotations

from typing import Any

import transformers

import families
from processor_parts import CLIP, NORMAL, QUESTION, SIDE, SQUARE, VOCABULARY, pil, text, tokenizer

Built = tuple[dict[str, Any], Any, str]


QFORMER = {"vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
           "intermediate_size": 40, "encoder_hidden_size": 24}  # fmt: skip


def blip_2() -> Built:
    tokens = tokenizer()
    processor = transformers.Blip2Processor(pil("blip")(size=SQUARE, **NORMAL), tokens, num_query_tokens=4)
    config = {"model_type": "blip-2", "text_config": {"model_type": "opt", **families.OPT, "vocab_size": VOCABULARY},
              "vision_config": {**CLIP, "model_type": "blip_2_vision_model"}, "qformer_config": QFORMER,
              "num_query_tokens": 4, "image_token": "<image>"}  # fmt: skip
    return config, processor, QUESTION


def instructblip() -> Built:
    tokens = tokenizer()
    processor = transformers.InstructBlipProcessor(
        pil("blip")(size=SQUARE, **NORMAL), tokens, tokenizer(), num_query_tokens=4
    )
    config = {"model_type": "instructblip", "text_config": text("llama"), "qformer_config": QFORMER,
              "vision_config": {**CLIP, "model_type": "instructblip_vision_model"},
              "num_query_tokens": 4, "image_token": "<image>"}  # fmt: skip
    return config, processor, QUESTION


def idefics2() -> Built:
    tokens = tokenizer(image_token="<image>", image_boundary_token="<fake_token_around_image>")
    images = pil("idefics2")(size={"longest_edge": SIDE, "shortest_edge": 16}, do_image_splitting=True, **NORMAL)
    processor = transformers.Idefics2Processor(images, tokens, image_seq_len=4)
    config = {"model_type": "idefics2", "text_config": text("mistral"), "image_token": "<image>",
              "vision_config": {**CLIP, "model_type": "idefics2_vision"},
              "perceiver_config": {"hidden_size": 32, "resampler_n_latents": 4, "resampler_depth": 2,
                                   "resampler_n_heads": 2, "resampler_head_dim": 8,
                                   "num_key_value_heads": 2}}  # fmt: skip
    return config, processor, f"<image> {QUESTION}"


def idefics2_whole() -> Built:
    config, processor, prompt = idefics2()
    processor.image_processor.do_image_splitting = False
    return config, processor, prompt


def aria() -> Built:
    images = pil("aria")(max_image_size=490, min_image_size=98, split_image=False, **NORMAL)
    processor: Any = transformers.AriaProcessor(images, tokenizer(image_token="<image>"), size_conversion={490: 4})
    processor.images_kwargs = {**processor.images_kwargs, "max_image_size": 490}
    vision = {**CLIP, "model_type": "idefics3_vision", "image_size": 490, "patch_size": 49}
    config = {"model_type": "aria", "image_token": "<image>", "vision_config": vision,
              "text_config": text("aria_text", moe_num_experts=2, moe_num_shared_experts=1, moe_topk=1),
              "projector_patch_to_query_dict": {100: 4}}  # fmt: skip
    return config, processor, f"<image> {QUESTION}"


def kosmos_2() -> Built:
    images = pil("clip")(size=SQUARE, do_center_crop=False, **NORMAL)
    processor = transformers.Kosmos2Processor(images, tokenizer(), num_patch_index_tokens=4)
    processor.num_image_tokens = 4
    decoder = {"vocab_size": VOCABULARY, "max_position_embeddings": 64, "embed_dim": 32, "layers": 3, "ffn_dim": 48,
               "attention_heads": 4, "pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
    config = {"model_type": "kosmos-2", "text_config": decoder, "latent_query_num": 4,
              "vision_config": {**CLIP, "model_type": "kosmos_2_vision_model"}}  # fmt: skip
    return config, processor, QUESTION
