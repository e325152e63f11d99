"""Laying out prompts: templates, habits, marks, ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from neuronwise.errors import PromptError
from neuronwise.model.prompt import INSTRUCTION, Ask, exact_tokens, lay_out

TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %} [me]{% endif %}"
)


class FakeProcessor:
    """Writes down what it was asked, and answers with as many ids as there are characters."""

    image_processor = object()
    image_token = "<img>"

    def __init__(self, tokenizer: Any, chat_template: str | None = None) -> None:
        self.tokenizer, self.chat_template, self.asked = tokenizer, chat_template, []

    def apply_chat_template(self, messages: list[dict[str, Any]], **_: Any) -> str:
        return "".join("<img>" if p["type"] == "image" else p["text"] for m in messages for p in m["content"]) + " [me]"

    def __call__(self, images: Any, text: str, **settings: Any) -> dict[str, Any]:
        self.asked.append((text, settings))
        return {"input_ids": torch.ones(1, len(text), dtype=torch.long), "pixel_values": torch.zeros(1, 3, 2, 2)}


def image_prompt(tokenizer: Any, kind: str, prompt: str | None, template: str | None, chat: bool | None = None) -> Any:
    processor: Any = FakeProcessor(tokenizer, template)
    prompted = lay_out(processor, tokenizer, kind, Ask(prompt, (Image.new("RGB", (2, 2)),), chat))
    return prompted, processor.asked[0][0]


def test_a_template_is_applied_where_there_is_one(tiny_tokenizer: Any) -> None:
    prompted, text = image_prompt(tiny_tokenizer, "any", None, "template")
    assert (prompted.prompt, prompted.chat, text) == (INSTRUCTION, True, f"<img>{INSTRUCTION} [me]")


def test_without_a_template_the_image_is_marked(tiny_tokenizer: Any) -> None:
    assert image_prompt(tiny_tokenizer, "any", "what", None)[1] == "<img>\nwhat"
    assert image_prompt(tiny_tokenizer, "any", "a <img> b", None)[1] == "a <img> b"
    assert image_prompt(tiny_tokenizer, "llava", "what", None)[1] == "USER: <img>\nwhat ASSISTANT:"
    prompted, text = image_prompt(tiny_tokenizer, "any", "what", "template", chat=False)
    assert (text, prompted.chat) == ("<img>\nwhat", False)


def test_habits(tiny_tokenizer: Any) -> None:
    assert image_prompt(tiny_tokenizer, "paligemma", None, None)[1] == "caption en"
    assert image_prompt(tiny_tokenizer, "blip-2", None, None)[1] == "a photo of"
    assert image_prompt(tiny_tokenizer, "instructblip", None, None)[1] == INSTRUCTION


def test_a_text_is_taken_as_it_stands_or_through_the_template(tiny_tokenizer: Any) -> None:
    tiny_tokenizer.chat_template = TEMPLATE
    try:
        plain = lay_out(tiny_tokenizer, tiny_tokenizer, "llama", Ask("the cat", chat=False))
        chat = lay_out(tiny_tokenizer, tiny_tokenizer, "llama", Ask("the cat"))
    finally:
        tiny_tokenizer.chat_template = None
    assert plain.input_ids == tiny_tokenizer("the cat")["input_ids"]
    assert chat.chat
    assert chat.input_ids == tiny_tokenizer("[user] the cat [me]", add_special_tokens=False)["input_ids"]


class Closing:
    """A tokenizer that closes every text."""

    chat_template, eos_token_id, sep_token_id = None, 9, None

    def __call__(self, text: str, **_: Any) -> dict[str, Any]:
        return {"input_ids": torch.tensor([[4, 5, 9]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}


def test_a_decoder_is_not_asked_to_go_on_after_the_end() -> None:
    closing: Any = Closing()
    decoder = lay_out(closing, closing, "any", Ask("the", chat=False))
    encoder = lay_out(closing, closing, "any", Ask("the", chat=False), reads_end=True)
    assert decoder.input_ids == [4, 5]
    assert decoder.inputs["attention_mask"].shape == (1, 2)
    assert encoder.input_ids == [4, 5, 9]


def test_what_cannot_be_asked(tiny_tokenizer: Any) -> None:
    photo = (Image.new("RGB", (2, 2)),)
    processor: Any = FakeProcessor(tiny_tokenizer)
    with pytest.raises(PromptError, match="empty"):
        lay_out(processor, tiny_tokenizer, "any", Ask(" ", photo))
    with pytest.raises(PromptError, match="no chat template"):
        lay_out(processor, tiny_tokenizer, "any", Ask("what", photo, True))
    with pytest.raises(PromptError, match="no image processor"):
        lay_out(tiny_tokenizer, tiny_tokenizer, "any", Ask("what", photo))


@pytest.mark.builtin
def test_the_space_before_a_number_is_a_token_of_its_own(builtin_text: Any) -> None:
    tokens = exact_tokens(builtin_text.tokenizer, builtin_text.vocabulary_size, " 79")
    assert [builtin_text.tokenizer.decode([token]) for token in tokens.token_ids] == [" ", "7", "9"]
    prompt = "The number is"
    whole = builtin_text.tokenizer(f"{prompt} 79")["input_ids"]
    assert whole == [*builtin_text.tokenizer(prompt)["input_ids"], *tokens.token_ids]
