"""Tiny random models that speak: words of the tiny tokenizer, of a text or of a photo."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

import families
from neuronwise.answers.naming import names
from neuronwise.model.model import Model

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8))


def speaker(name: str, tokenizer: Any, dtype: torch.dtype = torch.float32, seed: int = 0) -> Model:
    """A model of one family ("llama", "gpt2", "mixtral", "llava") whose vocabulary is the tokenizer's."""
    torch.manual_seed(seed)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    settings = dict({**families.TEXT, **families.IMAGE_TEXT}[name])
    kind, size = settings.pop("model_type"), {"vocab_size": len(tokenizer)}
    if name != "llava":
        config = transformers.AutoConfig.for_model(kind, **{**settings, **size, "eos_token_id": None})
        module = transformers.AutoModelForCausalLM.from_config(config)
    else:
        settings["text_config"] = {**settings["text_config"], **size, "eos_token_id": None}
        token = tokenizer.convert_tokens_to_ids("<image>")
        config = transformers.AutoConfig.for_model(kind, **settings, image_token_id=token, image_token_index=token)
        module = transformers.AutoModelForImageTextToText.from_config(config)
    families.shake(module)
    return Model(module.eval().to(dtype), _processor(tokenizer) if name == "llava" else tokenizer, name=name)


def _processor(tokenizer: Any) -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    square = {"height": 16, "width": 16}
    images = CLIPImageProcessorPil(size=square, crop_size=square)
    return transformers.LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default", image_token="<image>",
        num_additional_image_tokens=1,
    )  # fmt: skip


def spoken(model: Model, photo: bool = False, prompt: str = "the cat sits on", tokens: int = 6) -> Any:
    return model.run(PHOTO if photo else None, prompt, max_new_tokens=tokens)


# The word that the random model says, by family and seed (the tiny vocabulary's words).
SPEAKERS = {"llama": (1, "house"), "gpt2": (0, "animal"), "mixtral": (0, "cat"), "llava": (0, "France")}


def given(name: str, tokenizer: Any, dtype: torch.dtype = torch.float32) -> tuple[Model, Any, str]:
    """A speaker, a run of it, and a word that it says."""
    seed, word = SPEAKERS[name]
    model = speaker(name, tokenizer, dtype, seed)
    run = spoken(model, photo=name == "llava")
    return model, run, word if names(run.text, word) else run.text.split()[0]  # half precision may say another
