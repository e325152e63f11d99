"""Routed experts: what each neuron of the experts chosen for one token did.

The layer's own experts are called once more for the single token in question while what goes into their output
projections is watched: that is the activation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuronwise.errors import ModelError
from neuronwise.model.activations import ExpertActivation, Row
from neuronwise.model.hooks import Args, Hooks, Kwargs, first_output, first_tensor
from neuronwise.model.products import last_activations, plain_implementation, watching
from neuronwise.model.writers import Experts, Writer


@dataclass(frozen=True)
class RoutedCall:
    """The recorded arguments of one call of an experts module (or of the module around it).

    ``output`` is what the routed experts alone added to its output.
    """

    experts: Experts
    args: Args
    kwargs: Kwargs
    output: Tensor
    tokens: int

    def row(self, index: int) -> Row:
        """Activations of every expert that token ``index`` was routed to, by the number it is addressed with."""
        with torch.no_grad():
            seen = activations_of(self.experts, self.args, self.kwargs, index, self.tokens)
        first = self.experts.first
        active = {first + expert: a for expert, a in seen.items() if bool(a.any())}
        if not active:
            return {}
        given = {first + expert: weight for expert, weight in _weights_given(self, index).items()}
        return _with_weights(self.experts, active, given, self.output.reshape(self.tokens, -1)[index])


def activations_of(
    experts: Experts, args: Args, kwargs: Kwargs, index: int, tokens: int, *, attached: bool = False
) -> dict[int, Tensor]:
    """(f,) of each expert called for token ``index`` of a call of ``experts.unit``, by its index among the experts.

    The unit is called once more for that token; ``attached``: within the graph under way.
    """
    one = tuple(_row(value, index, tokens) for value in args)
    named = {name: _row(value, index, tokens) for name, value in kwargs.items()}
    with plain_implementation(experts.unit), last_activations(experts, attached=attached) as seen:
        experts.unit(*one, **named)
    return seen


def record_routed(
    hooks: Hooks,
    experts: Experts,
    writers: Sequence[Writer],
    tokens: Callable[[], int],
    keep: Callable[[RoutedCall], object],
) -> None:
    """Call ``keep`` for every call of the experts, with ``tokens()`` the number of tokens in the pass.

    ``writers`` are the layer's: dense ones inside of the module that is called (Llama 4's shared expert) are taken out
    of its output, as is a bias of its own.
    """
    beside: dict[int, Tensor] = {}

    def after(module: nn.Module, args: Args, kwargs: Kwargs, output: object) -> None:
        if watching():
            return
        hidden = first_tensor(args, kwargs)
        if hidden.numel() != tokens() * hidden.shape[-1]:
            return
        written = first_output(output).detach().reshape(tokens(), -1)
        for other in beside.values():
            written = written - other.reshape(tokens(), -1)
        bias = experts.unit_bias
        if bias is not None:
            written = written - bias
        keep(RoutedCall(experts, _kept(args), _kept(kwargs), written, tokens()))

    for writer in experts.beside(writers):
        keep_beside(hooks, writer.module, beside)
    hooks.after(experts.unit, after)


def keep_beside(hooks: Hooks, module: nn.Module, kept: dict[int, Tensor]) -> None:
    """Keep what ``module`` last returned under its id."""

    def after(module: nn.Module, args: Args, kwargs: Kwargs, output: object) -> None:
        if not watching():
            kept[id(module)] = first_output(output).detach().clone()  # Llama 4 adds to it in place

    hooks.after(module, after)


def _with_weights(experts: Experts, active: dict[int, Tensor], given: dict[int, float], output: Tensor) -> Row:
    """Router weights as given to the module where they explain its output, else solved from the output itself."""
    numbers = list(active)
    close = functools.partial(_close, tolerance=1e-3 if output.dtype in (torch.float32, torch.float64) else 2e-2)
    output = output.float()
    columns = torch.stack([experts.writer(number).written(active[number]) for number in numbers], dim=1)
    if set(numbers) <= set(given):
        weights = torch.tensor([given[number] for number in numbers], device=columns.device)
        if close(columns @ weights, output):
            return {number: ExpertActivation(active[number], given[number]) for number in numbers}
    ones = torch.ones(len(numbers), device=columns.device)
    if close(columns @ ones, output):
        return {number: ExpertActivation(active[number], 1.0) for number in numbers}
    solution = torch.linalg.lstsq(columns.double().cpu(), output.double().cpu().unsqueeze(1)).solution[:, 0]
    if not close(columns.cpu() @ solution.float(), output.cpu()):
        raise ModelError(
            f"The experts at {experts.path} do not add up: their weighted value vectors do not reproduce the module's "
            "output, so the neurons of this model cannot be scored."
        )
    return {n: ExpertActivation(active[n], float(w)) for n, w in zip(numbers, solution, strict=True)}


def _weights_given(call: RoutedCall, index: int) -> dict[int, float]:
    """Router weights among the call's arguments: an integer (tokens, k) tensor and a float one of the same shape."""
    tensors = [value for value in (*call.args, *call.kwargs.values()) if isinstance(value, Tensor)]
    chosen = next((t for t in tensors if t.dim() == 2 and not t.is_floating_point()), None)
    if chosen is None:
        return {}
    weights = next((t for t in tensors if t.is_floating_point() and t.shape == chosen.shape), None)
    if weights is None:
        return {}
    return dict(zip(chosen[index].tolist(), weights[index].float().tolist(), strict=True))


def _close(left: Tensor, right: Tensor, tolerance: float) -> bool:
    return bool((left - right).norm() <= tolerance * right.norm() + 1e-6)


def _row(value: object, index: int, tokens: int) -> object:
    if isinstance(value, Tensor) and value.dim() >= 1:
        if value.shape[0] == tokens:
            return value[index : index + 1]
        if value.dim() >= 2 and value.shape[0] * value.shape[1] == tokens:
            return value.reshape(tokens, *value.shape[2:])[index][None, None]
    return value


def _kept(values: Any) -> Any:
    """The same with tensors that no gradient passes."""
    if isinstance(values, dict):
        return {name: _kept(value) for name, value in values.items()}
    if isinstance(values, tuple):
        return tuple(_kept(value) for value in values)
    return values.detach() if isinstance(values, Tensor) else values
