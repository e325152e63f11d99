"""Interventions: temporary changes of a model, always undone on exit, also when the body raises.

All are context managers and nest. Dense neurons are changed by hooks on their activations, so the weights are never
touched; where a routed expert's neuron can be changed, it is by its value vector, restored to the bit.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuronwise.errors import MethodError, PromptError
from neuronwise.model.blocks import Block, expert_weight, holds
from neuronwise.model.hooks import Hooks, first_tensor, replace_first
from neuronwise.model.interfere import change_activations, change_output
from neuronwise.neurons import Neuron, Neurons, NeuronSet, as_neurons

if TYPE_CHECKING:
    from neuronwise.model import Model, Run

Change = Callable[[Tensor, Tensor], Tensor]  # (activations (batch, rows, k), units (k,)) → the same shape


@contextlib.contextmanager
def suppress(model: Model, neurons: Neurons, positions: Sequence[int] | None = None) -> Iterator[None]:
    """Within the body the neurons' activations are 0 (a ← 0).

    At all positions and steps, or only at ``positions`` of the sequence (prompt and generated tokens counted from 0).
    Raises ``NeuronError`` for a neuron the model does not have, before anything is changed.
    """
    with scale(model, neurons, 0.0, positions):
        yield


@contextlib.contextmanager
def scale(model: Model, neurons: Neurons, factor: float, positions: Sequence[int] | None = None) -> Iterator[None]:
    """Within the body the neurons' activations are multiplied by ``factor`` (a ← c·a)."""
    _require_finite(factor)
    chosen = _by_layer(model, neurons)
    with (
        _changed(model, chosen, positions, lambda layer: lambda a, units: a * factor),
        _changed_columns(model, chosen, positions, lambda column, neuron: column * factor),
    ):
        yield


@contextlib.contextmanager
def mean_ablate(
    model: Model, neurons: Neurons, means: Mapping[Neuron, float], positions: Sequence[int] | None = None
) -> Iterator[None]:
    """Within the body the neurons' activations are their means over a dataset (a ← mean), see ``mean_activations``."""
    chosen = _by_layer(model, neurons)
    missing = [str(n) for members in chosen.values() for n in members if n not in means]
    if missing:
        raise MethodError(f"There is no mean for {', '.join(missing[:5])}; gather it with mean_activations.")

    def change(layer: int) -> Change:
        values = torch.tensor([means[n] for n in chosen[layer]])
        return lambda a, units: values.to(a.device, a.dtype).expand_as(a)

    _refuse_routed(chosen, "mean_ablate")
    with _changed(model, chosen, positions, change):
        yield


def mean_activations(model: Model, neurons: Neurons, runs: Iterable[Run]) -> dict[Neuron, float]:
    """Mean activation of dense neurons over all positions of some runs."""
    chosen = _by_layer(model, neurons)
    _refuse_routed(chosen, "mean_activations")
    units = {layer: torch.tensor([n.unit for n in members]) for layer, members in chosen.items()}
    sums: dict[Neuron, float] = {n: 0.0 for members in chosen.values() for n in members}
    rows = 0
    for run in runs:
        acts = model.record(run.forced_inputs(), units=units)
        for layer, members in chosen.items():
            for neuron, total in zip(members, acts.dense[layer].double().sum(0).tolist(), strict=True):
                sums[neuron] += total
        rows += len(next(iter(acts.dense.values())))
    if not rows:
        raise MethodError("A mean needs one run or more.")
    return {neuron: total / rows for neuron, total in sums.items()}


@contextlib.contextmanager
def perturb(
    model: Model, neurons: Neurons, sigma: float, *, seed: int = 0, positions: Sequence[int] | None = None
) -> Iterator[None]:
    """Within the body the neurons' value vectors carry noise (v ← v + σ·N(0, 1), [MMN] §4.5)."""
    _require_finite(sigma, least=0.0)
    chosen = _by_layer(model, neurons)
    generator = torch.Generator().manual_seed(seed)
    noise = {
        n: sigma * torch.randn(model.hidden_size, generator=generator) for members in chosen.values() for n in members
    }
    tracker = _Tracker()
    with Hooks() as hooks:
        tracker.watch(hooks, model)
        for layer, members in chosen.items():
            dense = [n for n in members if n.expert is None]
            if dense:
                _add_noise(hooks, model.blocks[layer], dense, noise, tracker, positions)
        with _changed_columns(model, chosen, positions, lambda column, n: column + noise[n].to(column)):
            yield


