"""Whether a checkpoint has every tensor of its model, and no others: transformers fills up and leaves out."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from neuronwise.errors import ModelError
from neuronwise.files import read_object

# What transformers opens of a folder, in its order: one file, or an index of shards.
_SINGLE_OR_INDEX = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)


def require_shards(folder: Path) -> None:
    """Raise ``ModelError`` for a folder whose index names files of weights that are absent."""
    for single, index in _SINGLE_OR_INDEX:
        if (folder / single).is_file():
            return
        if (folder / index).is_file():
            require_files(folder, set(weight_map(folder / index).values()))
            return


def settings_of(folder: Path) -> dict[str, Any]:
    """The config.json of a checkpoint; raises ``ModelError`` for a folder without one, or with a damaged one."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"The folder '{folder}' is not a checkpoint: it has no config.json.")
    return read_object(folder / "config.json", "settings file of a checkpoint", ModelError)


def weight_map(index: Path) -> dict[str, str]:
    """Which file of weights holds which tensor, from an index of shards; raises ``ModelError`` for a damaged one."""
    found = read_object(index, "list of the files of weights", ModelError).get("weight_map")
    if not isinstance(found, dict):
        raise ModelError(f"The {index.name} in '{index.parent}' is damaged: it has no weight_map.")
    return found


def require_files(folder: Path, names: Collection[str]) -> None:
    """Raise ``ModelError`` that lists those of the files of weights that are not in a folder."""
    absent = sorted(name for name in names if not (folder / name).is_file())
    if absent:
        raise ModelError(
            f"'{folder}' is downloaded in part: {len(absent)} of its {len(names)} files of weights "
            f"{'is' if len(absent) == 1 else 'are'} not there ({', '.join(absent)})."
        )


def require_tensors(name: str, module: object, info: Mapping[str, Iterable[Any]]) -> None:
    """Raise ``ModelError`` that lists every tensor that is missing or has another shape, and every unexpected one.

    ``info`` is what ``from_pretrained(output_loading_info=True)`` returns; tied weights and what the architecture says
    may lack or be too many are no longer in it. Unexpected tensors alone are a warning, for checkpoints may hold parts
    of other tasks, but an error for this project's own architectures, whose checkpoints are known.
    """
    missing = sorted(info.get("missing_keys") or ())
    unexpected = sorted(info.get("unexpected_keys") or ())
    misshapen: list[tuple[str, Iterable[int], Iterable[int]]] = sorted(info.get("mismatched_keys") or ())
    complaints = []
    if missing:
        complaints.append(f"it lacks {listed(missing)}")
    if misshapen:
        shapes: dict[str, list[str]] = {}
        for key, there, wanted in misshapen:
            shapes.setdefault(f"{sizes(there)} instead of {sizes(wanted)}", []).append(key)
        complaints += [f"of {what} is {listed(keys)}" for what, keys in shapes.items()]
    if unexpected:
        complaints.append(f"unexpected are {listed(unexpected)}")
    if not complaints:
        return
    kind = type(module).__name__
    if not (missing or misshapen or _ours(module)):
        warnings.warn(f"'{name}' as a {kind}: {complaints[0]}; they are left out.", stacklevel=3)
        return
    looks_like = getattr(module, "looks_like", lambda names: None)(unexpected)
    looks = f" It looks like {looks_like}." if looks_like else ""
    raise ModelError(f"'{name}' is not a complete checkpoint of a {kind}: {'; '.join(complaints)}.{looks}")


def _ours(module: object) -> bool:
    return type(module).__module__.partition(".")[0] == __name__.partition(".")[0]


def sizes(shape: Iterable[int]) -> str:
    """A shape as messages write it."""
    return "×".join(map(str, shape)) or "a number"


def listed(names: Iterable[str]) -> str:
    """All names in one line; what differs in its layer number alone is written once: ``blocks.0-38.norm1.bias``."""
    groups: dict[tuple[str, str], list[int]] = {}
    for name in names:
        found = re.match(r"(.*?\.)(\d+)(\..*)", name)
        head, tail, number = (found[1], found[3], int(found[2])) if found else (name, "", -1)
        groups.setdefault((head, tail), []).append(number)
    lines = []
    for (head, tail), numbers in groups.items():
        lines.append(head if numbers == [-1] else f"{head}{_ranges(sorted(set(numbers)))}{tail}")
    return ", ".join(lines)


def _ranges(numbers: list[int]) -> str:
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return "+".join(f"{first}-{last}" if last > first else f"{first}" for first, last in spans)
