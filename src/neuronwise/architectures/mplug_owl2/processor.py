"""mPLUG-Owl2's prompts: where the photo goes among the words, and as how many tokens."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import AddedToken, AutoConfig, BatchFeature, ProcessorMixin

from neuronwise.architectures.mplug_owl2.images import MPLUGOwl2ImageProcessor
from neuronwise.errors import ModelError, PromptError

IMAGE_TOKEN = "<|image|>"
FILES = {
    "tokenizer": ("tokenizer.model", "tokenizer.json"),
    "image settings": ("preprocessor_config.json", "processor_config.json"),
}
# USER: <|image|>question ASSISTANT: answer</s>USER: …
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% set content = message['content'] %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ 'ASSISTANT: ' + (content if content is string else content | map(attribute='text') | join) + eos_token }}"
    "{% else %}"
    "{{ 'USER: ' }}"
    "{% if content is string %}{{ content }}{% else %}"
    "{% for part in content %}{{ '<|image|>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{% endif %}{{ ' ' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


class MPLUGOwl2Processor(ProcessorMixin):
    """Joins the tokenizer and the image processor: each `<|image|>` of a text becomes `image_tokens` image tokens.

    As published, the pieces of text between images are tokenized one by one, so each begins like a text of its own.
    The vocabulary has no image token; the tokenizer gets one, with the first id after the vocabulary.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        image_tokens: int = 65,
        **kwargs: Any,
    ):
        if not isinstance(image_processor, MPLUGOwl2ImageProcessor):
            image_processor = MPLUGOwl2ImageProcessor.as_published(image_processor)
        tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True)], special_tokens=True)
        if hasattr(tokenizer, "legacy"):  # how text after </s> begins; transformers does not save it by itself
            tokenizer.init_kwargs["legacy"] = tokenizer.legacy
        self.image_tokens = image_tokens
        self.image_token = IMAGE_TOKEN
        self.image_token_id: int = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> Any:
        """Reads a published folder or one of ours.

        Raises `ModelError` when tokenizer or image settings are not there, or are another model's.
        """
        _require_files(pretrained_model_name_or_path)
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        config = AutoConfig.from_pretrained(pretrained_model_name_or_path, revision=kwargs.get("revision"))
        processor.image_tokens = config.image_tokens
        if processor.image_token_id != config.image_token_index:
            raise ModelError(
                f"The tokenizer in '{pretrained_model_name_or_path}' has {processor.image_token_id} tokens, but the "
                f"model has {config.image_token_index}: they do not belong together."
            )
        return processor

    def __call__(  # type: ignore[override]
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        *,
        add_special_tokens: bool = True,
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Input ids and mask (B, T), padded on the tokenizer's side, and `pixel_values` (images, 3, H, W).

        `images` are in the order of their places in the texts. Raises `PromptError` when there are more or fewer.
        """
        if text is None:
            raise PromptError("mPLUG-Owl2 needs a text, such as 'USER: <|image|>Describe the image. ASSISTANT:'.")
        texts = [text] if isinstance(text, str) else list(text)
        given = [] if images is None else images if isinstance(images, list | tuple) else [images]
        places = sum(one.count(IMAGE_TOKEN) for one in texts)
        if places != len(given):
            raise PromptError(
                f"The text has {places} {IMAGE_TOKEN} and {len(given)} image(s) are given; each image needs one place."
            )
        rows = [self._ids(one, add_special_tokens) for one in texts]
        encoded: dict[str, Any] = dict(_padded(rows, self.tokenizer))
        if given:
            encoded["pixel_values"] = self.image_processor(given, return_tensors="pt")["pixel_values"]
        if return_tensors is None:
            return BatchFeature({name: value.tolist() for name, value in encoded.items()})
        return BatchFeature(encoded, tensor_type=return_tensors)

    def _ids(self, text: str, add_special_tokens: bool) -> list[int]:
        begin = self.tokenizer.bos_token
        if begin and text.startswith(begin):
            text, add_special_tokens = text[len(begin) :], True
        ids = [self.tokenizer.bos_token_id] if begin and add_special_tokens else []
        for number, piece in enumerate(text.split(IMAGE_TOKEN)):
            if number:
                ids += [self.image_token_id] * self.image_tokens
            if piece:  # SentencePiece sets a space before each text, also before one that begins with a space
                piece = f" {piece}" if piece.startswith(" ") else piece
                ids += self.tokenizer(piece, add_special_tokens=False)["input_ids"]
        return ids

    @property
    def model_input_names(self) -> list[str]:
        """The names of what the model reads."""
        return ["input_ids", "attention_mask", "pixel_values"]


def _require_files(source: str | os.PathLike[str]) -> None:
    folder = Path(source)
    if not folder.is_dir():  # of the hub
        return
    for what, names in FILES.items():
        if not any((folder / name).is_file() for name in names):
            raise ModelError(f"The folder '{source}' has no {what}: it holds neither {' nor '.join(names)}.")
    if not (folder / "tokenizer.json").is_file():
        for package in ("sentencepiece", "google.protobuf"):
            try:
                import_module(package)
            except ImportError as error:
                raise ModelError(
                    f"The tokenizer.model in '{source}' is read by sentencepiece and protobuf; install them with "
                    "pip install 'neuronwise[convert]'."
                ) from error


def _padded(rows: list[list[int]], tokenizer: Any) -> dict[str, torch.Tensor]:
    longest = max(len(row) for row in rows)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids = torch.full((len(rows), longest), pad or 0, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        start = longest - len(row) if tokenizer.padding_side == "left" else 0
        ids[number, start : start + len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, start : start + len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}
