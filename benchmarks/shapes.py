"""Randomly initialized models of the shape of a LLaVA or Qwen2.5-VL, with a made-up vocabulary; nothing is downloaded.

Random weights alone would say one word for ever. So the embeddings are large, and the unembedding of a token is the
embedding of another: the model walks through its vocabulary, and one word of three is a noun to the tagger.
"""

from __future__ import annotations

import string
from typing import Any

import torch

import neuronwise as nw


def _rope(sections: list[int]) -> dict[str, Any]:
    return {"rope_type": "default", "mrope_section": sections, "rope_theta": 1e6}


TEXT: dict[str, dict[str, Any]] = {
    "llava-1.5-7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                     "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064},
    "llava-1.5-13b": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
                      "num_attention_heads": 40, "num_key_value_heads": 40, "vocab_size": 32064},
    "llava-0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
                   "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 32064},
    "qwen2.5-vl-7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
                      "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
                      "rope_parameters": _rope([16, 24, 24])},
    "tiny": {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
             "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 512},
    "tiny-qwen": {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
                  "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 512,
                  "rope_parameters": _rope([2, 3, 3])},
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
QWEN_VISION: dict[str, dict[str, Any]] = {
    "qwen2.5-vl-7b": {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420,
                      "out_hidden_size": 3584, "patch_size": 14, "window_size": 112,
                      "fullatt_block_indexes": [7, 15, 23, 31]},
    "tiny-qwen": {"depth": 2, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24, "out_hidden_size": 64,
                  "patch_size": 4, "window_size": 16, "fullatt_block_indexes": [1]},
}  # fmt: skip
QWEN_TOKENS = {"qwen2.5-vl-7b": 576, "tiny-qwen": 16}  # of a photo, at most
CHAT = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{{ '<|vision_start|> <|image_pad|> <|vision_end|>' if part['type'] == 'image' else part['text'] }} "
    "{% endfor %}{% endfor %}"
)
STEP = 7  # so many tokens on is what the model says next


def random_model(shape: str, dtype: torch.dtype, device: str, seed: int = 0) -> nw.Model:
    """A model of that shape that says about as many nouns as a caption."""
    from transformers import AutoModelForImageTextToText

    config, processor = _qwen(shape) if shape in QWEN_VISION else _llava(shape)
    torch.manual_seed(seed)
    with torch.device(device):
        module: Any = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    with torch.no_grad():
        words = module.get_input_embeddings().weight.normal_(std=30.0)
        module.get_output_embeddings().weight.copy_(words.roll(STEP, dims=0) / 30)
    module.generation_config.update(eos_token_id=None, pad_token_id=0, bos_token_id=1)
    return nw.Model(module.eval(), processor, name=f"random weights in the shape of {shape}")


def _llava(shape: str) -> tuple[Any, Any]:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    text, vision = TEXT[shape], VISION[shape]
    tokenizer = made_up_tokenizer(text["vocab_size"], "<image>")
    config = LlavaConfig(
        text_config=LlamaConfig(**text, max_position_embeddings=4096),
        vision_config=CLIPVisionConfig(**vision),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(vision["image_size"] // vision["patch_size"]) ** 2,
    )
    return config, _processor(vision, tokenizer)


def _qwen(shape: str) -> tuple[Any, Any]:
    from transformers import Qwen2_5_VLConfig, Qwen2VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    text, vision = TEXT[shape], QWEN_VISION[shape]
    marks = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    tokenizer = made_up_tokenizer(text["vocab_size"], *marks)
    pixels = (2 * vision["patch_size"]) ** 2
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 4 * pixels, "longest_edge": QWEN_TOKENS[shape] * pixels},
        patch_size=vision["patch_size"], merge_size=2, temporal_patch_size=2,
    )  # fmt: skip
    image, video, start, end = tokenizer.convert_tokens_to_ids(list(marks))
    config = Qwen2_5_VLConfig(
        text_config={**text, "max_position_embeddings": 4096, "bos_token_id": 1, "eos_token_id": None},
        vision_config={**vision, "spatial_merge_size": 2, "temporal_patch_size": 2},
        image_token_id=image, video_token_id=video, vision_start_token_id=start, vision_end_token_id=end,
    )  # fmt: skip

    class Photos(Qwen2VLProcessor):
        def check_argument_for_proper_class(self, argument_name: str, argument: object) -> None:
            """There is no processor of videos, whose class needs torchvision."""

    return config, Photos(images, tokenizer, None, chat_template=CHAT)


def made_up_tokenizer(size: int, *marks: str) -> Any:
    """A vocabulary of ``size`` invented words, one of three of letters, the others numbers; and the image's marks."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", *marks]
    words = [_syllables(i) if i % 3 == 0 else str(i) for i in range(size - len(special))]
    vocabulary = {word: number for number, word in enumerate(words + special)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", additional_special_tokens=list(marks)
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
