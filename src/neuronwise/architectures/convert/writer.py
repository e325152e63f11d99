"""Writing a planned checkpoint as an ordinary Hugging Face folder: shard by shard, resumable, verified, whole or not.

Finished shards wait in a hidden folder beside the one to be made, with a ledger of their SHA-256; an interrupted
conversion resumes after the last of them, when parts and settings are the same. The ledger is not in the folder that
is moved into place, so that there is no moment at which a kill would lose it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from transformers import AutoConfig

from neuronwise._version import __version__
from neuronwise.architectures.convert.plan import Output, Plan, outputs
from neuronwise.architectures.convert.weights import open_weights
from neuronwise.errors import ModelError, NeuronwiseError, NonFiniteError
from neuronwise.files import from_json, new_folders, require_free, sha256, whole_file
from neuronwise.files.locks import Lock, Locked
from neuronwise.model.complete import listed, require_tensors

SHARD_BYTES = 2 * 1024**3  # also the most that is held in memory at a time, beside one tensor
LEDGER = "conversion.json"
INDEX = "model.safetensors.index.json"
Progress = Callable[[int, int], None]


def write(
    plan: Plan,
    out: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write ``plan`` to the folder ``out``, which has to be new or empty; what was made is returned as a record.

    ``progress`` gets bytes done and bytes in all. Raises ``ModelError`` for parts that do not fit (before anything
    is written), a folder that is in use or cannot be written, and a result that does not open;
    ``NonFiniteError`` for NaN or infinity in a tensor, also where a smaller dtype makes one of it.
    """
    folder = require_free(out, ModelError)
    planned = outputs(plan, dtype)
    shards = _shards(planned, shard_bytes)
    total = sum(output.bytes for output in planned)
    work = folder.with_name(f".{folder.name}.partial")
    partial = work / "made"
    with new_folders(work.parent):
        try:
            partial.mkdir(parents=True, exist_ok=True)
            with _locked(work, out):
                ledger = _Ledger(work, partial, _fingerprint(plan, shards))
                resumed = len(ledger.done)
                _require_space(partial, total - ledger.bytes(), out)
                done = 0
                for name, content in shards.items():
                    if name not in ledger.done:
                        ledger.finish(name, _write_shard(partial, name, content))
                    done += sum(output.bytes for output in content)
                    if progress is not None:
                        progress(done, total)
                _write_companions(plan, partial, planned, shards, total, dtype)
                _verify(plan, partial, planned)
                os.replace(partial, folder)
                shutil.rmtree(work)
        except OSError as error:
            raise _stopped(f"'{out}' cannot be written: {error.strerror or error}.") from error
        except NeuronwiseError as error:
            if not isinstance(error, _Wait):
                shutil.rmtree(work, ignore_errors=True)
            raise
    return {
        "converter": plan.converter,
        "variant": plan.variant,
        "folder": str(out),
        "model_type": plan.config.model_type,
        "architecture": plan.model_class.__name__,
        "dtype": str(plan.dtype if dtype is None else dtype).removeprefix("torch."),
        "parameters": sum(torch.empty(output.shape, device="meta").numel() for output in planned),
        "tensors": len(planned),
        "bytes": total,
        "shards": ledger.done,
        "resumed_shards": resumed,
        "parts": [str(weights.path) for weights in plan.sources],
        "notes": list(plan.notes),
        "neuronwise": __version__,
    }


def _shards(planned: list[Output], shard_bytes: int) -> dict[str, list[Output]]:
    """Outputs by the file they go to, in order; a tensor larger than ``shard_bytes`` has a file of its own."""
    shapes = {output.name: torch.empty(output.shape, dtype=output.dtype, device="meta") for output in planned}
    split = split_torch_state_dict_into_shards(shapes, max_shard_size=shard_bytes)
    by_name = {output.name: output for output in planned}
    return {file: [by_name[name] for name in names] for file, names in split.filename_to_tensors.items()}


def _write_shard(partial: Path, name: str, content: list[Output]) -> str:
    """Make and write one shard; its SHA-256. The file has its name only once it is whole on the disk."""
    from safetensors.torch import save_file

    tensors = {}
    for output in content:
        tensor = output.recipe().to(output.dtype)
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NonFiniteError(f"The tensor {output.name} is not finite in {output.dtype}; nothing was written.")
        tensors[output.name] = tensor.clone(memory_format=torch.contiguous_format)
    with whole_file(partial / name, _stopped) as new:
        save_file(tensors, new, metadata={"format": "pt"})
        del tensors
        digest = sha256(new)
        _to_disk(new)
    return digest


