"""Interventions: temporary changes of a model, always undone on exit, even when the body raises.

All are context managers and nest. Dense neurons are changed by hooks on their activations, so the weights are never
touched; where a routed expert's neuron can be changed, it is by its value vector, restored to the bit.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from neuronwise.errors import MethodError, PromptError
from neuronwise.locate.baseline import Baseline, resolved
from neuronwise.locate.firing import firing
from neuronwise.locate.method import require_own
from neuronwise.model import Model, Run
from neuronwise.model.heads import Attention, attention_of, edit_heads, mixed
from neuronwise.model.hooks import Args, Hooks, Kwargs, first_tensor
from neuronwise.model.modes import own_mode
from neuronwise.model.passes import edit, edit_input, inputs_of
from neuronwise.model.state import acting
from neuronwise.model.value_vectors import changed_vectors
from neuronwise.model.writers import Writer
from neuronwise.neurons import Head, Heads, Neuron, Neurons, NeuronSet, as_heads, as_neurons, names_heads
from neuronwise.registry.arguments import checked

Chosen = dict[Writer, list[Neuron]]
# (activations (batch, rows, k), the positions of these rows in the sequence) → the same shape
Change = Callable[[Tensor, list[int]], Tensor]


@checked
@contextlib.contextmanager
def suppress(model: Model, neurons: Neurons | Heads, positions: Sequence[int] | None = None) -> Iterator[None]:
    """Within the body the neurons' activations are 0 (a ← 0); of attention heads, what the output projection reads.

    At all positions and steps, or only at ``positions`` of the sequence (prompt and generated tokens counted from 0).
    Raises ``NeuronError`` for a neuron the model does not have, before anything is changed.
    """
    with scale(model, neurons, 0.0, positions):
        yield


@checked
@contextlib.contextmanager
def scale(
    model: Model, neurons: Neurons | Heads, factor: float, positions: Sequence[int] | None = None
) -> Iterator[None]:
    """Within the body the neurons' activations, or the outputs of heads, are multiplied by ``factor`` (a ← c·a)."""
    _require_finite("factor", factor)
    if names_heads(neurons):
        with _heads_changed(model, as_heads(neurons), positions, lambda head, values: values * factor):
            yield
        return
    chosen = _by_writer(model, cast(Neurons, neurons))
    with (
        acting(model, "scale", _named(chosen), factor, places=positions),
        _changed(model, chosen, positions, lambda own: lambda a, at: a * factor),
        changed_vectors(chosen, positions, lambda vectors, own: vectors * factor),
    ):
        yield


@checked
@contextlib.contextmanager
def mean_ablate(
    model: Model,
    neurons: Neurons | Heads,
    means: Mapping[Neuron, float] | Mapping[Head, Tensor] | Baseline | str = "self",
    positions: Sequence[int] | None = None,
) -> Iterator[None]:
    """Within the body the neurons' activations are what they usually are (a ← ā).

    Heads take the mean outputs that ``mean_outputs`` gathers.

    ``means``: a ``Baseline``, the folder of one, "self" (see ``Baseline.gather``), or a mean for each neuron, see
    ``mean_activations``. For a routed expert's neuron ā counts with the router's weight, and is written at every token,
    whichever experts the router chose; such neurons are set at all positions only.
    """
    if names_heads(neurons):
        heads, outputs = as_heads(neurons), cast("Mapping[Head, Tensor]", means if isinstance(means, Mapping) else {})
        lacking = [str(head) for head in heads if not isinstance(outputs.get(head), Tensor)]
        if lacking:
            raise MethodError(f"There is no mean output of {', '.join(lacking[:5])}; gather it with mean_outputs.")
        with _heads_changed(model, heads, positions, lambda head, values: outputs[head].to(values).expand_as(values)):
            yield
        return
    chosen = _by_writer(model, cast(Neurons, neurons))
    if isinstance(means, Mapping):
        usual = cast("Mapping[Neuron, float]", means)
    else:
        baseline = resolved(model, means)
        assert baseline is not None
        usual = {neuron: baseline.of(model, neuron) for own in chosen.values() for neuron in own}
    missing = [str(neuron) for own in chosen.values() for neuron in own if neuron not in usual]
    if missing:
        raise MethodError(f"There is no mean for {', '.join(missing[:5])}; gather it with mean_activations.")
    values = {writer: torch.tensor([usual[neuron] for neuron in own]) for writer, own in chosen.items()}

    def change(own: list[Neuron]) -> Change:
        return lambda a, at: values[model.writer(own[0])].to(a).expand_as(a)

    with contextlib.ExitStack() as stack:
        stack.enter_context(
            acting(model, "mean", tuple(usual[n] for n in _named(chosen)), _named(chosen), places=positions)
        )
        for writer, own in chosen.items():
            if writer.expert is not None:
                stack.enter_context(_always(model, writer, own, values[writer]))
        # What they write by the router's choice goes; by then the constant that takes its place is computed.
        stack.enter_context(changed_vectors(chosen, positions, lambda vectors, own: vectors * 0))
        stack.enter_context(_changed(model, chosen, positions, change))
        yield


