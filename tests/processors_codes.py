"""The families that read a photo as codes of a learnt book, as in ``processors``, and a book that knows red alone.

Their encoders of photos are convolutions whose norms mix all of a photo; so the encoder's place is taken by one that
looks at the pixels of a code's square. What the family makes of the codes, with a token at each row's end or without,
stays its own.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import transformers
from torch import Tensor

from processor_parts import NORMAL, QUESTION, SIDE, pil, text, tokenizer

STRIDE = 8  # pixels along a code's square


def red_codes(pixel_values: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Code 1 where a square is more than half red, else 0, in the order of the pixels."""
    red = (pixel_values[:, 0] - pixel_values[:, 1] > 0.5).float()
    return SimpleNamespace(image_tokens=(torch.nn.functional.avg_pool2d(red, STRIDE) > 0.5).long())


def chameleon() -> tuple[dict[str, Any], Any, str]:
    tokens = tokenizer(image_token="<image>", boi_token="<boi>", eoi_token="<eoi>", sep_token="<sep>")
    tokens.add_tokens(["IMGIMGAZ", "IMGIMGBZ"])
    edge = 2 * SIDE
    images = pil("chameleon")(size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge})
    processor = transformers.ChameleonProcessor(images, tokens, image_seq_length=(edge // STRIDE) ** 2)
    config = {**text("chameleon"), "vocabulary_map": tokens.get_vocab(), "image_token": "<image>",
              "vq_config": {"base_channels": 32, "num_embeddings": 2, "resolution": edge, "embed_dim": 16,
                            "latent_channels": 16, "channel_multiplier": [1, 1], "num_res_blocks": 1}}  # fmt: skip
    return config, processor, f"<image> {QUESTION}"


def emu3() -> tuple[dict[str, Any], Any, str]:
    tokens = tokenizer(
        image_token="<image>", boi_token="<boi>", eoi_token="<eoi>", image_wrapper_token="<wrap>", eof_token="<eof>"
    )
    tokens.add_tokens(["<|visual token 000000|>", "<|visual token 000001|>", "<|extra_200|>"])
    images = transformers.Emu3ImageProcessor(min_pixels=SIDE**2, max_pixels=6 * SIDE**2, **NORMAL)
    processor = transformers.Emu3Processor(images, tokens)
    config = {"model_type": "emu3", "text_config": text("emu3_text_model"), "vocabulary_map": tokens.get_vocab(),
              "vq_config": {"base_channels": 32, "codebook_size": 2, "channel_multiplier": [1, 1, 1, 1],
                            "num_res_blocks": 1, "hidden_size": 32}}  # fmt: skip
    return config, processor, f"<image> {QUESTION}"
