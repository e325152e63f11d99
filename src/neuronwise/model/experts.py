"""Routed experts: what each neuron of the experts chosen for one token did.

The experts of a layer share one parameter and are computed by fused kernels, so there is no module to hook. Instead
the layer's own experts module is called once more for the single token in question, in its plain implementation,
while a function mode watches which slice of the output parameter each product uses: its input is the activation.
Nothing of any architecture's formula (gates, clamps, biases, scaled inputs) is written down here.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from neuronwise.errors import ModelError
from neuronwise.model.activations import ExpertActivation
from neuronwise.model.anatomy import Dense, Routed
from neuronwise.model.blocks import _writer
from neuronwise.model.hooks import Hooks, first_tensor


@dataclass(frozen=True)
class RoutedCall:
    """The recorded arguments of one call of an experts module (or of the module around it).

    ``output`` is what the routed experts alone added to its output.
    """

    routed: Routed
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor
    tokens: int

    def row(self, index: int) -> dict[int, ExpertActivation]:
        """Activations of every expert that token ``index`` was routed to, keyed by the expert's index in the writer."""
        args = tuple(_row(value, index, self.tokens) for value in self.args)
        kwargs = {name: _row(value, index, self.tokens) for name, value in self.kwargs.items()}
        with torch.no_grad(), _plain_implementation(self.module), _watch(self.routed) as seen:
            _tensor(self.module(*args, **kwargs))
        output = self.output.reshape(self.tokens, -1)[index]
        active = {expert: activation for expert, activation in seen.items() if bool(activation.any())}
        if not active:
            return {}
        return _with_weights(self.routed, active, _weights_given(self, index), output)


def record_routed(
    hooks: Hooks, routed: Routed, parent: nn.Module, dense: Sequence[Dense], tokens: Any, keep: Any
) -> None:
    """Call ``keep(RoutedCall)`` for every call of the experts, with ``tokens()`` the number of tokens in the pass.

    ``dense`` are the layer's dense writers: those inside of the module that is called (Llama 4's shared expert) are
    taken out of its output, as is a bias of its own.
    """
    unit = call_unit(routed, parent)
    beside: dict[int, Tensor] = {}

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if _watching:
            return
        hidden = first_tensor(args, kwargs)
        if hidden.numel() != tokens() * hidden.shape[-1]:
            return
        written = _tensor(output).detach().reshape(tokens(), -1)
        for other in beside.values():
            written = written - other.reshape(tokens(), -1)
        bias = unit_bias(unit, written.shape[-1])
        if bias is not None:
            written = written - bias
        keep(RoutedCall(routed, module, _kept(args), _kept(kwargs), written, tokens()))

    for writer in writers_inside(unit, dense):
        keep_beside(hooks, writer.module, beside)
    hooks.after(unit, after)


def writers_inside(unit: nn.Module, dense: Sequence[Dense]) -> list[Dense]:
    """The dense writers that are part of ``unit``."""
    parts = {id(module) for module in unit.modules()}
    return [writer for writer in dense if id(writer.module) in parts]


def keep_beside(hooks: Hooks, module: nn.Module, kept: dict[int, Tensor]) -> None:
    """Keep what ``module`` last returned under its id."""

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not _watching:
            kept[id(module)] = _tensor(output).detach().clone()  # Llama 4 adds to it in place

    hooks.after(module, after)


def unit_bias(unit: nn.Module, hidden_size: int) -> Tensor | None:
    """A bias that the module around the experts adds to their sum (JetMoE)."""
    bias = getattr(unit, "bias", None)
    return bias.detach() if isinstance(bias, Tensor) and bias.shape == (hidden_size,) else None


def watching() -> bool:
    """Whether modules are being called again to watch the experts: no hook shall count that call."""
    return bool(_watching)


def call_unit(routed: Routed, parent: nn.Module) -> nn.Module:
    return routed.unit


# (expert, its activations (n, f), what it writes for them (n, d)) → what shall be written instead, None for the same
Product = Callable[[int, Tensor, Tensor], Tensor | None]

_watching: list[Routed] = []


@contextlib.contextmanager
def _watch(routed: Routed) -> Iterator[dict[int, Tensor]]:
    seen: dict[int, Tensor] = {}
    _watching.append(routed)
    try:
        with Hooks() as hooks:
            if routed.parameter is None:
                for number, linear in enumerate(routed.linears):

                    def keep(module: nn.Module, args: Any, kwargs: Any, number: int = number) -> None:
                        rows = first_tensor(args, kwargs).detach().reshape(-1, routed.width)
                        if len(rows):
                            seen[number] = rows[-1].clone()

                    hooks.before(linear, keep)
                yield seen
            else:

                def note(expert: int, inputs: Tensor, output: Tensor) -> None:
                    seen[expert] = inputs[-1].detach().clone()

                with _Products(routed, note):
                    yield seen
    finally:
        _watching.pop()