@checked
def mean_activations(model: Model, neurons: Neurons, runs: Iterable[Run]) -> dict[Neuron, float]:
    """Mean activation over all positions of some runs; a routed expert's with its router weight, 0 elsewhere."""
    listed = [neuron for own in _by_writer(model, neurons).values() for neuron in own]
    sums, rows = torch.zeros(len(listed), dtype=torch.float64), 0
    for run in runs:
        fired = firing(model, run.forced_inputs(), listed)
        sums += fired.double().sum(0)
        rows += len(fired)
    if not rows:
        raise MethodError("A mean needs one run or more.")
    return dict(zip(listed, (sums / rows).tolist(), strict=True))


@checked
def mean_outputs(model: Model, heads: Heads, runs: Iterable[Run]) -> dict[Head, Tensor]:
    """(size,) float32 for each head: the mean over all positions of some runs of what the output projection reads."""
    listed = as_heads(heads)
    places = {head: attention_of(model, head) for head in listed}
    sums: dict[Head, Tensor] = {}
    rows = 0
    for run in runs:
        seen = mixed(model, run.forced_inputs(), range(run.length))
        rows += run.length
        for head, own in places.items():
            sums[head] = sums.get(head, torch.zeros(own.size)) + seen[own][:, own.columns(head)].float().sum(0).cpu()
    if not rows:
        raise MethodError("A mean needs one run or more.")
    return {head: total / rows for head, total in sums.items()}


@checked
@contextlib.contextmanager
def perturb(
    model: Model, neurons: Neurons, sigma: float, *, seed: int = 0, positions: Sequence[int] | None = None
) -> Iterator[None]:
    """Within the body the neurons' value vectors carry noise (v ← v + σ·N(0, 1), [MMN] §4.5)."""
    _require_finite("sigma", sigma)
    if sigma < 0:
        raise MethodError(f"sigma is {sigma}; give a number from 0.")
    listed = tuple(dict.fromkeys(as_neurons(neurons)))
    chosen = _by_writer(model, listed)
    generator = torch.Generator().manual_seed(seed)
    layers = list(dict.fromkeys(neuron.layer for neuron in listed))
    drawn = sorted(listed, key=lambda neuron: layers.index(neuron.layer))  # layer by layer, whichever the expert
    noise = {neuron: sigma * torch.randn(model.hidden_size, generator=generator) for neuron in drawn}

    def together(own: Sequence[Neuron]) -> Tensor:
        return torch.stack([noise[neuron] for neuron in own], dim=1)

    with contextlib.ExitStack() as stack:
        stack.enter_context(acting(model, "perturb", listed, sigma, seed, places=positions))
        rows = stack.enter_context(_rows(model, positions))
        for writer, own in chosen.items():
            if writer.expert is None:
                layer = model.blocks[writer.layer].module
                stack.enter_context(_noisy(writer, layer, writer.columns(own), together(own), rows))
        stack.enter_context(
            changed_vectors(chosen, positions, lambda vectors, own: vectors + together(own).to(vectors))
        )
        yield


