"""The tensors of a published checkpoint, by name, read from the disk one at a time."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuronwise.errors import ModelError, reason
from neuronwise.files import expanded, ordinary
from neuronwise.model.complete import listed, require_files, weight_map

WRAPPERS = ("model", "state_dict", "module")  # under which training scripts save the weights
_PICKLES = (".bin", ".pth", ".pt")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")


@dataclass(frozen=True)
class Stored:
    """One tensor on the disk: its shape and dtype are known, its values are read by ``read``."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


@dataclass(frozen=True, eq=False)
class Weights:
    """A checkpoint's tensors by name. ``path`` is what the user named, ``files`` what was opened for it.

    ``prefix`` was put before the names that the files have.
    """

    path: Path
    files: tuple[Path, ...]
    tensors: Mapping[str, Stored]
    prefix: str = ""

    @property
    def label(self) -> str:
        """What messages call it: the file's name."""
        return self.path.name

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> Stored:
        return self.tensors[name]

    def listed(self, names: Iterable[str]) -> str:
        """Names as the files have them, in one line."""
        return listed(name.removeprefix(self.prefix) for name in names)

    def matching(self, pattern: str) -> list[str]:
        """Names in which the regular expression is found."""
        return [name for name in self.tensors if re.search(pattern, name)]

    def count(self, pattern: str) -> int:
        """How many layers there are: one more than the largest number that the pattern's group catches."""
        numbers = [int(found[1]) for name in self.tensors if (found := re.search(pattern, name))]
        return max(numbers, default=-1) + 1


def open_weights(path: str | os.PathLike[str]) -> Weights:
    """Open a .safetensors, .bin, .pth or .pt file, or a folder of them, without reading the tensors.

    Pickled files are read with ``weights_only=True`` and mapped into memory; a state dict below ``WRAPPERS`` is
    unwrapped. Raises ``ModelError`` for what is missing, damaged, half-downloaded, or holds more than tensors.
    """
    source = expanded(path, ModelError)
    if source.is_dir():
        files, index = _shards(source)
    elif source.is_file():
        files, index = [source], None
    else:
        raise ModelError(f"There is no file or folder '{path}'.")
    tensors: dict[str, Stored] = {}
    for file in files:
        tensors.update(_tensors_of(file))
    if index is not None:
        lost = sorted(set(index) - set(tensors))
        if lost:
            raise ModelError(f"'{path}' lacks tensors that its index names: {listed(lost)}; download it again.")
    if not tensors:
        raise ModelError(f"'{path}' holds no tensors.")
    return Weights(source, tuple(files), tensors)


def _shards(folder: Path) -> tuple[list[Path], dict[str, str] | None]:
    """The weight files of a folder and, where it has one, the index that says which file holds what."""
    for suffix in ("safetensors", "bin"):
        for index in sorted(folder.glob(f"*.{suffix}.index.json")):
            where = weight_map(index)
            names = sorted(set(where.values()))
            require_files(folder, names)
            return [folder / name for name in names], where
        files = sorted(folder.glob(f"*.{suffix}"))
        files = [file for file in files if file.name != "training_args.bin"]
        if files:
            pieces = [found for file in files if (found := _SHARD.fullmatch(file.name))]
            wanted = {f"{p[1]}-{n:05d}-of-{p[3]}{p[4]}" for p in pieces for n in range(1, int(p[3]) + 1)}
            require_files(folder, wanted)
            return files, None
    raise ModelError(f"The folder '{folder}' holds no weights (*.safetensors or *.bin).")


def _tensors_of(file: Path) -> dict[str, Stored]:
    try:
        with ordinary(file).open("rb") as stream:
            start = stream.read(32)
    except OSError as error:
        raise ModelError(f"'{file}' cannot be read: {error.strerror or error}.") from error
    if not start:
        raise ModelError(f"'{file}' is empty; download it again.")
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(f"'{file}' is a pointer of git-lfs, not the file itself; fetch it with: git lfs pull.")
    if file.suffix == ".safetensors":
        return _safetensors(file)
    if file.suffix in _PICKLES:
        return _pickled(file)
    raise ModelError(f"'{file}' is not a file of weights: it ends in none of .safetensors, {', '.join(_PICKLES)}.")


def _safetensors(file: Path) -> dict[str, Stored]:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import _TYPES  # type: ignore[attr-defined]

    try:
        handle: Any = safe_open(ordinary(file), "pt")  # kept open: it is a map of the file
        found = {}
        for name in handle.keys():  # noqa: SIM118 (no mapping)
            part = handle.get_slice(name)
            dtype = _TYPES[part.get_dtype()]
            found[name] = Stored(tuple(part.get_shape()), dtype, lambda name=name: handle.get_tensor(name))
    except (SafetensorError, OSError, KeyError) as error:
        raise ModelError(f"'{file}' is damaged or downloaded in part: {reason(error)}.") from error
    return found


def _pickled(file: Path) -> dict[str, Stored]:
    try:
        try:
            loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):
                raise
            loaded = torch.load(file, map_location="cpu", weights_only=True)  # from before torch 1.6
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"'{file}' is damaged, or holds more than tensors, which are all that is read from it."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"'{file}' is damaged or downloaded in part: {reason}") from error
    while isinstance(loaded, Mapping):
        inner = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    if not isinstance(loaded, Mapping):
        raise ModelError(f"'{file}' holds no named tensors.")
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    return {name: Stored(tuple(t.shape), t.dtype, lambda t=t: t.detach()) for name, t in tensors.items()}