@contextlib.contextmanager
def patch(model: Model, neurons: Neurons, source: Run, positions: Mapping[int, int] | Sequence[int]) -> Iterator[None]:
    """Within the body the neurons' activations are those of another run (a ← a of ``source``).

    ``positions`` maps positions of the sequence to positions of ``source``; a list takes the same ones.
    """
    pairs = dict(positions) if isinstance(positions, Mapping) else {p: p for p in positions}
    chosen = _by_layer(model, neurons)
    _refuse_routed(chosen, "patch")
    units = {layer: torch.tensor([n.unit for n in members]) for layer, members in chosen.items()}
    length = source.length
    wrong = [p for p in pairs.values() if not 0 <= p < length]
    if wrong:
        raise MethodError(f"The source run has positions 0 to {length - 1}; there is no position {wrong[0]}.")
    acts = model.record(source.forced_inputs(), rows=list(pairs.values()), units=units)

    def change(layer: int) -> Change:
        values = acts.dense[layer]  # one row for each of pairs, in its order
        order = {position: row for row, position in enumerate(pairs)}
        return lambda a, at: values[[order[p] for p in at.tolist()]].to(a.device, a.dtype).expand_as(a)

    with _changed(model, chosen, list(pairs), change, by_position=True):
        yield


@contextlib.contextmanager
def shuffle_image_tokens(model: Model, run: Run, *, seed: int = 0) -> Iterator[None]:
    """Within the body the decoder reads the image's tokens in another order ([MMN] §4.4).

    ``run`` tells where they are: the body shall run the same prompt on the same photo.
    """
    positions = run.image_positions
    if len(positions) < 2:
        raise PromptError("The prompt of this run holds no image tokens that could be shuffled.")
    order = positions[torch.randperm(len(positions), generator=torch.Generator().manual_seed(seed))]

    def before(module: Any, args: Any, kwargs: Any) -> Any:
        hidden = first_tensor(args, kwargs)
        if hidden.shape[1] <= int(positions.max()):
            return None  # a later step, the image is in the cache
        shuffled = hidden.clone()
        shuffled[:, positions] = hidden[:, order]
        return replace_first(args, kwargs, shuffled)

    with Hooks() as hooks:
        hooks.before(model.blocks[0].module, before)
        yield


def texts_without(model: Model, run: Run, sets: Mapping[str, NeuronSet]) -> dict[str, str]:
    """What the model says to the run's prompt with each of several sets of neurons suppressed."""
    texts = {}
    for name, neurons in sets.items():
        with suppress(model, neurons):
            texts[name] = model.run(run.image, run.prompt, max_new_tokens=run.max_new_tokens, chat=run.chat).text
    return texts


class _Tracker:
    """Which rows of the sequence a pass holds: the cache tells how many came before."""

    def __init__(self) -> None:
        self.batch, self.rows, self.offset = 1, 0, 0

    def watch(self, hooks: Hooks, model: Model) -> None:
        def before(module: Any, args: Any, kwargs: Any) -> None:
            hidden = first_tensor(args, kwargs)
            self.batch, self.rows = hidden.shape[0], hidden.shape[1]
            cache = kwargs.get("past_key_values")
            self.offset = int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else 0

        hooks.before(model.blocks[0].module, before)

    def chosen(self, positions: Sequence[int] | None) -> tuple[Tensor, Tensor]:
        """Rows of this pass, and the positions that they are."""
        at = range(self.offset, self.offset + self.rows) if positions is None else positions
        kept = [p for p in at if self.offset <= p < self.offset + self.rows]
        return torch.tensor([p - self.offset for p in kept], dtype=torch.long), torch.tensor(kept, dtype=torch.long)


@contextlib.contextmanager
def _changed(
    model: Model,
    chosen: dict[int, list[Neuron]],
    positions: Sequence[int] | None,
    change_of: Callable[[int], Change],
    by_position: bool = False,
) -> Iterator[None]:
    """Change the activations of dense neurons; ``change`` is given the units, or the positions."""
    _require_positions(positions)
    tracker = _Tracker()
    with Hooks() as hooks:
        tracker.watch(hooks, model)
        for layer, members in chosen.items():
            units = torch.tensor([n.unit for n in members if n.expert is None], dtype=torch.long)
            if len(units):
                change = _at(units, tracker, positions, change_of(layer), by_position)
                change_activations(hooks, model.blocks[layer], change, batch=lambda: tracker.batch)
        yield


