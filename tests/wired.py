"""A tiny LLaVA wired by hand: it says "dog" when there is red in the photo, and what writes it is known.

Layer 0 carries the amount of red from the image's tokens to every later position. In layer 1
- PLANTED units fire with red and write "dog",
- DECOYS fire with red and write nothing that a word reads,
- HABITS fire always and write "dog" a little.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from PIL import Image

from neuronwise.model.model import Model

PLANTED, DECOYS, HABITS = (3, 11, 40), (20, 21), (30, 31)
SIDE, PATCH = 28, 7
RED, CARRIED, ALWAYS, DOG, NOWHERE = 5, 7, 6, 20, 25  # dimensions of the stream


def wired_llava(tokenizer: Any, noise: float = 0.002) -> Model:
    """The model with its processor; ``noise`` is on the feed-forward weights of the unwired units."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    text = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=1, num_key_value_heads=1,
        vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE,
        patch_size=PATCH,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=image_token, vision_feature_layer=-1,
        vision_feature_select_strategy="default", image_seq_length=(SIDE // PATCH) ** 2, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    module: Any = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.zero_()
        _wire_vision(module)
        _wire_text(module, tokenizer, noise)
    size = {"height": SIDE, "width": SIDE}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size=size, do_center_crop=False, crop_size=size, image_mean=[0.0] * 3, image_std=[1.0] * 3
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    return Model(module, processor, name="wired llava")


def _wire_vision(module: Any) -> None:
    """Red less green and blue, normalized by the first norm, goes into dimension RED at the patch's token."""
    tower = module.model.vision_tower
    tower = getattr(tower, "vision_model", tower)
    weight = tower.embeddings.patch_embedding.weight
    weight[0, 0], weight[0, 1], weight[0, 2] = 0.1, -0.05, -0.05
    projector = module.model.multi_modal_projector
    projector.linear_1.bias.zero_()
    projector.linear_2.bias.zero_()
    projector.linear_1.weight[0, 0] = 1.0
    projector.linear_2.weight[RED, 0] = 1.0
    projector.linear_2.bias[ALWAYS] = 1.0


def _wire_text(module: Any, tokenizer: Any, noise: float) -> None:
    language = module.model.language_model
    language.embed_tokens.weight[:, ALWAYS] = 1.0
    first, second = language.layers
    first.self_attn.v_proj.weight[0, RED] = 1.0
    first.self_attn.o_proj.weight[CARRIED, 0] = 3.0
    feed = second.mlp
    for part in (feed.gate_proj, feed.up_proj, feed.down_proj):
        part.weight.copy_(noise * torch.randn(part.weight.shape))
    for unit in (*PLANTED, *DECOYS):
        feed.gate_proj.weight[unit, CARRIED] = feed.up_proj.weight[unit, CARRIED] = 1.0
        feed.down_proj.weight[:, unit] = 0.0
        feed.down_proj.weight[DOG if unit in PLANTED else NOWHERE, unit] = 2.0
    for unit in HABITS:
        feed.gate_proj.weight[unit, ALWAYS] = feed.up_proj.weight[unit, ALWAYS] = 1.0
        feed.down_proj.weight[:, unit] = 0.0
        feed.down_proj.weight[DOG, unit] = 0.3
    dog, mat = (tokenizer.convert_tokens_to_ids(f"▁{word}") for word in ("dog", "mat"))
    module.lm_head.weight[dog, DOG] = 4.0
    module.lm_head.weight[mat, ALWAYS] = 1.0


def red_square(left: int, top: int, size: int = 14, seed: int = 0) -> tuple[Image.Image, np.ndarray[Any, Any]]:
    """A gray photo with a red square, and the square's mask (28, 28)."""
    pixels = np.random.default_rng(seed).integers(90, 110, (SIDE, SIDE, 1)).repeat(3, 2).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top : top + size, left : left + size] = True
    pixels[mask] = (255, 0, 0)
    return Image.fromarray(pixels), mask
