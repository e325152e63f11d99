"""Opening a model by name: a hub id, a folder, a .gguf file, or the built-in one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from neuronwise.errors import ModelError, NeuronwiseError
from neuronwise.model.model import Model

BUILTIN = ("builtin", "builtin-text")


def load(
    source: str | os.PathLike[str],
    *,
    dtype: Any = None,
    device_map: Any = None,
    quantization_config: Any = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
    check: bool = True,
    **options: Any,
) -> Model:
    """Open a checkpoint with its processor or tokenizer and wrap it as a ``Model``.

    ``source``: a hub id ("llava-hf/llava-1.5-7b-hf"), a folder, a .gguf file, "builtin" (a small image-text model)
    or "builtin-text" (its language model alone). ``dtype``, ``device_map``, ``quantization_config`` and further
    options go to ``from_pretrained`` as they are; code that comes with a checkpoint runs only with
    ``trust_remote_code=True``. Raises ``ModelError`` for what is no checkpoint or has no addressable neurons, and
    unless ``check=False`` for a checkpoint that lacks tensors of its model or has them in another shape.
    """
    if not isinstance(source, str | os.PathLike) or not os.fspath(source):
        raise ModelError(f"{source!r} names no model; give a hub id, a folder, a .gguf file or 'builtin'.")
    name = os.fspath(source)
    path = name
    if name in BUILTIN:
        from neuronwise.model.builtin import builtin_folder

        path = os.fspath(builtin_folder(name))  # type: ignore[arg-type]
    import transformers
    from safetensors import SafetensorError

    given = {
        "dtype": dtype,
        "device_map": device_map,
        "quantization_config": quantization_config,
        "revision": revision,
    }
    keywords = {key: value for key, value in given.items() if value is not None} | options
    shared: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if revision is not None:
        shared["revision"] = revision
    if path.endswith(".gguf"):
        path, keywords["gguf_file"] = _gguf(path)
        shared["gguf_file"] = keywords["gguf_file"]
    else:
        _require_checkpoint(path)
    from neuronwise.model import own  # noqa: F401  (registers what transformers lacks)
    from neuronwise.model.complete import require_tensors

    try:
        config = transformers.AutoConfig.from_pretrained(path, **shared)
        auto = _auto_class(transformers, config)
        keywords.setdefault("dtype", "auto")
        if check:  # tensors of another shape are told with the others
            keywords |= {"ignore_mismatched_sizes": True, "output_loading_info": True}
        module = auto.from_pretrained(path, trust_remote_code=trust_remote_code, **keywords)
        if check:
            module, told = module
            require_tensors(name, module, told)
        processor = _processor(transformers, path, shared, auto is not transformers.AutoModelForCausalLM)
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
        reason = _relative(path) or next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"'{name}' cannot be opened as a model: {reason}") from error
    return Model(module, processor, name=name, check=check)


def _gguf(path: str) -> tuple[str, str]:
    file = Path(path)
    if not file.is_file():
        raise ModelError(f"There is no file '{path}'.")
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ModelError(f"'{path}' is not a GGUF file.")
    return os.fspath(file.parent), file.name


def _require_checkpoint(path: str) -> None:
    folder = Path(path)
    if folder.is_dir():
        config = folder / "config.json"
        if not config.is_file():
            raise ModelError(f"The folder '{path}' is no checkpoint: it has no config.json.")
        try:
            json.loads(config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(f"The config.json in '{path}' is damaged: {error}.") from error
        if not any(folder.glob(pattern) for pattern in ("*.safetensors", "*.bin", "*.safetensors.index.json")):
            raise ModelError(f"The folder '{path}' is no checkpoint: it holds no weights.")
        if not any(True for pattern in ("*.safetensors", "*.bin") for _ in folder.glob(pattern)):
            raise ModelError(f"The folder '{path}' is no checkpoint: it holds no weights (*.safetensors).")
        from neuronwise.model.complete import require_shards

        require_shards(folder)
    elif folder.exists() or path.startswith((".", "/", "~")):
        raise ModelError(f"'{path}' is no folder with a checkpoint, no .gguf file and no model of the hub.")


def _relative(path: str) -> str | None:
    """For a checkpoint of a type that nothing here opens: which relative of a known model it is."""
    from transformers import CONFIG_MAPPING

    from neuronwise.model.mplug_owl2.variants import variant_of_type

    try:
        kind = json.loads((Path(path) / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return None
    what = None if kind in CONFIG_MAPPING else variant_of_type(kind)
    return f"it looks like {what}, which neither transformers nor neuronwise knows." if what else None


def _auto_class(transformers: Any, config: Any) -> Any:
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


def _processor(transformers: Any, path: str, shared: dict[str, Any], with_images: bool) -> Any:
    if with_images and "gguf_file" not in shared:
        try:
            return transformers.AutoProcessor.from_pretrained(path, **shared)
        except (OSError, ValueError, ImportError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"The model in '{path}' has no processor that opens: {reason}") from error
    return transformers.AutoTokenizer.from_pretrained(path, **shared)