def _at(
    units: Tensor, tracker: _Tracker, positions: Sequence[int] | None, change: Change, by_position: bool
) -> Callable[[Tensor], Tensor]:
    def changed(activations: Tensor) -> Tensor:
        rows, at = tracker.chosen(positions)
        if not len(rows):
            return activations
        rows, columns = rows.to(activations.device), units.to(activations.device)
        part = activations[:, rows[:, None], columns]
        activations[:, rows[:, None], columns] = change(part, at if by_position else units)
        return activations

    return changed


def _add_noise(
    hooks: Hooks,
    block: Block,
    dense: list[Neuron],
    noise: Mapping[Neuron, Tensor],
    tracker: _Tracker,
    positions: Sequence[int] | None,
) -> None:
    """What the writer returns, plus a · (σ · noise): the noise is on the value vectors, the weights stay."""
    start = 0
    for writer in block.dense:
        own = [n for n in dense if start <= n.unit < start + writer.width]
        units = torch.tensor([n.unit - start for n in own], dtype=torch.long)
        start += writer.width
        if not own:
            continue
        vectors = torch.stack([noise[n] for n in own])
        kept: list[Tensor] = []
        hooks.before(writer.module, lambda m, args, kwargs, kept=kept: kept.append(first_tensor(args, kwargs)))

        def change(out: Tensor, kept: list[Tensor] = kept, units: Tensor = units, vectors: Tensor = vectors) -> Tensor:
            inputs = kept.pop()
            rows, _ = tracker.chosen(positions)
            added = inputs[..., units.to(inputs.device)].to(out.dtype) @ vectors.to(out.device, out.dtype)
            mask = torch.zeros(tracker.batch, tracker.rows, 1, device=out.device, dtype=out.dtype)
            mask[:, rows.to(out.device)] = 1
            return out + added * mask.reshape(*added.shape[:-1], 1)

        change_output(hooks, writer.module, change, block)


@contextlib.contextmanager
def _changed_columns(
    model: Model,
    chosen: dict[int, list[Neuron]],
    positions: Sequence[int] | None,
    change: Callable[[Tensor, Neuron], Tensor],
) -> Iterator[None]:
    """Change the value vectors of routed neurons for the body, and put them back to the bit."""
    routed = [n for members in chosen.values() for n in members if n.expert is not None]
    if routed and positions is not None:
        raise MethodError(f"{routed[0]} is a routed expert's neuron; it can be changed at all positions only.")
    saved: list[tuple[Tensor, Tensor]] = []
    try:
        with torch.no_grad():
            for neuron in routed:
                assert neuron.expert is not None
                writer, index = model.blocks[neuron.layer].expert(neuron.expert)
                column = expert_weight(writer, index)[:, neuron.unit]
                if not holds(writer, index, column):
                    raise MethodError(
                        f"The weights of {neuron} are offloaded or quantized, so its value vector cannot be changed; "
                        "load the model into memory as it is."
                    )
                saved.append((column, column.clone()))
                column.copy_(change(column, neuron))
        yield
    finally:
        with torch.no_grad():
            for column, before in reversed(saved):
                column.copy_(before)


def _refuse_routed(chosen: dict[int, list[Neuron]], what: str) -> None:
    routed = [n for members in chosen.values() for n in members if n.expert is not None]
    if routed:
        raise MethodError(f"{what} is for dense neurons; {routed[0]} is a routed expert's.")


def _require_finite(number: float, least: float = -math.inf) -> None:
    if not math.isfinite(number) or number < least:
        raise MethodError(f"{number} is no number to change a neuron by.")


def _require_positions(positions: Sequence[int] | None) -> None:
    wrong = [p for p in positions or () if p < 0]
    if wrong:
        raise MethodError(f"Positions count from 0 over prompt and generated tokens; {wrong[0]} is none.")


def _by_layer(model: Model, neurons: Neurons) -> dict[int, list[Neuron]]:
    chosen: dict[int, list[Neuron]] = {}
    for neuron in dict.fromkeys(as_neurons(neurons)):
        model.require(neuron)
        chosen.setdefault(neuron.layer, []).append(neuron)
    return chosen
