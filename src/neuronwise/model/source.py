"""From the name of a model to its checkpoint and what opens it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PretrainedConfig

from neuronwise.errors import ModelError, NeuronwiseError
from neuronwise.model.sources import SOURCES

# What checkpoints of some types hold that are easily taken for one another.
RELATIVES = {
    "mplug-owl": "mPLUG-Owl (the first)",
    "mplug_owl": "mPLUG-Owl (the first)",
    "mplug_owl2_1": "mPLUG-Owl2.1 (built on Qwen)",
    "mplug_docowl": "mPLUG-DocOwl",
    "mplug_docowl2": "mPLUG-DocOwl2",
    "mplugowl3": "mPLUG-Owl3",
    "mplug_owl3": "mPLUG-Owl3",
    "llava": "LLaVA",
    "llava_llama": "LLaVA in its authors' layout (the converted ones have type llava)",
    "llava_mistral": "LLaVA in its authors' layout (the converted ones have type llava_next)",
    "llama": "a plain LLaMA",
    "blip-2": "BLIP-2",
    "instructblip": "InstructBLIP",
}


def relative_of_type(model_type: object) -> str | None:
    """What a checkpoint of this ``model_type`` holds, as a name for a message; None for what is not known."""
    return RELATIVES.get(str(model_type).lower())


def register_families() -> None:
    """Make transformers know the architectures that it lacks and this package brings."""
    import_module("neuronwise.architectures.register")


def checkpoint_of(name: str) -> tuple[str, dict[str, str]]:
    """The folder or hub id behind a name, and what ``from_pretrained`` needs beside it: the file, for a .gguf file.

    The built-in model is made when it is not there yet. Raises ``ModelError`` for what is not a GGUF file.
    """
    if name in SOURCES:
        return os.fspath(SOURCES[name](name)), {}
    if name.endswith(".gguf"):
        path, file = _gguf(name)
        return path, {"gguf_file": file}
    return name, {}


@contextlib.contextmanager
def opening(failure: str, known: Callable[[], str | None] = lambda: None) -> Iterator[None]:
    """What transformers raises in the body becomes a ``ModelError``: ``failure``, and the reason in one line.

    ``known`` may know a better reason than the error's own words.
    """
    try:
        yield
    except NeuronwiseError:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        ImportError,
        RuntimeError,
        AttributeError,
        AssertionError,
        SafetensorError,
    ) as error:
        reason = known() or next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"{failure}: {reason}") from error


def auto_class(config: PretrainedConfig) -> Any:  # an Auto class, which has no base
    """The Auto class that opens a configuration; raises ``ModelError`` for models that write no text."""
    import transformers
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )

    kind = config.model_type
    registered = type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if registered or kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return transformers.AutoModelForImageTextToText
    if kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES and getattr(config, "is_encoder_decoder", False):
        return transformers.AutoModelForSeq2SeqLM
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or getattr(config, "auto_map", None):
        return transformers.AutoModelForCausalLM
    raise ModelError(f"A model of type '{kind}' writes no text, so it has no neurons behind words.")


def _gguf(path: str) -> tuple[str, str]:
    file = Path(path)
    if not file.is_file():
        raise ModelError(f"There is no file '{path}'.")
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ModelError(f"'{path}' is not a GGUF file.")
    return os.fspath(file.parent), file.name
