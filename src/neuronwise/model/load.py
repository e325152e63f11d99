"""Opening a model by name: a hub id, a folder, a .gguf file, or the built-in one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from neuronwise.errors import ModelError, NeuronwiseError
from neuronwise.model.model import Model
from neuronwise.model.source import auto_class, checkpoint_of, register_families, relative_of_type


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
    path, within = checkpoint_of(name)
    import transformers
    from safetensors import SafetensorError

    given = {
        "dtype": dtype,
        "device_map": device_map,
        "quantization_config": quantization_config,
        "revision": revision,
    }
    keywords = {key: value for key, value in given.items() if value is not None} | options | within
    shared: dict[str, Any] = {"trust_remote_code": trust_remote_code, **within}
    if revision is not None:
        shared["revision"] = revision
    if not within:
        _require_checkpoint(path)
    from neuronwise.model.complete import require_tensors

    register_families()
    try:
        config = transformers.AutoConfig.from_pretrained(path, **shared)
        auto = auto_class(config)
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

    try:
        kind = json.loads((Path(path) / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return None
    what = None if kind in CONFIG_MAPPING else relative_of_type(kind)
    return f"it looks like {what}, which neither transformers nor neuronwise knows." if what else None


def _processor(transformers: Any, path: str, shared: dict[str, Any], with_images: bool) -> Any:
    if with_images and "gguf_file" not in shared:
        try:
            return transformers.AutoProcessor.from_pretrained(path, **shared)
        except (OSError, ValueError, ImportError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"The model in '{path}' has no processor that opens: {reason}") from error
    return transformers.AutoTokenizer.from_pretrained(path, **shared)
