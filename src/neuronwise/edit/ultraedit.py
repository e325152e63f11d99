"""UltraEdit: one closed-form step from hidden states and gradients, normalized over all edits so far ([Ultra] §3)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from neuronwise.answers.request import forced, requests
from neuronwise.data.facts import Fact
from neuronwise.data.texts import openings
from neuronwise.edit.delta import Delta, Recorded
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.ledger import Ledger
from neuronwise.edit.memory.keys import critical_layers, writer_in
from neuronwise.edit.memory.previous import facts_of
from neuronwise.edit.presets import OURS, Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.edit.trial import require_finite
from neuronwise.errors import MethodError
from neuronwise.model import passes
from neuronwise.model.batches import text_inputs
from neuronwise.model.lock import alone
from neuronwise.model.model import Model
from neuronwise.model.prompt import Inputs

DEPTH = (9 / 14, 13 / 14)  # layers 18 to 26 of 28, where the published settings edit W_down of GPT-J
EPSILON = torch.finfo(torch.float32).eps  # as published
Shape: TypeAlias = tuple[int, int]  # (f, d): writers of one shape share their moments


@dataclass(frozen=True)
class UltraEditSettings:
    """[Ultra]'s hyper-parameters. ``layers`` None: from 9/14 to 13/14 of the depth (our choice).

    ``lr`` scales the step; ``batch`` facts share one loss, the mean over their target tokens. ``warm``: the moments
    begin with those of neutral openings (our choice: the published code begins with a hundred facts at once, and the
    moments of a single fact leave nothing of it).
    """

    layers: tuple[int, ...] | None = None
    lr: float = 1e-6
    batch: int = 10
    warm: bool = True

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise MethodError("batch must be 1 or more.")


SOURCE = "UltraEdit config/model"
PRESETS: dict[str, Preset[UltraEditSettings]] = {
    "default": Preset(UltraEditSettings(), f"{OURS}: the published rate"),
    "small": Preset(UltraEditSettings(lr=1e-5), f"{OURS}: the published rate times the ratio of the widths"),
    "gptj": Preset(UltraEditSettings(layers=tuple(range(18, 27))), f"{SOURCE}/gpt-j.yaml"),
    "mistral": Preset(UltraEditSettings(layers=(29, 30)), f"{SOURCE}/mistral-7b.yaml"),
    "llama-3": Preset(UltraEditSettings(layers=tuple(range(18, 25))),
        f"{SOURCE}/llama-3-instruct.yaml, there on up_proj and on gate_proj of 11–15"),
    "qwen2": Preset(UltraEditSettings(layers=tuple(range(18, 27))),
        f"{SOURCE}/qwen2.5-7b.yaml, there on gate_proj and up_proj"),
}  # fmt: skip


class Read(NamedTuple):
    """A pass, its rows that predict something, and the tokens that they should predict."""

    inputs: Inputs
    rows: list[int]
    ids: Sequence[int]


@dataclass(frozen=True)
class Moments:
    """Of ``count`` rows: their mean (f + d,) and the sum of squared deviations from it, float64."""

    count: int
    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Moments:
        """As published: the spread of m rows is m times their unbiased variance; that of a single row is 0 (ours)."""
        spread = len(rows) * rows.var(0) if len(rows) > 1 else torch.zeros_like(rows[0])
        return cls(len(rows), rows.mean(0), spread)

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        apart = other.mean - self.mean
        spread = self.spread + other.spread + self.count * other.count / count * apart.square()
        return Moments(count, self.mean + other.count / count * apart, spread)

    def normalized(self, rows: Tensor) -> Tensor:
        """Rows less the mean, in units of the standard deviation."""
        deviation = (self.spread / (self.count - 1 + EPSILON)).sqrt()
        return (rows - self.mean) / (deviation + EPSILON)


Features: TypeAlias = Mapping[int, Sequence[Tensor]]
"""Layer → one tensor (tokens, f + d) for each batch: W_down's inputs and the loss's gradients at its outputs."""
# The moments of the rows that an edit was made of, and the layers they are of; gone with the edit.
_MOMENTS: WeakKeyDictionary[Recorded, tuple[list[int], dict[Shape, Moments]]] = WeakKeyDictionary()


@alone
def ultraedit(
    model: Model,
    facts: Fact | Sequence[Fact],
    settings: UltraEditSettings | None = None,
    *,
    previous: Sequence[Recorded] | None = None,
    **changes: object,
) -> Edit:
    """An edit that moves W_down of some layers by one step for all ``facts``; the model itself is left as it is.

    For the rows h of what W_down reads where the targets' tokens are predicted, and the gradients g of the loss at
    what it writes there, ΔW = Vᵀ (H Hᵀ + I)⁻¹ H with v = −lr·‖ĥ‖²·ĝ, where ^ is normalized by the moments of all rows
    so far, those of ``previous`` edits included (by default those that the model carries: as they were gathered where
    this process made them, else gathered anew for the facts of their record). Raises ``MethodError`` for layers
    without one dense writer and ``NonFiniteError`` for such gradients.
    """
    settings = resolved(model, settings, PRESETS, changes)
    facts = requests(model, facts)
    layers = critical_layers(model, settings.layers, DEPTH)
    found = features(model, [_asked(model, fact) for fact in facts], layers, settings.batch)
    own = _moments(model, found)
    previous = Ledger.of(model).edits if previous is None else previous
    former = [moments for edit in previous if (moments := _moments_of(model, edit, layers, settings.batch))]
    if settings.warm:
        former.insert(0, model.memo(("ultraedit", *layers), lambda: _neutral(model, layers, settings.batch)))
    deltas = []
    for layer in layers:
        shape = _shape(model, layer)
        known = reduce(add, [*(moments[shape] for moments in former), own[shape]])
        left, right = step(torch.cat(list(found[layer])), shape[0], known, settings.lr)
        deltas.append(Delta(layer, writer_in(model, layer).path, left.float().contiguous(), right=right.float()))
    edit = edited("ultraedit", model, settings, facts, deltas, layers=layers, rows=[own[s].count for s in own])
    _MOMENTS[edit] = (layers, own)
    return edit


def step(rows: Tensor, width: int, known: Moments, lr: float) -> tuple[Tensor, Tensor]:
    """The factors (d, n) and (n, f) of ΔW for rows (n, f + d)."""
    keys = rows[:, :width]
    hidden, gradients = known.normalized(rows).split([width, rows.shape[1] - width], dim=1)
    values = -lr * hidden.square().sum(1, keepdim=True) * gradients
    system = keys @ keys.T
    system.diagonal().add_(1.0)
    return torch.linalg.solve(system, values).T, keys.contiguous()


def features(model: Model, reads: Sequence[Read], layers: Sequence[int], batch: int) -> Features:
    """What the layers' W_down read and what gradients arrive at what they write, ``batch`` passes sharing one loss."""
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for start in range(0, len(reads), batch):
        together = reads[start : start + batch]
        tokens = sum(len(read.ids) for read in together)
        parts = [_backward(model, read, layers, tokens) for read in together]
        for layer in layers:
            found[layer].append(torch.cat([part[layer] for part in parts]))
    return found


