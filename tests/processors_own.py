"""The families that transformers lacks, tiny and with their processors, as in ``processors``."""

from __future__ import annotations

from typing import Any

import transformers

from processor_parts import CLIP, NORMAL, PATCH, QUESTION, SIDE, SQUARE, pil, text, tokenizer


def minigpt4_patches() -> tuple[dict[str, Any], Any, str]:
    from neuronwise.architectures import minigpt4  # registers the family

    assert minigpt4.JOINED == 4
    images = pil("clip")(size=SQUARE, do_center_crop=False, **NORMAL)
    processor = transformers.LlavaProcessor(
        images, tokenizer(image_token="<image>"), patch_size=2 * PATCH, vision_feature_select_strategy="full",
    )  # fmt: skip
    config = {"model_type": "minigpt4_patches", "text_config": text("llama"), "image_token": "<image>",
              "vision_config": {**CLIP, "model_type": "blip_2_vision_model"}}  # fmt: skip
    return config, processor, f"<image> {QUESTION}"


def mplug_owl2() -> tuple[dict[str, Any], Any, str]:
    from neuronwise.architectures.mplug_owl2 import MPLUGOwl2Processor
    from neuronwise.architectures.mplug_owl2.images import MPLUGOwl2ImageProcessor

    visual = {
        "visual_model": {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2,
                         "image_size": SIDE, "patch_size": PATCH},
        "visual_abstractor": {"num_learnable_queries": 4, "hidden_size": 24, "encoder_hidden_size": 24,
                              "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2,
                              "grid_size": SIDE // PATCH},
    }  # fmt: skip
    tokens = tokenizer()
    processor = MPLUGOwl2Processor(MPLUGOwl2ImageProcessor(size=SQUARE, **NORMAL), tokens, image_tokens=5)
    config = {**text("mplug_owl2"), "visual_config": visual, "image_token": "<|image|>"}
    return config, processor, f"<|image|>{QUESTION}"
