"""Laying out a prompt: chat template, the image's place in it, and the tokens of a target."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from neuronwise.errors import PromptError, TargetError
from neuronwise.model.protocols import Processor, Tokenizer

Inputs = dict[str, Tensor]  # what a model's forward takes, by name
INSTRUCTION = "Describe the image in few words."
# Models that follow no instructions have a habit of their own; everything with a chat template gets INSTRUCTION.
HABITS = {
    "paligemma": "caption en",
    "blip-2": "a photo of",
    "git": "",
    "kosmos-2": "<grounding> An image of",
    "instructblip": INSTRUCTION,
    "pix2struct": "",
    "blip": "a photo of",
}
# How the chat models among those ask, where a processor brings no chat template (those of old revisions bring none):
# the formats of their model cards. Where the tokenizer knows the marks of a chat format, that format is the model's.
_TEMPLATES = {
    "llava": "USER: {image}\n{prompt} ASSISTANT:",
    "llava_next": "[INST] {image}\n{prompt} [/INST]",
    "llava_onevision": "<|im_start|>user {image}\n{prompt}<|im_end|><|im_start|>assistant\n",
    "vipllava": "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the human's questions.###Human: {image}\n{prompt}###Assistant:",
    "mplug_owl2": "USER: {image}{prompt} ASSISTANT:",
    "minigpt4": "###Human: <Img>{image}</Img> {prompt} ###Assistant: ",  # as it was trained
    "minigpt4_patches": "[INST] <Img>{image}</Img> {prompt} [/INST] ",
}
_MARKED = {
    "<|im_start|>": "<|im_start|>user\n{image}\n{prompt}<|im_end|><|im_start|>assistant\n",
    "<|start_header_id|>": "<|start_header_id|>user<|end_header_id|>\n\n{image}\n{prompt}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
}


@dataclass(frozen=True)
class Prompted:
    """A prompt as the model gets it: the tensors of the first forward pass, batch of one."""

    prompt: str
    chat: bool
    inputs: Inputs = field(repr=False)

    @property
    def input_ids(self) -> list[int]:
        """The tokens of the prompt."""
        return self.inputs["input_ids"][0].tolist()


def default_prompt(model_type: str, has_template: bool, has_image: bool) -> str:
    """What to ask when the user did not say; raises ``PromptError`` for text models, which must be asked something."""
    if not has_image:
        raise PromptError("Without an image a prompt is needed, such as prompt='The capital of France is'.")
    return INSTRUCTION if has_template or model_type in _TEMPLATES else HABITS.get(model_type, "a photo of")


def lay_out(
    processor: Processor,
    tokenizer: Tokenizer,
    model_type: str,
    prompt: str | None,
    image: Image.Image | None,
    chat: bool | None,
    reads_end: bool = False,
) -> Prompted:
    """Apply the chat template where there is one (``chat=None``) and turn prompt and image into tensors.

    ``reads_end``: the end token that some tokenizers append stays (an encoder wants it, a decoder would go on after
    the end).
    """
    owners = (processor,) if image is not None else (tokenizer, processor)
    template_owner = next((owner for owner in owners if getattr(owner, "chat_template", None)), None)
    has_template = template_owner is not None
    if prompt is None:
        prompt = default_prompt(model_type, has_template, image is not None)
    if not prompt.strip() and not (image is not None and HABITS.get(model_type) == ""):
        raise PromptError("The prompt is empty; write what the model should continue or answer.")
    if chat and not has_template:
        raise PromptError("This model has no chat template; leave chat out or set it to False.")
    chat = has_template if chat is None else chat
    if image is None:
        return Prompted(prompt, chat, _text_inputs(tokenizer, template_owner if chat else None, prompt, reads_end))
    if not hasattr(processor, "image_processor"):
        raise PromptError("This model has no image processor, so it cannot look at an image; leave the image out.")
    return Prompted(prompt, chat, _image_inputs(processor, model_type, prompt, image, chat))


def _text_inputs(
    tokenizer: Tokenizer, template_owner: Processor | Tokenizer | None, prompt: str, reads_end: bool
) -> Inputs:
    if template_owner is not None:
        text = template_owner.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        # A tokenizer's template holds all special tokens; a processor's leaves the first to the tokenizer, or has it.
        bos = getattr(tokenizer, "bos_token", None)
        special = template_owner is not tokenizer and not (bos and text.startswith(bos))
        return _tensors(tokenizer(text, return_tensors="pt", add_special_tokens=special))
    inputs = _tensors(tokenizer(prompt, return_tensors="pt"))
    length, ends = inputs["input_ids"].shape[1], (tokenizer.eos_token_id, getattr(tokenizer, "sep_token_id", None))
    if not reads_end and length > 1 and int(inputs["input_ids"][0, -1]) in ends:
        # Some tokenizers close every text; a decoder is asked to go on.
        return {name: value[:, :-1] if value.shape[:2] == (1, length) else value for name, value in inputs.items()}
    return inputs


def _image_inputs(processor: Processor, model_type: str, prompt: str, image: Image.Image, chat: bool) -> Inputs:
    mark = image_mark(processor)
    places = prompt.count(mark) if mark else 0
    if places > (0 if chat else 1):
        where = ", whose place is in the chat template; leave {} out" if chat else "; write it once, or leave it out"
        raise PromptError(f"The prompt has {places} {mark} and 1 image is given{where.format(mark)}.")
    if chat:
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        bos = getattr(processor.tokenizer, "bos_token", None)
        special = not (bos and text.startswith(bos))
        return _tensors(processor(images=image, text=text, return_tensors="pt", add_special_tokens=special))
    if mark and not places and (model_type not in HABITS or _reads_marks(processor)):
        kind = "minigpt4" if model_type in HABITS else model_type
        prompt = image_format(kind, processor.tokenizer).format(image=mark, prompt=prompt)
    return _tensors(processor(images=image, text=prompt, return_tensors="pt"))


def image_format(model_type: str, tokenizer: Tokenizer) -> str:
    """Where {image} and {prompt} stand in what a model without a chat template is asked."""
    if model_type == "llava_next":  # one architecture around many language models
        known = tokenizer.get_vocab()
        found = next((written for mark, written in _MARKED.items() if mark in known), None)
        if found is not None:
            return found
    return _TEMPLATES.get(model_type, "{image}\n{prompt}")


def _reads_marks(processor: object) -> bool:
    """Whether the image is where the prompt says, in an architecture whose own processor puts it first.

    MiniGPT-4 is BLIP-2 with LLaVA's processor.
    """
    return type(processor).__name__ == "LlavaProcessor"


def image_mark(processor: object) -> str | None:
    """The text that stands for an image in a prompt of this processor, if it has one."""
    for name in ("boi_token", "image_token"):
        mark = getattr(processor, name, None)
        mark = getattr(mark, "content", mark)  # some processors keep it as an AddedToken
        if isinstance(mark, str) and mark:
            return mark
    return None


def _tensors(encoded: Mapping[str, object]) -> Inputs:
    return {
        name: value if isinstance(value, Tensor) else torch.as_tensor(value)
        for name, value in dict(encoded).items()
        if name != "labels" and (isinstance(value, Tensor) or _is_numeric(value))  # PaliGemma's would ask for a loss
    }


def _is_numeric(value: object) -> bool:
    try:
        torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return True


@dataclass(frozen=True)
class TargetTokens:
    """A target's tokens, or those of what it is contrasted with (``role``); the first is scored.

    ``note`` says so where there are several.
    """

    text: str
    token_ids: tuple[int, ...]
    role: str = "target"

    @property
    def token_id(self) -> int:
        """The first token, which is scored."""
        return self.token_ids[0]

    @property
    def note(self) -> str | None:
        """What a reader must know of a target of several tokens; None for one token."""
        if len(self.token_ids) == 1:
            return None
        return f"The {self.role} {self.text!r} is {len(self.token_ids)} tokens; scored is the first."


def exact_tokens(tokenizer: Tokenizer | None, vocabulary: int, target: str | int, role: str = "target") -> TargetTokens:
    """Tokens of a target: a token id as it is, or a string exactly as written (" Paris" is not "Paris").

    SentencePiece tokenizers write the leading space of a word themselves; there, one leading space of the target is
    taken as that space. ``role`` is what messages call it. Raises ``TargetError`` for an empty target, one outside of
    the vocabulary, and for a text where there is no tokenizer.
    """
    if isinstance(target, int):
        if not 0 <= target < vocabulary:
            raise TargetError(f"There is no token {target}: the vocabulary has ids 0 to {vocabulary - 1}.")
        text = f"token {target}" if tokenizer is None else _decode(tokenizer, [target])
        return TargetTokens(text, (target,), role)
    if tokenizer is None:
        raise TargetError(f"This model has no tokenizer; name the {role} by its token id.")
    if not target.strip():
        raise TargetError(f"The {role} is empty; name a word such as ' Paris'.")
    ids = tokenizer(target, add_special_tokens=False)["input_ids"]
    if len(ids) > 1 and not _decode(tokenizer, ids[:1]).strip():
        # A space of its own may be real (byte-level tokenizers split numbers off); SentencePiece has written one more.
        without = tokenizer(target.lstrip(" "), add_special_tokens=False)["input_ids"]
        if without and str(tokenizer.convert_ids_to_tokens(without[0])).startswith("▁"):
            ids = without
    unknown = getattr(tokenizer, "unk_token_id", None)
    if not ids or ids[0] >= vocabulary or (unknown is not None and ids[0] == unknown):
        raise TargetError(f"The {role} {target!r} is not in this model's vocabulary.")
    return TargetTokens(target, tuple(ids), role)


def target_tokens(
    tokenizer: Tokenizer | None, vocabulary: int, target: str | int, role: str = "target"
) -> TargetTokens:
    """``exact_tokens`` of what is to be scored; warns when there are several, since the first alone is scored."""
    found = exact_tokens(tokenizer, vocabulary, target, role)
    if found.note:
        warnings.warn(found.note, stacklevel=3)
    return found


def _decode(tokenizer: Tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)