def _backward(model: Model, read: Read, layers: Sequence[int], tokens: int) -> dict[int, Tensor]:
    """Rows (tokens, f + d) of each layer for one pass; its loss is a share of the mean over ``tokens``."""
    keys: dict[int, Tensor] = {}
    added: dict[int, Tensor] = {}

    def seen(layer: int, values: Tensor) -> Tensor:
        keys[layer] = values.detach().reshape(-1, values.shape[-1])[read.rows].double().cpu()
        return values

    def leaf(layer: int, values: Tensor) -> Tensor:
        added[layer] = torch.zeros_like(values, dtype=torch.float32).requires_grad_()
        return values + added[layer].to(values.dtype)

    with torch.enable_grad(), contextlib.ExitStack() as within:
        within.enter_context(passes.frozen_parameters(model.module))
        for layer in layers:
            block, writer = model.blocks[layer].module, writer_in(model, layer).module
            within.enter_context(passes.edit_input(writer, lambda values, layer=layer: seen(layer, values), block))
            within.enter_context(passes.edit(writer, lambda values, layer=layer: leaf(layer, values), block))
        logits = model.forward(read.inputs, rows=read.rows)[0].float()
        target = torch.tensor(list(read.ids), device=logits.device)
        (nn.functional.cross_entropy(logits, target, reduction="sum") / tokens).backward()
    found = {}
    for layer, leaves in added.items():
        assert leaves.grad is not None, "the loss depends on every layer"
        gradients = leaves.grad.reshape(-1, leaves.shape[-1])[read.rows].double().cpu()
        require_finite(gradients, "The gradients of this edit are")
        found[layer] = torch.cat([keys[layer], gradients], dim=1)
    return found


def _asked(model: Model, fact: Fact) -> Read:
    run = forced(model, fact)
    return Read(run.forced_inputs(), [run.row(place) for place in range(len(run.output_ids))], run.output_ids)


def _neutral(model: Model, layers: Sequence[int], batch: int) -> dict[Shape, Moments]:
    """The moments of all predictions in neutral openings."""
    texts = [text_inputs(model, text) for text in openings()]
    reads = [
        Read(inputs, list(range(len(ids) - 1)), ids[1:])
        for inputs in texts
        if len(ids := inputs["input_ids"][0].tolist()) > 1
    ]
    return _moments(model, features(model, reads, layers, batch))


def _moments(model: Model, found: Features) -> dict[Shape, Moments]:
    rows: dict[Shape, list[Moments]] = {}
    for layer, parts in found.items():
        rows.setdefault(_shape(model, layer), []).extend(map(Moments.of, parts))
    return {shape: reduce(add, parts) for shape, parts in rows.items()}


def _moments_of(model: Model, edit: Recorded, layers: list[int], batch: int) -> dict[Shape, Moments] | None:
    known = _MOMENTS.get(edit)
    if known is None or known[0] != layers:
        facts = facts_of(edit.record)
        if not facts:
            return None
        reads = [_asked(model, fact) for fact in facts]
        known = _MOMENTS[edit] = (layers, _moments(model, features(model, reads, layers, batch)))
    return known[1]


def _shape(model: Model, layer: int) -> Shape:
    writer = writer_in(model, layer)
    return writer.width, writer.hidden_size


EDITOR = Editor(
    "ultraedit", ultraedit, UltraEditSettings, PRESETS,
    layers="from 9/14 to 13/14 of the depth",
    says="moves several layers' W_down by one closed-form step, for edits one after another",
    cites="Gu et al. 2025, arXiv 2505.14679",
)  # fmt: skip
