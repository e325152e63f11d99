"""What the processors of tiny image-text models are made of: sizes, a tokenizer with everyone's marks, and PIL."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerFast

import families

VOCABULARY, SIDE, PATCH = 160, 32, 4
MEAN, STD = [0.5] * 3, [0.5] * 3
SQUARE: dict[str, Any] = {"height": SIDE, "width": SIDE}
NORMAL: dict[str, Any] = {"image_mean": MEAN, "image_std": STD}
MARKS = (
    "<image>", "<video>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<boi>", "<eoi>",
    "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<img>", "</img>", "<IMG_CONTEXT>",
    "<|image|>", "<|video|>", "<|python_tag|>", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "<|IMG_PATCH|>",
    "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_LINE_BREAK|>", "<IMG_START>", "<IMG_ATOM>", "<IMG_GRID>", "<IMG_COL>",
    "<IMG_ROW>", "<IMG_END>", "<soft>",
    *(f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)),
)  # fmt: skip


def tokenizer(**named: str) -> Any:
    """One token for each word and each mark; ``named`` are the special tokens by the names that a processor reads."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3, "what": 4, "is": 5, "here": 6}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        extra_special_tokens=named,
    )  # fmt: skip
    made.add_special_tokens({"additional_special_tokens": [m for m in MARKS if m not in named.values()]})
    return made


def text(kind: str, **settings: Any) -> dict[str, Any]:
    return families.text(kind, **{"vocab_size": VOCABULARY, "max_position_embeddings": 4096, **settings})


CLIP = {**families.CLIP, "image_size": SIDE, "patch_size": PATCH}
SIGLIP = {**families.SIGLIP, "image_size": SIDE, "patch_size": PATCH}
PINPOINTS = [[2 * SIDE, 2 * SIDE], [SIDE, 2 * SIDE], [2 * SIDE, SIDE], [SIDE, 3 * SIDE], [3 * SIDE, SIDE]]
QUESTION = "what is here"


def pil(name: str) -> Any:
    """An image processor's class that needs PIL alone, by the name of its family."""
    module = __import__(f"transformers.models.{name}.image_processing_pil_{name}", fromlist=["x"])
    return next(
        v for k, v in vars(module).items() if k.endswith("ImageProcessorPil") and v.__module__ == module.__name__
    )
