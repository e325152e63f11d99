"""Randomly initialized image-text models of a known shape, with a made-up vocabulary: nothing is downloaded.

Random weights alone would say one word for ever. So the embeddings are large, and the unembedding of a token is the
embedding of another: the model walks through its vocabulary, and one word of three is a noun to the tagger.
"""

from __future__ import annotations

import string
from typing import Any

import torch

import neuronwise as nw

TEXT: dict[str, dict[str, Any]] = {
    "llava-1.5-7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                     "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064},
    "llava-1.5-13b": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
                      "num_attention_heads": 40, "num_key_value_heads": 40, "vocab_size": 32064},
    "llava-0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
                   "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 32064},
    "tiny": {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
             "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 512},
}  # fmt: skip
_CLIP_LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
               "num_attention_heads": 16, "image_size": 336, "patch_size": 14, "projection_dim": 768}  # fmt: skip
VISION: dict[str, dict[str, Any]] = {
    "llava-1.5-7b": _CLIP_LARGE,
    "llava-1.5-13b": _CLIP_LARGE,
    "llava-0.5b": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
                   "num_attention_heads": 12, "image_size": 224, "patch_size": 16, "projection_dim": 512},
    "tiny": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 4, "image_size": 32, "patch_size": 8, "projection_dim": 32},
}  # fmt: skip
STEP = 7  # so many tokens on is what the model says next


def random_model(shape: str, dtype: torch.dtype, device: str, seed: int = 0) -> nw.Model:
    """A LLaVA of that shape that says about as many nouns as a caption."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    text, vision = TEXT[shape], VISION[shape]
    tokenizer = made_up_tokenizer(text["vocab_size"])
    config = LlavaConfig(
        text_config=LlamaConfig(**text, max_position_embeddings=4096),
        vision_config=CLIPVisionConfig(**vision),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(vision["image_size"] // vision["patch_size"]) ** 2,
    )
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            module: Any = LlavaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        words = module.get_input_embeddings().weight.normal_(std=30.0)
        module.get_output_embeddings().weight.copy_(words.roll(STEP, dims=0) / 30)
    module.generation_config.update(eos_token_id=None, pad_token_id=0, bos_token_id=1)
    return nw.Model(module, _processor(vision, tokenizer), name=f"random weights in the shape of {shape}")


def made_up_tokenizer(size: int) -> Any:
    """A vocabulary of ``size`` invented words, one of three of letters, the others numbers; and the image token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "<image>"]
    words = [_syllables(i) if i % 3 == 0 else str(i) for i in range(size - len(special))]
    vocabulary = {word: number for number, word in enumerate(words + special)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", additional_special_tokens=["<image>"]
    )


def _syllables(number: int) -> str:
    vowels = "aeiou"
    consonants = [letter for letter in string.ascii_lowercase if letter not in vowels]
    word = ""
    for _ in range(3):
        number, at = divmod(number, len(vowels) * len(consonants))
        word += consonants[at // len(vowels)] + vowels[at % len(vowels)]
    return word


def _processor(vision: dict[str, Any], tokenizer: Any) -> Any:
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    side = vision["image_size"]
    images = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=vision["patch_size"],
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
    )
