"""What is recorded of a thing: JSON values that are the same for the same result."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PASSING = re.compile(  # what tells nothing of a result: versions, places, times, and digests over these
    r"versions?|transformers|folder|command|created|revision|sha256|digest|bytes|.*seconds.*|.*_at|date|time|summary"
    r"|peak_memory|written|detail|numbers|source_file|host|machine|recorded|out|progress"
)
WORDED = ("title", "note", "notes", "source", "reason", "layers", "changed", "skipped")  # sentences may be put better


def ranked(found: Any, listed: int = 200) -> dict[str, Any]:
    """A set of neurons: the first by name, with the means over all."""
    rows = [[str(m.neuron), m.score, m.activation] for m in found]
    scores = [m.score for m in found] or [0.0]
    means = [math.fsum(scores) / len(scores), math.fsum(map(abs, scores)) / len(scores)]
    return {"neurons": rows[:listed], "count": len(rows), "means": means}


def projections(tensor: Any) -> list[float]:
    """Its norm, and what two fixed random directions see of it."""
    import torch

    flat = tensor.detach().double().flatten().cpu()
    generator = torch.Generator().manual_seed(flat.numel())
    drawn = torch.randn(2, flat.numel(), generator=generator, dtype=torch.float64)
    return [float(flat.norm()), *(drawn @ flat).tolist()]


def changes(edit: Any, model: Any) -> dict[str, Any]:
    """What an edit does to each weight, and whether it goes without a trace."""
    import torch

    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    with edit.applied(model):
        now = {name: value.clone() for name, value in model.module.state_dict().items()}
    changed = {name: projections(now[name] - value) for name, value in before.items() if not now[name].equal(value)}
    gone = all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    return {"weights": changed, "reverted": gone, "changed_numbers": edit.parameters_changed}


def logits_under(model: Any, context: Any, prompt: str = "the capital of France is") -> list[float]:
    import torch

    ids = model.tokenizer(prompt, return_tensors="pt")["input_ids"]
    more = {"decoder_input_ids": ids[:, :1]} if model.is_encoder_decoder else {}
    with context, torch.no_grad():
        return projections(model.module(input_ids=ids, **more).logits[0, -1])


def tensors_in(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {
        f"{file.name}:{name}": projections(value)
        for file in sorted(folder.glob("**/*.safetensors"))
        for name, value in sorted(load_file(file).items())
    }


def plain(value: Any) -> Any:
    """JSON values, without what changes from run to run; of long texts their digest."""
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        kept = {str(key): one for key, one in value.items() if not PASSING.fullmatch(str(key))}
        return {key: unworded(one) if key in WORDED else plain(one) for key, one in kept.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, str) and len(value) > 2000:
        return hashlib.sha256(value.encode()).hexdigest()
    return value if isinstance(value, str | int | float | None) else str(value)


def unworded(value: Any) -> Any:
    """That there are sentences, not how they are put."""
    if isinstance(value, Mapping):
        return {str(key): unworded(one) for key, one in value.items()}
    return bool(value) if isinstance(value, str) else plain(value)
