"""What models without a chat template are asked: the formats of their model cards."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from neuronwise.model.prompt import INSTRUCTION, default_prompt, image_format

WRITTEN = {
    "llava": "USER: <image>\nWhat? ASSISTANT:",
    "llava_next": "[INST] <image>\nWhat? [/INST]",
    "llava_onevision": "<|im_start|>user <image>\nWhat?<|im_end|><|im_start|>assistant\n",
    "mplug_owl2": "USER: <image>What? ASSISTANT:",
    "anything": "<image>\nWhat?",
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_formats(kind: str, tiny_tokenizer: Any) -> None:
    assert image_format(kind, tiny_tokenizer).format(image="<image>", prompt="What?") == WRITTEN[kind]


def test_vipllava_has_its_own_words(tiny_tokenizer: Any) -> None:
    asked = image_format("vipllava", tiny_tokenizer).format(image="<image>", prompt="What?")
    assert asked.startswith("A chat between a curious human")
    assert asked.endswith("###Human: <image>\nWhat?###Assistant:")


@pytest.mark.parametrize(
    ("mark", "begins"),
    [("<|im_start|>", "<|im_start|>user\n<image>"),
     ("<|start_header_id|>", "<|start_header_id|>user<|end_header_id|>\n\n<image>")],
)  # fmt: skip
def test_one_architecture_around_several_language_models(mark: str, begins: str, tiny_tokenizer: Any) -> None:
    """LLaVA-NeXT around Yi or Llama 3 asks in their words: the tokenizer knows the marks."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": [mark]})
    assert image_format("llava_next", tokenizer).format(image="<image>", prompt="What?").startswith(begins)
    assert image_format("llava", tokenizer) == image_format("llava", tiny_tokenizer)


def test_chat_models_are_given_the_instruction() -> None:
    for kind in ("llava", "llava_next", "vipllava", "mplug_owl2", "instructblip"):
        assert default_prompt(kind, has_template=False, has_image=True) == INSTRUCTION
    assert default_prompt("blip-2", has_template=False, has_image=True) == "a photo of"
