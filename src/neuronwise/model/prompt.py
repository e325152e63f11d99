"""Laying out a prompt: chat template, the image's place in it, and the tokens of a target."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from PIL import Image
from torch import Tensor

from neuronwise.errors import PromptError, TargetError, reason, told
from neuronwise.images import ImageLike, open_image
from neuronwise.images.open import file_of
from neuronwise.model.chat import Message, photos_in, render, require_conversation, reworded, text_of, with_places
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
class Preface:
    """``text`` that is read before every prompt, and the ``lead`` between it and the prompt."""

    text: str
    lead: str = ""


def before_prompts(prefaces: Sequence[Preface]) -> str:
    """What is read before a prompt: all texts in order, then the lead of the last."""
    return "".join(preface.text for preface in prefaces) + (prefaces[-1].lead if prefaces else "")


@dataclass(frozen=True)
class Ask:
    """What is asked: a prompt (None: in the model's own habit) or a whole conversation, about photos or none.

    ``chat=None`` applies the chat template where there is one; ``template`` are options that the template reads.
    """

    prompt: str | None = None
    images: tuple[Image.Image, ...] = ()
    chat: bool | None = None
    messages: tuple[Message, ...] = ()
    template: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        image: ImageLike | Sequence[ImageLike] | None,
        prompt: str | None,
        chat: bool | None,
        messages: Sequence[Message] | None,
        template: Mapping[str, object] | None,
    ) -> Ask:
        """As users say it, the photos opened; raises ``PromptError`` for what contradicts itself, ``ImageError``."""
        if prompt is not None and not isinstance(prompt, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise PromptError(f"A prompt is a text, not {type(prompt).__name__}.")
        if messages is not None:
            require_conversation(messages)
        if messages and prompt is not None:
            raise PromptError("Give either a prompt or messages, not both.")
        if messages and chat is False:
            raise PromptError("Messages are written by the chat template; leave chat out.")
        photos = photos_in(messages or ())
        if photos and image is not None:
            raise PromptError("Give photos either in the messages or as image=, not both.")
        if image is not None:
            photos = list(image) if isinstance(image, list | tuple) else [cast("ImageLike", image)]
        return cls(prompt, tuple(map(open_image, photos)), chat, tuple(messages or ()), dict(template or {}))

    @property
    def record(self) -> dict[str, object]:
        """What a prompt and the name of one photo do not say, as plain JSON values."""
        said = [{**message, "content": text_of(message)} for message in self.messages]
        several = list(map(file_of, self.images)) if len(self.images) > 1 else []
        found: dict[str, object] = {"messages": said, "template": dict(self.template), "images": several}
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True)
class Prompted:
    """A prompt as the model gets it: the tensors of the first forward pass, batch of one.

    ``note`` says what a reader must know of how it was laid out. ``ask`` is what was asked for.
    """

    prompt: str
    chat: bool
    inputs: Inputs = field(repr=False)
    ask: Ask = field(default_factory=Ask, repr=False)
    note: str | None = None

    @property
    def input_ids(self) -> list[int]:
        """The tokens of the prompt."""
        return self.inputs["input_ids"][0].tolist()


def asked_of(images: Sequence[Image.Image | None]) -> str:
    """What a model is asked, in words."""
    sizes = ", ".join(f"{image.width} × {image.height}" for image in images if image is not None)
    return f"this prompt and photo ({sizes})" if sizes else "this prompt"


def default_prompt(model_type: str, has_template: bool, has_image: bool) -> str:
    """What to ask when the user did not say; raises ``PromptError`` for text models, which must be asked something."""
    if not has_image:
        raise PromptError("Without an image a prompt is needed, such as prompt='The capital of France is'.")
    return INSTRUCTION if has_template or model_type in _TEMPLATES else HABITS.get(model_type, "a photo of")


def lay_out(
    processor: Processor, tokenizer: Tokenizer, model_type: str, ask: Ask, reads_end: bool = False, before: str = ""
) -> Prompted:
    """Apply the chat template where there is one (``chat=None``) and turn prompt and photos into tensors.

    ``reads_end``: the end token that some tokenizers append stays (an encoder wants it, a decoder would go on after
    the end). ``before`` is put before the prompt, in a conversation before its last question. Raises ``PromptError``.
    """
    owners = (processor,) if ask.images else (tokenizer, processor)
    owner = next((owner for owner in owners if getattr(owner, "chat_template", None)), None)
    if (ask.chat or ask.messages) and owner is None:
        raise PromptError("This model has no chat template; give a prompt, and leave chat and messages out.")
    chat = owner is not None and ask.chat is not False
    if ask.template and not chat:
        raise PromptError("Options of the chat template have no effect here: no chat template is applied.")
    if ask.images and not hasattr(processor, "image_processor"):
        raise PromptError("This model has no image processor, so it cannot look at an image; leave the image out.")
    if ask.messages:
        prompt = text_of([message for message in ask.messages if message["role"] == "user"][-1])
    else:
        prompt = default_prompt(model_type, owner is not None, bool(ask.images)) if ask.prompt is None else ask.prompt
    if not prompt.strip() and not ask.messages and not (ask.images and HABITS.get(model_type) == ""):
        raise PromptError("The prompt is empty; write what the model should continue or answer.")
    prompt = before + prompt
    mark = image_mark(processor)
    if owner is not None and chat:
        messages = reworded(ask.messages, prompt) if before and ask.messages else ask.messages
        asked = messages or ({"role": "user", "content": prompt},)
        _require_no_marks(asked, mark if ask.images else None)
        text = render(owner, with_places(asked, len(ask.images)), ask.template, mark)
        inputs = _written_inputs(processor, tokenizer, text, ask.images, whole=owner is tokenizer)
    elif ask.images:
        text = _with_marks(processor, model_type, prompt, mark, len(ask.images))
        inputs = _photo_inputs(processor, text, ask.images)
    else:
        inputs = _plain_inputs(tokenizer, prompt, reads_end)
    return Prompted(prompt, chat, inputs, ask, _doubled(tokenizer, prompt, inputs, chat))


def _written_inputs(
    processor: Processor, tokenizer: Tokenizer, text: str, images: Sequence[Image.Image], *, whole: bool
) -> Inputs:
    """Of a text that a template wrote: a tokenizer's holds all special tokens (``whole``); a processor's leaves the
    first to the tokenizer, or has it."""
    bos = getattr(tokenizer, "bos_token", None)
    special = not whole and not (bos and text.startswith(bos))
    if images:
        return _photo_inputs(processor, text, images, add_special_tokens=special)
    return _tensors(tokenizer(text, return_tensors="pt", add_special_tokens=special))


def _plain_inputs(tokenizer: Tokenizer, prompt: str, reads_end: bool) -> Inputs:
    inputs = _tensors(tokenizer(prompt, return_tensors="pt"))
    length, ends = inputs["input_ids"].shape[1], (tokenizer.eos_token_id, getattr(tokenizer, "sep_token_id", None))
    if not reads_end and length > 1 and int(inputs["input_ids"][0, -1]) in ends:
        # Some tokenizers close every text; a decoder is asked to go on.
        return {name: value[:, :-1] if value.shape[:2] == (1, length) else value for name, value in inputs.items()}
    return inputs


def _photo_inputs(processor: Processor, text: str, images: Sequence[Image.Image], **options: object) -> Inputs:
    """What the processor makes of a text and its photos; raises ``PromptError`` where it does not take several."""
    if len(images) == 1:
        return _tensors(processor(images=images[0], text=text, return_tensors="pt", **options))
    mark, failed = image_mark(processor), "its prompt has the place of one"
    fits = mark is not None and text.count(mark) == len(images)
    for given in ([list(images)], list(images)) if fits else ():  # some take a list for each text, some one list
        try:
            inputs = _tensors(processor(images=given, text=text, return_tensors="pt", **options))
        except Exception as error:  # processors raise anything
            failed = reason(error)
            continue
        if len(inputs["input_ids"]) == 1:
            return inputs
        failed = "it makes several prompts of them"
    raise PromptError(f"This model's processor takes one photo, not {len(images)}: {failed}.")


def _require_no_marks(messages: Sequence[Message], mark: str | None) -> None:
    if mark and any(mark in text_of(message) for message in messages):
        raise PromptError(f"The prompt has {mark}, whose place is in the chat template; leave {mark} out.")


def _with_marks(processor: Processor, model_type: str, prompt: str, mark: str | None, photos: int) -> str:
    """The prompt with its photos' marks: where it says, or where the model's format has them."""
    places = prompt.count(mark) if mark else 0
    if places not in (0, photos):
        given = f"{photos} image is" if photos == 1 else f"{photos} images are"
        raise PromptError(f"The prompt has {places} {mark} and {given} given; write as many, or leave {mark} out.")
    if mark and not places and (model_type not in HABITS or _reads_marks(processor)):
        kind = "minigpt4" if model_type in HABITS else model_type
        return image_format(kind, processor.tokenizer).format(image="\n".join([mark] * photos), prompt=prompt)
    return prompt


def _doubled(tokenizer: Tokenizer, prompt: str, inputs: Inputs, chat: bool) -> str | None:
    """A note on marks of the prompt that tokenizer or template write as well."""
    ids, bos = inputs["input_ids"][0].tolist(), getattr(tokenizer, "bos_token_id", None)
    if bos is not None and ids[:2] == [bos, bos]:
        return (
            f"The prompt begins with {getattr(tokenizer, 'bos_token', bos)} twice: the model's own is added to yours."
        )
    marks = [mark for mark in getattr(tokenizer, "all_special_tokens", ()) if chat and mark and mark in prompt]
    if marks:
        return f"The prompt holds {', '.join(marks)}, and the chat template writes its own; chat=False adds none."
    return None


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
    with told(TargetError, f"The {role} {target!r} cannot be turned into tokens"):
        ids = tokenizer(target, add_special_tokens=False)["input_ids"]
    if len(ids) > 1 and not _decode(tokenizer, ids[:1]).strip():
        # A space of its own may be real (byte-level tokenizers split numbers off); SentencePiece has written one more.
        without = tokenizer(target.lstrip(" "), add_special_tokens=False)["input_ids"]
        if without and str(tokenizer.convert_ids_to_tokens(without[0])).startswith("▁"):
            ids = without
    unknown = None if role == "text" else getattr(tokenizer, "unk_token_id", None)  # a text may begin with anything
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
