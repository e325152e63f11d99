"""What this package asks of tokenizers and processors, whoever made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Tokenizer(Protocol):
    """Text to token ids and back."""

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text."""
        ...

    @property
    def pad_token_id(self) -> int | None:
        """The token that fills a batch."""
        ...

    def __call__(self, text: str, **options: Any) -> Mapping[str, Any]: ...
    def decode(self, token_ids: Sequence[int], **options: Any) -> str:
        """The text of tokens."""
        ...

    def batch_decode(self, sequences: Sequence[Sequence[int]], **options: Any) -> list[str]:
        """The texts of several sequences of tokens."""
        ...

    def convert_ids_to_tokens(self, ids: int) -> str:
        """A token as the vocabulary writes it."""
        ...

    def get_vocab(self) -> dict[str, int]:
        """Every token with its id."""
        ...

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> str:
        """A conversation in the model's format."""
        ...


class Processor(Protocol):
    """A tokenizer with what turns images into tensors."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""
        ...

    @property
    def image_processor(self) -> object:
        """What turns images into tensors."""
        ...

    def __call__(self, **inputs: Any) -> Mapping[str, Any]: ...
    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> str:
        """A conversation in the model's format."""
        ...
