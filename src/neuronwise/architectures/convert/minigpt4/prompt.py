"""MiniGPT-4's conversations: how the image is wrapped in the question, and where an answer ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronwise.architectures.convert.minigpt4.language import IMAGE_TOKEN, Language

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's
_SYSTEM = (
    "Give the following image: <Img>ImageContent</Img>. You will be able to see the image once I provide it to you. "
    "Please answer my questions."
)


@dataclass(frozen=True)
class Prompt:
    """A variant's conversation: what comes first, around what a person and the model say, and where it stops."""

    opening: str
    person: str
    after_person: str
    model: str
    after_model: str
    stop: tuple[str, ...] = ()

    def template(self) -> str:
        """The conversation as a Jinja chat template; an image is in <Img> before the words."""
        said = (
            "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
            "{% for part in message['content'] %}{% if part['type'] == 'image' %}<Img>" + IMAGE_TOKEN + "</Img>"
            "{% if not loop.last %}{{ ' ' }}{% endif %}{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
        )
        return (
            f"{{{{ bos_token }}}}{self.opening}{{% for message in messages %}}"
            f"{{% if message['role'] == 'user' %}}{self.person}{said}{self.after_person}"
            f"{{% elif message['role'] == 'assistant' %}}{self.model}{said}{self.after_model}{{% endif %}}"
            f"{{% endfor %}}{{% if add_generation_prompt %}}{self.model}{{% endif %}}"
        )


# As the published demonstrations ask; they begin with the tokenizer's own begin token, so that MiniGPT-v2 has two.
PROMPTS = {
    "vicuna": Prompt(f"{_SYSTEM}###", "Human: ", "###", "{{ 'Assistant: ' }}", "###", ("###",)),
    "llama2": Prompt(_SYSTEM, "{{ bos_token }}[INST] ", "", "{{ ' [/INST] ' }}", ""),
    "v2": Prompt("", "{{ bos_token }}[INST] ", "", "{{ ' [/INST]' }}", ""),
}


def companions(folder: Path, language: Language, variant: str, size: int, image_tokens: int) -> None:
    """Write tokenizer, processor and generation settings into ``folder``.

    The processor is LLaVA's, which replaces the image's mark in the prompt by ``image_tokens`` tokens. Its
    ``patch_size`` is the width in pixels of a square cell of that many (``size`` for the Q-Former's queries, which are
    counted as additional ones).
    """
    from transformers import GenerationConfig, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    images = CLIPImageProcessorPil(
        size={"height": size, "width": size}, do_center_crop=False, resample=3, image_mean=MEAN, image_std=STD
    )
    square = variant == "vicuna"
    processor = LlavaProcessor(
        images, language.tokenizer,
        patch_size=size if square else round(size / image_tokens**0.5),
        num_additional_image_tokens=image_tokens - 1 if square else 0,
        vision_feature_select_strategy="full", image_token=IMAGE_TOKEN,
        chat_template=PROMPTS[variant].template(),
    )  # fmt: skip
    processor.save_pretrained(folder)
    ends = language.tokenizer.eos_token_id
    settings: dict[str, Any] = {"suppress_tokens": [language.image_token_id]}
    if PROMPTS[variant].stop:
        settings["stop_strings"] = list(PROMPTS[variant].stop)
    GenerationConfig(
        bos_token_id=language.tokenizer.bos_token_id, eos_token_id=ends, pad_token_id=ends, **settings
    ).save_pretrained(folder)