class _Products(TorchFunctionMode):
    """Finds every product whose weight is (a slice of) the experts' output parameter.

    ``product(expert, inputs (n, f), output (n, d))`` is called for each; what it returns, unless that is None, takes
    the output's place.
    """

    def __init__(self, routed: Routed, product: Product) -> None:
        super().__init__()
        assert routed.parameter is not None
        path, _, self.name = routed.parameter.rpartition(".")
        self.owner = routed.module.get_submodule(path)
        self.routed = routed
        self.product = product

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        operands = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        if len(operands) < 2 or func not in _PRODUCTS or not operands[1].numel():
            return output
        # Looked up now: accelerate brings offloaded weights in for the call alone.
        parameter: Any = getattr(self.owner, self.name)
        weight = operands[1]
        if weight.untyped_storage().data_ptr() != parameter.untyped_storage().data_ptr():
            return output
        return self._passed(operands[0], weight, parameter, output)

    def _passed(self, inputs: Tensor, weight: Tensor, parameter: Tensor, output: Tensor) -> Tensor:
        size = parameter.numel() // self.routed.experts
        if weight.numel() == size:
            expert = (weight.storage_offset() - parameter.storage_offset()) // size
            rows = inputs.reshape(-1, self.routed.width)
            changed = self.product(expert, rows, output.reshape(-1, self.routed.hidden_size)) if len(rows) else None
            return output if changed is None else changed.reshape(output.shape)
        if weight.dim() == 3 and inputs.dim() == 3:  # every expert at once: (E, n, f) @ (E, f, d)
            parts = [self.product(expert, inputs[expert], output[expert]) for expert in range(self.routed.experts)]
            if any(part is not None for part in parts):
                return torch.stack([output[e] if part is None else part for e, part in enumerate(parts)])
        return output


_PRODUCTS = {
    torch.nn.functional.linear,
    torch.matmul,
    torch.Tensor.matmul,
    torch.Tensor.__matmul__,
    torch.mm,
    torch.Tensor.mm,
    torch.bmm,
    torch.Tensor.bmm,
}


@contextlib.contextmanager
def _plain_implementation(module: nn.Module) -> Iterator[None]:
    """Run fused experts by their plain loop for the body (grouped kernels hide which expert sees which token)."""
    configs: dict[int, Any] = {id(m.config): m.config for m in module.modules() if hasattr(m, "config")}
    configs = {key: config for key, config in configs.items() if hasattr(config, "_experts_implementation")}
    before = {key: config._experts_implementation for key, config in configs.items()}
    try:
        for config in configs.values():
            config._experts_implementation = "eager"
        yield
    finally:
        for key, config in configs.items():
            config._experts_implementation = before[key]


class ChangedProducts:
    """What the experts held in one parameter write, passed through ``product`` in every pass until ``remove``.

    The experts run by their plain loop meanwhile. Their activations, the router's weights and whatever else the
    architecture does to an expert's output stay its own.
    """

    def __init__(self, routed: Routed, product: Product) -> None:
        self.module = routed.module
        self.own = self.module.__dict__.get("forward")  # accelerate has put one there
        forward = self.module.forward

        def changed(*args: Any, **kwargs: Any) -> Any:
            with _plain_implementation(self.module), _Products(routed, product):
                return forward(*args, **kwargs)

        self.module.__dict__["forward"] = changed

    def remove(self) -> None:
        self.module.__dict__.pop("forward", None)
        if self.own is not None:
            self.module.__dict__["forward"] = self.own


def expert_output(routed: Routed, index: int, activation: Tensor) -> Tensor:
    """(d,) float32: what one expert writes for these activations, its bias included, before the router's weight."""
    return _writer(routed, index).written(activation)


def expert_bias(routed: Routed, index: int) -> Tensor | None:
    return _writer(routed, index).bias


def _with_weights(
    routed: Routed, active: dict[int, Tensor], given: dict[int, float] | None, output: Tensor
) -> dict[int, ExpertActivation]:
    """Router weights as given to the module where they explain its output, else solved from the output itself."""
    experts = list(active)
    close = functools.partial(_close, tolerance=1e-3 if output.dtype in (torch.float32, torch.float64) else 2e-2)
    output = output.float()
    columns = torch.stack([expert_output(routed, e, active[e]) for e in experts], dim=1)
    if given is not None and set(experts) <= set(given):
        weights = torch.tensor([given[e] for e in experts], device=columns.device)
        if close(columns @ weights, output):
            return {e: ExpertActivation(active[e], given[e]) for e in experts}
    ones = torch.ones(len(experts), device=columns.device)
    if close(columns @ ones, output):
        return {e: ExpertActivation(active[e], 1.0) for e in experts}
    solution = torch.linalg.lstsq(columns.double().cpu(), output.double().cpu().unsqueeze(1)).solution[:, 0]
    if not close(columns.cpu() @ solution.float(), output.cpu()):
        raise ModelError(
            f"The experts at {routed.path} do not add up: their weighted value vectors do not reproduce the module's "
            "output, so the neurons of this model cannot be scored."
        )
    return {e: ExpertActivation(active[e], float(w)) for e, w in zip(experts, solution, strict=True)}


def _weights_given(call: RoutedCall, index: int) -> dict[int, float] | None:
    """Router weights among the call's arguments: an integer (tokens, k) tensor and a float one of the same shape."""
    tensors = [v for v in (*call.args, *call.kwargs.values()) if isinstance(v, Tensor)]
    chosen = next((t for t in tensors if t.dim() == 2 and not t.is_floating_point()), None)
    if chosen is None:
        return None
    weights = next((t for t in tensors if t.is_floating_point() and t.shape == chosen.shape), None)
    if weights is None:
        return None
    return dict(zip(chosen[index].tolist(), weights[index].float().tolist(), strict=True))


def _close(left: Tensor, right: Tensor, tolerance: float) -> bool:
    return bool((left - right).norm() <= tolerance * right.norm() + 1e-6)


def _row(value: Any, index: int, tokens: int) -> Any:
    if isinstance(value, Tensor) and value.dim() >= 1:
        if value.shape[0] == tokens:
            return value[index : index + 1]
        if value.dim() >= 2 and value.shape[0] * value.shape[1] == tokens:
            return value.reshape(tokens, *value.shape[2:])[index][None, None]
    return value


def _kept(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _kept(value) for name, value in values.items()}
    if isinstance(values, tuple):
        return tuple(_kept(value) for value in values)
    return values.detach() if isinstance(values, Tensor) else values


def _tensor(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]