@checked
@contextlib.contextmanager
def patch(model: Model, neurons: Neurons, source: Run, positions: Mapping[int, int] | Sequence[int]) -> Iterator[None]:
    """Within the body the neurons' activations are those of another run (a ← a of ``source``); for dense neurons.

    ``positions`` maps positions of the sequence to positions of ``source``; a list takes the same ones.
    """
    pairs = dict(positions) if isinstance(positions, Mapping) else {p: p for p in positions}
    chosen = _dense_by_writer(model, neurons, "patch")
    require_own(model, [source])
    length = source.length
    wrong = [p for p in pairs.values() if not 0 <= p < length]
    if wrong:
        raise MethodError(f"The source run has positions 0 to {length - 1}; there is no position {wrong[0]}.")
    listed = [neuron for own in chosen.values() for neuron in own]
    theirs = dict(zip(pairs, firing(model, source.forced_inputs(), listed, list(pairs.values())), strict=True))
    order = {neuron: column for column, neuron in enumerate(listed)}

    def change(own: list[Neuron]) -> Change:
        columns = [order[neuron] for neuron in own]
        return lambda a, at: torch.stack([theirs[position][columns] for position in at]).to(a).expand_as(a)

    with (
        acting(model, "patch", _named(chosen), source, tuple(pairs.values()), places=list(pairs)),
        _changed(model, chosen, list(pairs), change),
    ):
        yield


@checked
@contextlib.contextmanager
def shuffle_image_tokens(model: Model, run: Run, *, seed: int = 0) -> Iterator[None]:
    """Within the body the decoder reads the image's tokens in another order ([MMN] §4.4).

    ``run`` says where they are: the body must run the same prompt on the same photo.
    """
    positions = run.image_positions
    if len(positions) < 2:
        raise PromptError("The prompt of this run has no image tokens to shuffle.")
    order = positions[torch.randperm(len(positions), generator=torch.Generator().manual_seed(seed))]

    def shuffle(hidden: Tensor) -> Tensor:
        if hidden.shape[1] <= int(positions.max()):
            return hidden  # a later step: the image is in the cache
        shuffled = hidden.clone()
        shuffled[:, positions] = hidden[:, order]
        return shuffled

    moved = acting(model, "shuffle", tuple(order.tolist()), places=positions.tolist())
    with moved, edit_input(model.blocks[0].module, shuffle):
        yield


def texts_without(
    model: Model, run: Run, sets: Mapping[str, NeuronSet], means: Baseline | str | None = None
) -> dict[str, str]:
    """What the model says to the run's prompt with each of several sets of neurons suppressed.

    With ``means`` they are set to what they usually are, see ``mean_ablate``, in place of 0.
    """
    texts = {}
    usual = resolved(model, means)  # before anything is changed
    for name, neurons in sets.items():
        with suppress(model, neurons) if usual is None else mean_ablate(model, neurons, usual):
            texts[name] = run.again()
    return texts


