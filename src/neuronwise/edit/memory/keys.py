"""Keys and values at the subject: what goes into W_down there and what comes out ([ROME] §3.1)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from neuronwise.data.facts import Fact
from neuronwise.edit.delta import Delta, writer_of
from neuronwise.edit.memory.passages import Batch, batched, fact_passage
from neuronwise.errors import MethodError
from neuronwise.model.anatomy import Dense
from neuronwise.model.hooks import Hooks, first_tensor
from neuronwise.model.model import Model

ITEMS = 64  # passages in one pass


def critical_layers(model: Model, layers: Sequence[int] | None, depth: tuple[float, float]) -> list[int]:
    """``layers`` in order, or those from depth[0]·L to depth[1]·L (rounded); raises ``MethodError`` for wrong ones.

    Each of them needs one dense writer: keys of several, or of routed experts, are no single vector.
    """
    last = model.num_layers - 1
    if layers is None:
        first, end = (min(round(share * model.num_layers), last) for share in depth)
        layers = range(first, end + 1)
    chosen = sorted(set(layers))
    if not chosen:
        raise MethodError("There is no layer to edit; name one or more.")
    for layer in chosen:
        if not 0 <= layer <= last:
            raise MethodError(f"There is no layer {layer} to edit: {model.name} has layers 0 to {last}.")
        writer_in(model, layer)
    return chosen


def writer_in(model: Model, layer: int) -> Dense:
    """The one dense writer of a layer; raises ``MethodError`` where there is none or several."""
    block = model.blocks[layer]
    if len(block.dense) != 1:
        found = f"{len(block.dense)} dense writers" if block.dense else "routed experts alone"
        found = found if block.num_neurons else "no feed-forward neurons"
        raise MethodError(f"Layer {layer} of {model.name} has {found}; this editor needs one dense writer. Use fine.")
    return block.dense[0]


@dataclass
class Seen:
    """Rows at the subjects, float32 on the CPU: W_down's inputs (items, f), its outputs and the layers' (items, d)."""

    keys: dict[int, Tensor] = field(default_factory=dict)
    written: dict[int, Tensor] = field(default_factory=dict)
    stream: dict[int, Tensor] = field(default_factory=dict)


class _Enough(Exception):
    """Ends a pass once everything asked for is seen."""


def look(model: Model, batch: Batch, layers: Iterable[int], deltas: Iterable[Delta] = ()) -> Seen:
    """What the layers hold at the subjects, with ``deltas`` acting as if they were in the weights."""
    seen, wanted = Seen(), sorted(set(layers))

    def keep(kept: dict[int, Tensor], layer: int, values: Tensor) -> None:
        kept[layer] = batch.at_subject(values.detach()).float().cpu()

    with Hooks() as hooks, torch.no_grad(), contextlib.suppress(_Enough):
        act(hooks, model, deltas)
        for layer in wanted:
            block, writer = model.blocks[layer], writer_in(model, layer).module
            active = hooks.inside(block.module)

            def after(module: nn.Module, args: Any, kwargs: Any, output: Tensor, layer=layer, active=active) -> None:
                if active():
                    keep(seen.keys, layer, first_tensor(args, kwargs))
                    keep(seen.written, layer, output)

            def left(module: nn.Module, args: Any, kwargs: Any, output: Any, layer: int = layer) -> None:
                keep(seen.stream, layer, output if isinstance(output, Tensor) else output[0])
                if layer == wanted[-1]:
                    raise _Enough

            hooks.after(writer, after)
            hooks.after(block.module, left)
        model.forward(batch.inputs, rows=[-1])
    return seen


def act(hooks: Hooks, model: Model, deltas: Iterable[Delta]) -> None:
    """Let deltas act in every pass, without touching a weight."""
    for delta in deltas:

        def after(module: nn.Module, args: Any, kwargs: Any, output: Tensor, delta: Delta = delta) -> Tensor:
            return output + delta.written(first_tensor(args, kwargs)).to(output.dtype)

        hooks.after(writer_of(model, delta.layer, delta.path), after)


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
    deltas = tuple(deltas)
    parts = [
        look(model, batched(model, passages[start : start + ITEMS]), [layer], deltas).keys[layer]
        for start in range(0, len(passages), ITEMS)
    ]
    keys = torch.cat(parts).reshape(len(facts), len(prefixes), -1)
    if halves and len(prefixes) > 1:
        return (keys[:, 0] + keys[:, 1:].mean(1)) / 2
    return keys.mean(1)


def on_prompts(model: Model, facts: Sequence[Fact], layer: int, deltas: Iterable[Delta] = ()) -> Seen:
    """What ``layer`` holds at the subjects of the bare prompts."""
    found, deltas = Seen(), tuple(deltas)
    parts = []
    for start in range(0, len(facts), ITEMS):
        passages = [fact_passage(model, fact) for fact in facts[start : start + ITEMS]]
        parts.append(look(model, batched(model, passages), [layer], deltas))
    found.keys[layer] = torch.cat([part.keys[layer] for part in parts])
    found.written[layer] = torch.cat([part.written[layer] for part in parts])
    found.stream[layer] = torch.cat([part.stream[layer] for part in parts])
    return found
