"""Opening a model by name: a hub id, a folder, a .gguf file, or the built-in one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    PretrainedConfig,
)  # fmt: skip

from neuronwise.errors import ModelError
from neuronwise.files import from_json, read_bytes, read_object, shareable
from neuronwise.model.complete import require_shards, require_tensors, settings_of
from neuronwise.model.model import Model
from neuronwise.model.modes import own_mode
from neuronwise.model.source import auto_class, checkpoint_of, opening, register_families, relative_of_type
from neuronwise.model.sources import SOURCES
from neuronwise.model.state import Opened, state_of
from neuronwise.model.weights import precision

# Small files of a checkpoint, each one JSON object; the first must be there.
SETTINGS = (
    "config.json", "generation_config.json", "tokenizer_config.json", "preprocessor_config.json",
    "processor_config.json", "chat_template.json",
)  # fmt: skip


def load(
    source: str | os.PathLike[str],
    *,
    dtype: torch.dtype | str | None = None,
    device_map: str | Mapping[str, int | str | torch.device] | None = None,
    quantization_config: object = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
    check: bool = True,
    **options: object,
) -> Model:
    """Open a checkpoint with its processor or tokenizer and wrap it as a ``Model``.

    ``source``: a hub id ("llava-hf/llava-1.5-7b-hf"), a folder, a .gguf file, "builtin" (a small image-text model)
    or "builtin-text" (its language model alone). ``dtype``, ``device_map``, ``quantization_config`` and further
    options go to ``from_pretrained`` as they are; code that comes with a checkpoint runs only with
    ``trust_remote_code=True``. Raises ``ModelError`` for what is not a checkpoint or has no addressable neurons, and
    unless ``check=False`` for a checkpoint that lacks tensors of its model or has them in another shape.
    """
    try:
        name = os.fspath(source)
    except TypeError:
        name = ""
    if not name:
        raise ModelError(f"{source!r} does not name a model; give a hub id, a folder, a .gguf file or 'builtin'.")
    with opening(f"'{name}' cannot be opened"):
        path, within = checkpoint_of(name)
    given = {
        "dtype": dtype if dtype in (None, "auto") else precision(dtype),
        "device_map": device_map,
        "quantization_config": quantization_config,
        "revision": revision,
    }
    keywords = {"dtype": "auto"} | {key: value for key, value in given.items() if value is not None} | options | within
    shared: dict[str, object] = {"trust_remote_code": trust_remote_code, **within}
    if revision is not None:
        shared["revision"] = revision
    if not within:
        _require_checkpoint(path)
    path = os.path.abspath(path) if os.path.isdir(path) else path  # "a/b" would look like a model of the hub
    register_families(path)
    with own_mode(), opening(f"'{name}' cannot be opened as a model", lambda: _relative(path)):
        config = AutoConfig.from_pretrained(path, **shared)
        auto = auto_class(config)
        if check:  # tensors of another shape are listed with the others
            keywords |= {"ignore_mismatched_sizes": True, "output_loading_info": True}
        module = auto.from_pretrained(path, trust_remote_code=trust_remote_code, **keywords)
        if check:
            module, info = module
            require_tensors(name, module, info)
    with_images = auto is not AutoModelForCausalLM and "gguf_file" not in shared
    with opening(f"The {'processor' if with_images else 'tokenizer'} of '{name}' cannot be opened"):
        processor = (AutoProcessor if with_images else AutoTokenizer).from_pretrained(path, **shared)
    _complete(processor, config)
    with opening(f"'{name}' cannot be used"), own_mode():
        model = Model(module, processor, name=_called(name), check=check)
    model.source = name
    model.opened = Opened({**given, **options, "trust_remote_code": trust_remote_code}, state_of(model))
    return model


def outline(source: str | os.PathLike[str], *, trust_remote_code: bool = False) -> Model:
    """What ``load`` would open, on the meta device: layers, writers and widths, without memory for weights.

    ``source`` as for ``load``; a folder needs no more than its config.json. Raises ``ModelError`` as ``load`` does.
    """
    name = os.fspath(source)
    with opening(f"'{name}' cannot be opened"):
        path, within = checkpoint_of(name)
    register_families(path)
    options: dict[str, object] = {"trust_remote_code": trust_remote_code, **within}
    if Path(path).is_dir() and not within:
        settings_of(Path(path))
    with opening(f"The configuration of '{name}' cannot be opened"):
        config = AutoConfig.from_pretrained(path, **options)
        auto = auto_class(config)
        with torch.device("meta"):
            module = auto.from_config(config, trust_remote_code=trust_remote_code)
    return Model(module, name=_called(name), check=False)


def _called(name: str) -> str:
    """What a model is called in records: as it was named, but what is here never as if it were a model of the hub."""
    path = Path(name)
    if name in SOURCES or not path.exists():
        return shareable(name)
    if path.is_absolute() or ".." in path.parts or path == Path():
        return path.resolve().name
    return name if name.startswith("./") or len(path.parts) == 1 else f"./{name}"


def _complete(processor: object, config: PretrainedConfig) -> None:
    """Give a processor of an old revision what it lacks of the configuration: how many tokens an image becomes."""
    vision = getattr(config, "vision_config", None)
    for name, value in (
        ("patch_size", getattr(vision, "patch_size", None)),
        ("vision_feature_select_strategy", getattr(config, "vision_feature_select_strategy", None)),
    ):
        if hasattr(processor, name) and getattr(processor, name) is None and value is not None:
            setattr(processor, name, value)


def _require_checkpoint(path: str) -> None:
    folder = Path(path)
    if folder.is_dir():
        settings_of(folder)
        for name in SETTINGS:
            if (folder / name).is_file():
                read_object(folder / name, "settings file of a checkpoint", ModelError)
        if not any(folder.glob(pattern) for pattern in ("*.safetensors", "*.bin", "*.safetensors.index.json")):
            raise ModelError(f"The folder '{path}' is not a checkpoint: it holds no weights.")
        if not any(True for pattern in ("*.safetensors", "*.bin") for _ in folder.glob(pattern)):
            raise ModelError(f"The folder '{path}' is not a checkpoint: it holds no weights (*.safetensors).")
        require_shards(folder)


def _relative(path: str) -> str | None:
    """For a checkpoint of a type that nothing here opens: which relative of a known model it is."""
    try:
        kind = from_json(read_bytes(Path(path) / "config.json")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return None
    what = None if not isinstance(kind, str) or kind in CONFIG_MAPPING else relative_of_type(kind)
    return f"it looks like {what}, which neither transformers nor neuronwise knows." if what else None