class _Rows:
    """Which rows of the pass under way are at ``positions``: the cache tells how many came before."""

    def __init__(self, positions: Sequence[int] | None) -> None:
        self.positions = positions
        self.batch = 1
        self.chosen: list[int] = []
        self.at: list[int] = []

    def look(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        self.batch, rows = first_tensor(args, kwargs).shape[:2]
        cached = getattr(kwargs.get("past_key_values"), "get_seq_length", None)
        before = 0 if cached is None else int(cached())
        here = range(before, before + rows)
        self.at = [p for p in (here if self.positions is None else self.positions) if p in here]
        self.chosen = [p - before for p in self.at]

    def of(self, values: Tensor) -> Tensor:
        """(batch, positions, width) of what a module takes or gives, however it lays out its rows."""
        return values.reshape(self.batch, -1, values.shape[-1])


@contextlib.contextmanager
def _rows(model: Model, positions: Sequence[int] | None) -> Iterator[_Rows]:
    wrong = [p for p in positions or () if p < 0]
    if wrong:
        raise MethodError(f"Positions count from 0 over prompt and generated tokens; {wrong[0]} is not one.")
    rows = _Rows(positions)
    with Hooks() as hooks:
        hooks.before(model.blocks[0].module, rows.look)
        yield rows


@contextlib.contextmanager
def _changed(
    model: Model, chosen: Chosen, positions: Sequence[int] | None, change: Callable[[list[Neuron]], Change]
) -> Iterator[None]:
    """The activations of dense neurons pass through ``change`` of the neurons that one writer holds."""

    def put(inputs: Tensor, columns: Tensor, change: Change) -> Tensor:
        if not rows.chosen:
            return inputs
        whole = rows.of(inputs).clone()
        spots = (slice(None), torch.tensor(rows.chosen, device=inputs.device)[:, None], columns.to(inputs.device))
        whole[spots] = change(whole[spots], rows.at)
        return whole.reshape(inputs.shape)

    with contextlib.ExitStack() as stack:
        rows = stack.enter_context(_rows(model, positions))
        for writer, own in chosen.items():
            if writer.expert is None:
                with own_mode():
                    put_own = partial(put, columns=writer.columns(own), change=change(own))
                stack.enter_context(edit_input(writer.module, put_own, within=model.blocks[writer.layer].module))
        yield


@contextlib.contextmanager
def _heads_changed(
    model: Model, heads: Sequence[Head], positions: Sequence[int] | None, change: Callable[[Head, Tensor], Tensor]
) -> Iterator[None]:
    """The outputs (batch, rows, size) of heads pass through ``change``; all are looked up before anything is."""
    groups: dict[Attention, list[Head]] = {}
    for head in dict.fromkeys(heads):
        groups.setdefault(attention_of(model, head), []).append(head)

    def put(inputs: Tensor, attention: Attention, own: Sequence[Head]) -> Tensor:
        whole = rows.of(inputs).clone()
        for head in own:
            columns = attention.columns(head)
            whole[:, rows.chosen, columns] = change(head, whole[:, rows.chosen, columns])
        return whole.reshape(inputs.shape)

    with contextlib.ExitStack() as stack:
        stack.enter_context(acting(model, "heads", tuple(heads), change, places=positions))
        rows = stack.enter_context(_rows(model, positions))
        for attention, own in groups.items():
            stack.enter_context(edit_heads(model, attention, partial(put, attention=attention, own=own)))
        yield


@contextlib.contextmanager
def _noisy(writer: Writer, layer: nn.Module, columns: Tensor, noise: Tensor, rows: _Rows) -> Iterator[None]:
    """What the writer returns, plus a · noise (d, k) at the rows: the noise is on the value vectors, weights stay."""
    with inputs_of(writer.module, layer) as given:

        def add(out: Tensor) -> Tensor:
            fired = rows.of(given.pop())[:, rows.chosen][..., columns]
            whole = rows.of(out).clone()
            whole[:, rows.chosen] += fired.to(out) @ noise.T.to(out)
            return whole.reshape(out.shape)

        with edit(writer.module, add, layer):
            yield


def _always(
    model: Model, writer: Writer, own: Sequence[Neuron], values: Tensor
) -> contextlib.AbstractContextManager[None]:
    """A routed expert's neurons write ``values`` (k,) · their value vectors at every token."""
    vectors = writer.vectors
    written = vectors[:, writer.columns(own)].float() @ values.to(vectors.device)
    layer = model.blocks[writer.layer].module
    return edit(layer.get_submodule(writer.site[1]), lambda out: out + written.to(out), within=layer)


def _named(chosen: Chosen) -> tuple[Neuron, ...]:
    return tuple(neuron for own in chosen.values() for neuron in own)


def _by_writer(model: Model, neurons: Neurons) -> Chosen:
    return model.by_writer(dict.fromkeys(as_neurons(neurons)))


def _dense_by_writer(model: Model, neurons: Neurons, what: str) -> Chosen:
    chosen = _by_writer(model, neurons)
    routed = [own[0] for writer, own in chosen.items() if writer.expert is not None]
    if routed:
        raise MethodError(f"{what} is for dense neurons; {routed[0]} is a routed expert's.")
    return chosen


def _require_finite(name: str, number: float) -> None:
    if not math.isfinite(number):
        raise MethodError(f"{name} is {number}; give a finite number.")
