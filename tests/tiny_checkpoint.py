"""The tiny checkpoint of text that most tests stand on, made without pytest: workers and scripts make it too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vocabulary import WORDS


def made_tokenizer() -> Any:
    """One token for each word of WORDS, spaces before words, and byte fallbacks for none: the rest is unknown."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, ".": 3}
    for word in WORDS:
        vocabulary[f"▁{word}"] = len(vocabulary)
    for piece in ("zi", "▁gra", "ffe"):
        vocabulary[piece] = len(vocabulary)
    tokenizer = Tokenizer(models.Unigram([(token, -1.0) for token in vocabulary], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def written_tiny(folder: Path, tokenizer: Any) -> Path:
    """A tiny random LLaMA with its tokenizer, saved into a folder as an ordinary Hugging Face folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=len(tokenizer), initializer_range=0.3, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
