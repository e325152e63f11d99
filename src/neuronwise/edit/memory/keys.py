"""Keys and values at the subject: what goes into W_down there and what comes out ([ROME] §3.1)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from neuronwise.data.facts import Fact
from neuronwise.edit.delta import Delta
from neuronwise.edit.memory.passages import Passage, Passages, fact_passage, side_by_side
from neuronwise.edit.trial import acting
from neuronwise.errors import MethodError
from neuronwise.model import passes
from neuronwise.model.model import Model
from neuronwise.model.writers import Writer

ITEMS = 64  # passages in one pass


def critical_layers(model: Model, layers: Sequence[int] | None, depth: tuple[float, float]) -> list[int]:
    """``layers`` in order, or those from depth[0]·L to depth[1]·L (rounded); raises ``MethodError`` for wrong ones.

    Each of them needs one dense writer: keys of several, or of routed experts, are not a single vector.
    """
    last = model.num_layers - 1
    if layers is None:
        first, end = (min(round(share * model.num_layers), last) for share in depth)
        layers = range(first, end + 1)
    chosen = sorted(set(layers))
    if not chosen:
        raise MethodError("No layer is named; name one or more.")
    for layer in chosen:
        if not 0 <= layer <= last:
            raise MethodError(f"There is no layer {layer}: {model.name} has layers 0 to {last}.")
        writer_in(model, layer)
    return chosen


def writer_in(model: Model, layer: int) -> Writer:
    """The one dense writer of a layer; raises ``MethodError`` where there is none or several."""
    block = model.blocks[layer]
    if len(block.dense) != 1:
        found = f"{len(block.dense)} dense writers" if block.dense else "only routed experts"
        found = found if block.num_neurons else "no feed-forward neurons"
        raise MethodError(f"Layer {layer} of {model.name} has {found}; this editor needs one dense writer. Use fine.")
    return block.dense[0]


@dataclass
class Seen:
    """Rows at the subjects, float32 on the CPU: W_down's inputs (items, f), its outputs and the layers' (items, d)."""

    keys: dict[int, Tensor] = field(default_factory=dict)
    written: dict[int, Tensor] = field(default_factory=dict)
    stream: dict[int, Tensor] = field(default_factory=dict)


def look(model: Model, passages: Passages, layers: Iterable[int], deltas: Iterable[Delta] = ()) -> Seen:
    """What the layers hold at the subjects, with ``deltas`` acting as if they were in the weights."""
    seen, wanted = Seen(), sorted(set(layers))

    def keep(rows: dict[int, Tensor], layer: int) -> Callable[[Tensor], Tensor]:
        def kept(values: Tensor) -> Tensor:
            rows[layer] = passages.at_subject(values.detach()).float().cpu()
            return values

        return kept

    with torch.no_grad(), acting(model, deltas), contextlib.ExitStack() as within:
        for layer in wanted:
            layer_module, writer = model.blocks[layer].module, writer_in(model, layer).module
            within.enter_context(passes.edit_input(writer, keep(seen.keys, layer), layer_module))
            within.enter_context(passes.edit(writer, keep(seen.written, layer), layer_module))
            within.enter_context(passes.edit(layer_module, keep(seen.stream, layer)))
        with passes.stop_after(model.blocks[wanted[-1]].module):
            model.forward(passages.inputs, rows=[-1])
    return seen


def look_at(model: Model, passages: Sequence[Passage], layer: int, deltas: Iterable[Delta] = ()) -> Seen:
    """``look`` at one layer for any number of passages, ``ITEMS`` in a pass."""
    deltas = tuple(deltas)
    groups = [passages[start : start + ITEMS] for start in range(0, len(passages), ITEMS)]
    parts = [look(model, side_by_side(model, group), [layer], deltas) for group in groups]
    rows = [torch.cat([getattr(part, name)[layer] for part in parts]) for name in ("keys", "written", "stream")]
    return Seen(*({layer: values} for values in rows))


def fact_keys(
    model: Model,
    facts: Sequence[Fact],
    layer: int,
    prefixes: Sequence[str],
    deltas: Iterable[Delta] = (),
    *,
    halves: bool = False,
) -> Tensor:
    """(facts, f) float32: each fact's mean key at its subject's last token over the prefixes ([ROME] eq. 3).

    ``halves``: the mean of the first prefix's key and the mean of the others' ([MEMIT]'s code weighs them so).
    """
    passages = [fact_passage(model, fact, prefix) for fact in facts for prefix in prefixes]
    keys = look_at(model, passages, layer, deltas).keys[layer].reshape(len(facts), len(prefixes), -1)
    if halves and len(prefixes) > 1:
        return (keys[:, 0] + keys[:, 1:].mean(1)) / 2
    return keys.mean(1)


def on_prompts(model: Model, facts: Sequence[Fact], layer: int, deltas: Iterable[Delta] = ()) -> Seen:
    """What ``layer`` holds at the subjects of the bare prompts."""
    return look_at(model, [fact_passage(model, fact) for fact in facts], layer, deltas)
