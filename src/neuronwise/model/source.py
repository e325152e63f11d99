"""From the name of a model to its checkpoint and what opens it."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from neuronwise.errors import ModelError, NeuronwiseError, is_out_of_memory, reason
from neuronwise.files import read_bytes
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

# Types of configurations that `neuronwise.architectures.register` adds to transformers.
FAMILIES = ("dinov2_grid", "efficientnet_lite", "minigpt4_patches", "mplug_owl2", "paired_grid")


def relative_of_type(model_type: object) -> str | None:
    """What a checkpoint of this ``model_type`` holds, as a name for a message; None for what is not known."""
    return RELATIVES.get(str(model_type).lower())


def register_families(checkpoint: str) -> None:
    """Make transformers know the architectures that it lacks and this package brings, where a checkpoint may need them.

    One whose settings lie in a folder and name none of them, such as a model of text, is opened without the image
    encoders' imports.
    """
    try:
        settings = read_bytes(Path(checkpoint) / "config.json").decode()
    except (OSError, ValueError):
        settings = None
    if settings is None or any(f'"{kind}"' in settings for kind in FAMILIES):
        import_module("neuronwise.architectures.register")


def checkpoint_of(name: str) -> tuple[str, dict[str, str]]:
    """The folder or hub id behind a name, and what ``from_pretrained`` needs beside it: the file, for a .gguf file.

    The built-in model is made when it is not there yet. Raises ``ModelError`` for what is not a GGUF file, for a folder
    that does not exist, and for a name that is one of ``SOURCES`` misspelled.
    """
    if name in SOURCES:
        return os.fspath(SOURCES[name](name)), {}
    if name.endswith(".gguf"):
        path, file = _gguf(name)
        return path, {"gguf_file": file}
    path = Path(name)
    if not path.is_dir():
        close = difflib.get_close_matches(name, SOURCES, n=1, cutoff=0.8)
        if close:
            raise ModelError(f"There is no model {name!r}; did you mean {close[0]!r}?")
        if path.exists() or name.startswith((".", "/", "~")) or len(path.parts) > 2 or _is_inside_a_folder(path):
            raise ModelError(f"'{name}' is neither a folder with a checkpoint nor a .gguf file nor a model of the hub.")
    return name, {}


def _is_inside_a_folder(path: Path) -> bool:
    return path.parent != Path() and path.parent.is_dir()


@contextlib.contextmanager
def opening(failure: str, known: Callable[[], str | None] = lambda: None) -> Iterator[None]:
    """What transformers raises in the body becomes a ``ModelError``: ``failure``, and the reason in one line.

    ``known`` may know a better reason than the error's own words.
    """
    try:
        yield
    except NeuronwiseError:
        raise
    except Exception as error:  # whatever transformers, tokenizers and the hub raise
        raise ModelError(f"{failure}: {known() or _reason(error)}") from error


def _reason(error: Exception) -> str:
    """An error's words in one line; in plain words where they would be about our call or the hub's address."""
    words = reason(error)
    if is_out_of_memory(error):
        return f"out of memory; try dtype='bfloat16' or device_map='auto', or check its configuration ({words})."
    option = re.search(r"unexpected keyword argument '(\w+)'", words)
    if option is not None:
        return f"it has no option {option[1]!r}; options go to from_pretrained of transformers, such as device_map."
    if "not a valid model identifier" in words:
        return "there is no such folder, and the hub has no model of that name, or it is private."
    if "couldn't connect" in words.lower():
        return "there is no such folder, and the hub cannot be reached to look for a model of that name."
    return words


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
