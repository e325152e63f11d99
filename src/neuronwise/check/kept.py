"""What must be as it was: weights to the bit, hooks, gradients' flags, dtypes and devices, the model's own settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuronwise.check.result import Deviation, Measured
from neuronwise.check.subject import Subject
from neuronwise.locate import score_all

PARTS = ("_modules", "_parameters")  # where a module keeps its own
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class State:
    """All of a module that a call could leave otherwise than it found it; equal parts are equal values."""

    weights: dict[str, int]
    places: dict[str, tuple[torch.dtype, torch.device]]
    gradients: dict[str, bool]
    hooks: dict[str, tuple[int, ...]]
    modules: dict[str, tuple[int, bool, bool]]
    settings: dict[str, Any]

    @classmethod
    def of(cls, module: nn.Module) -> State:
        """The state of a module now."""
        tensors = [*module.named_parameters(), *module.named_buffers()]
        parts = list(module.named_modules())
        config: Any = getattr(module, "config", None)
        return cls(
            {name: checksum(tensor) for name, tensor in tensors},
            {name: (tensor.dtype, tensor.device) for name, tensor in tensors},
            {name: parameter.requires_grad for name, parameter in module.named_parameters()},
            {name: _hooks(m) for name, m in parts},
            {name: (id(m), m.training, "forward" in m.__dict__) for name, m in parts},
            {name: getattr(config, name, None) for name in ("_attn_implementation", "_experts_implementation")},
        )  # fmt: skip


def _hooks(module: nn.Module) -> tuple[int, ...]:
    """Hooks by their identity, but for those that transformers sets by itself in the first pass, and keeps."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    held = (hook for kind in kinds for hook in module.__dict__[kind].values())
    return tuple(id(hook) for hook in held if not str(getattr(hook, "__module__", "")).startswith("transformers."))


def checksum(tensor: Tensor) -> int:
    """A sum over the bits of all numbers, without a copy of them; 0 where the numbers are elsewhere (meta)."""
    if tensor.is_meta or not tensor.numel():
        return 0
    try:
        bits = tensor.detach().view(_INTEGERS[tensor.element_size()])
        return int(bits.sum(dtype=torch.int64)) if bits.dtype != torch.int64 else int(bits.sum())
    except (RuntimeError, KeyError, NotImplementedError):  # a tensor subclass that has no bits to look at
        return 0


def untouched(subject: Subject, before: State) -> Measured:
    """After all checks: weights equal to the bit, no hook left, no flag or setting changed."""
    now = State.of(subject.model.module)
    words = {
        "weights": "weights differ", "gradients": "requires_grad differs", "hooks": "hooks were left",
        "modules": "modules were exchanged or set to train", "settings": "settings differ",
    }  # fmt: skip
    for part, what in words.items():
        old, new = getattr(before, part), getattr(now, part)
        wrong = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        if wrong:
            raise Deviation(f"{what}: {', '.join(wrong[:3]) or 'the model itself'}", wrong=float(len(wrong)))
    kept = [p for p in subject.model.module.parameters() if p.grad is not None]
    if kept:
        raise Deviation(f"{len(kept)} parameters hold gradients", wrong=float(len(kept)))
    return Measured(f"{len(now.weights)} tensors, {len(now.modules)} modules", {"tensors": len(now.weights)})


def placement(subject: Subject, before: State) -> Measured:
    """Weights keep their dtype and device; activations come in the weights' dtype, scores in single precision."""
    model = subject.model
    now = State.of(model.module).places
    moved = sorted(name for name, place in before.places.items() if now.get(name) != place)
    if moved:
        raise Deviation(f"{moved[0]} was {before.places[moved[0]]} and is {now.get(moved[0])}", moved=len(moved))
    acts = subject.run.activations(subject.target.position)
    wanted = {p.dtype for p in model.module.parameters() if p.is_floating_point()}
    for layer, values in acts.dense.items():
        if values.device.type != "cpu" or (values.numel() and values.dtype not in wanted):
            raise Deviation(f"activations of layer {layer} are {values.dtype} on {values.device}")
    for writer, values in score_all(model, subject.run, [subject.target], "contribution")[0].items():
        if values.dtype != torch.float32 or not torch.isfinite(values).all():
            raise Deviation(f"scores of layer {writer.layer} are {values.dtype} or not finite")
    kinds = sorted({str(dtype).removeprefix("torch.") for dtype, _ in now.values()})
    devices = sorted({str(device) for _, device in now.values()})
    return Measured(f"{', '.join(kinds)} on {', '.join(devices)}", {"tensors": len(now)})


@contextlib.contextmanager
def structure_kept(module: nn.Module) -> Iterator[None]:
    """Whatever the body puts in place of parts of a module is taken out again, and their flags are put back."""
    parts = [(m, dict(m.__dict__), {kind: dict(m.__dict__[kind]) for kind in PARTS}) for m in module.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        yield
    finally:
        for m, own, held in parts:
            m.__dict__.clear()
            m.__dict__.update(own)
            for kind, content in held.items():
                m.__dict__[kind].clear()
                m.__dict__[kind].update(content)
        for parameter, wanted in flags:
            parameter.requires_grad_(wanted)