class _Ledger:
    """Which shards of a partial folder are whole, with their checksums; what belongs to another plan is removed."""

    def __init__(self, work: Path, partial: Path, fingerprint: str) -> None:
        self.partial, self.file, self.fingerprint = partial, work / LEDGER, fingerprint
        self.done: dict[str, str] = {}
        try:
            said: Any = from_json(self.file.read_bytes())
            before = dict(said["shards"]) if said["fingerprint"] == fingerprint else {}
        except (OSError, ValueError, KeyError, TypeError):
            before = {}
        for name, digest in before.items():
            if (partial / name).is_file() and sha256(partial / name) == digest:
                self.done[name] = digest
        for path in partial.iterdir():
            if path.name not in self.done:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._save()

    def bytes(self) -> int:
        return sum((self.partial / name).stat().st_size for name in self.done)

    def finish(self, name: str, digest: str) -> None:
        self.done[name] = digest
        self._save()

    def _save(self) -> None:
        with whole_file(self.file, _stopped) as new:
            new.write_text(json.dumps({"fingerprint": self.fingerprint, "shards": self.done}), encoding="utf-8")
            _to_disk(new)


def _fingerprint(plan: Plan, shards: dict[str, list[Output]]) -> str:
    """Of the parts on the disk and of what is made of them."""
    state = hashlib.sha256(__version__.encode())
    for weights in plan.sources:
        for file in weights.files:
            about = file.stat()
            state.update(f"{file.resolve()} {about.st_size} {about.st_mtime_ns}\n".encode())
    for name, content in shards.items():
        for output in content:
            state.update(f"{name} {output.name} {output.shape} {output.dtype}\n".encode())
    state.update(plan.config.to_json_string().encode())
    return state.hexdigest()


def _write_companions(
    plan: Plan,
    partial: Path,
    planned: list[Output],
    shards: dict[str, list[Output]],
    total: int,
    dtype: torch.dtype | None,
) -> None:
    plan.config.architectures = [plan.model_class.__name__]
    plan.config.dtype = plan.dtype if dtype is None else dtype
    plan.config.save_pretrained(partial)
    plan.companions(partial)
    if len(shards) > 1:
        where = {output.name: name for name, content in shards.items() for output in content}
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (partial / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    for path in partial.iterdir():
        _to_disk(path)


def _verify(plan: Plan, folder: Path, planned: list[Output]) -> None:
    """Raise ``ModelError`` unless ``folder`` holds what was planned and opens without missing or unexpected tensors.

    Files are read anew: shapes and dtypes from their headers, the model on the meta device, so that no memory is
    taken for weights.
    """
    written = open_weights(folder)
    wanted = {output.name: (output.shape, output.dtype) for output in planned}
    there = {name: (stored.shape, stored.dtype) for name, stored in written.tensors.items()}
    wrong = sorted(name for name in {*wanted, *there} if wanted.get(name) != there.get(name))
    if wrong:
        raise ModelError(f"What was written is not what was planned: {listed(wrong)}.")
    config = AutoConfig.from_pretrained(folder)
    if type(config) is not type(plan.config):
        raise ModelError(f"What was written opens as {type(config).__name__}, not {type(plan.config).__name__}.")
    require_tensors(
        "What was written",
        *plan.model_class.from_pretrained(folder, config=config, device_map="meta", output_loading_info=True),
    )


class _Wait(ModelError):
    """The conversion cannot continue now; what is finished stays."""


def _stopped(sentence: str) -> _Wait:
    return _Wait(f"{sentence.removesuffix('.')}; run the same command again to continue.")


@contextlib.contextmanager
def _locked(work: Path, out: object) -> Iterator[None]:
    (work / "lock").touch()
    try:
        lock = Lock(work / "lock")
    except Locked as held:
        raise _Wait(f"'{out}' is being written by another conversion.{held.hint}") from held
    with lock:
        yield


def _require_space(partial: Path, needed: int, out: object) -> None:
    free = shutil.disk_usage(partial).free
    if free < needed:
        raise _Wait(f"'{out}' needs {needed / 1e9:.3g} GB more; the disk has {free / 1e9:.3g} GB left.")


def _to_disk(path: Path) -> None:
    if path.is_file():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
