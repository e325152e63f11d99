"""MiniGPT-4's language model: the folder of a LLaMA, and its tokenizer with a token for the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuronwise.architectures.convert.plan import Recipe, taken
from neuronwise.architectures.convert.weights import Weights, open_weights
from neuronwise.errors import ModelError
from neuronwise.model.complete import settings_of

IMAGE_TOKEN = "<image>"
DELTA = 0.05  # the mean gain of a final norm below which weights are differences, to be added to LLaMA's


@dataclass(frozen=True)
class Language:
    """The folder of the language model: LLaMA's configuration, weights and tokenizer (with the image's token)."""

    path: Path
    config: Any
    weights: Weights
    tokenizer: Any
    image_token_id: int

    @property
    def label(self) -> str:
        """What messages call it: the folder's name."""
        return self.path.name

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its weights."""
        return self.weights["lm_head.weight"].dtype

    @property
    def rows(self) -> int:
        """Tokens that the model will know: its own, and the image's where no row is spare for it."""
        return max(self.config.vocab_size, self.image_token_id + 1)

    def grown(self) -> Any:
        """The configuration with a row for the image's token."""
        settings = self.config.to_dict()
        settings["vocab_size"] = self.rows
        if (settings.get("pad_token_id") or 0) < 0:  # as folders of 2023 say that there is none
            settings["pad_token_id"] = None
        return type(self.config)(**settings)

    def take(self, name: str) -> Recipe:
        """A tensor of the language model; a new token's rows are those of the unknown token, never said either."""
        if name not in ("model.embed_tokens.weight", "lm_head.weight"):
            return taken(self.weights, name)
        more, unknown = self.rows - self.config.vocab_size, self.tokenizer.unk_token_id or 0
        grow: Callable[[Tensor], Tensor] = lambda rows: torch.cat([rows, rows[unknown : unknown + 1].repeat(more, 1)])  # noqa: E731
        return taken(self.weights, name, make=grow) if more else taken(self.weights, name)


def open_language(folder: Path) -> Language:
    """Open a LLaMA folder; raises ``ModelError`` for other architectures, deltas, and folders that lack something."""
    from transformers import LlamaConfig

    model_type = settings_of(folder).get("model_type")
    if model_type != "llama":
        raise ModelError(
            f"'{folder}' looks like a model of type '{model_type}'; MiniGPT-4 is built on LLaMA (Vicuna v0 "
            "or Llama-2 Chat)."
        )
    weights = open_weights(folder)
    config = LlamaConfig.from_pretrained(folder)
    if "lm_head.weight" not in weights or "model.norm.weight" not in weights:
        raise ModelError(f"'{folder}' is not a LLaMA with a head: it lacks lm_head.weight or model.norm.weight.")
    if float(weights["model.norm.weight"].read().float().abs().mean()) < DELTA:
        raise ModelError(
            f"'{folder}' looks like delta weights: add them to LLaMA's first (python -m fastchat.model.apply_delta)."
        )
    tokenizer = _tokenizer(folder)
    return Language(folder, config, weights, tokenizer, tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))


def _tokenizer(folder: Path) -> Any:
    """The folder's tokenizer as MiniGPT-4 uses it: each stretch of text between special tokens begins with a space."""
    from tokenizers import pre_tokenizers
    from transformers import AddedToken, LlamaTokenizer, PreTrainedTokenizerFast

    if not any((folder / name).is_file() for name in ("tokenizer.model", "tokenizer.json")):
        raise ModelError(f"'{folder}' has no tokenizer (tokenizer.model or tokenizer.json).")
    try:
        read = LlamaTokenizer.from_pretrained(folder)
    except ImportError as error:
        raise ModelError(
            "A tokenizer.model is read by sentencepiece and protobuf: pip install 'neuronwise[convert]'."
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"The tokenizer in '{folder}' cannot be opened: {reason}") from error
    backend = read.backend_tokenizer
    if isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace):
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=read.bos_token or "<s>",
        eos_token=read.eos_token or "</s>",
        unk_token=read.unk_token or "<unk>",
    )
    tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, normalized=False, special=True)], special_tokens=True)
    return tokenizer
