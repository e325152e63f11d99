"""How what a layer writes reaches a logit: along the direct path alone, or through everything above it.

The direct path is the residual stream with every other branch held at its recorded value and every norm's scale held
fixed. It is found by running the model itself: the inputs of all modules with weights inside the decoder layers are
cut off from the graph, their outputs become leaves, norms become the linear maps they were at that moment. The logit
is then affine in all leaves, so the gradients are exact shares, through post-norms, residual multipliers, parallel
blocks, gates and logit scales of any architecture, without a word about any of them here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neuronwise.errors import ModelError
from neuronwise.model.experts import keep_beside, writers_inside
from neuronwise.model.hooks import Hooks, first_tensor, replace_first
from neuronwise.model.norms import freeze, looks_like_norm
from neuronwise.model.record import routed_unit

if TYPE_CHECKING:
    from neuronwise.model.blocks import Block
    from neuronwise.model.model import Model

Key = tuple[int, str]  # (layer, path of the writer in it)
Readout = tuple[int, Mapping[int, float]]  # (row, token id → weight): a weighted sum of that row's logits

EMBEDDINGS: Key = (-1, "embeddings")


@dataclass
class Written:
    """For each readout, its value and its gradient with respect to what each writer wrote.

    ``gradients[t][key]`` is float32: (d,) at the readout's own row along the direct path, (positions, d) otherwise.
    With a direct path also ``shares[t][key]``, what each component adds to the value, and ``constants[t]``, what
    norm and head biases add.
    """

    values: list[float] = field(default_factory=list)
    gradients: list[dict[Key, Tensor]] = field(default_factory=list)
    shares: list[dict[Key, float]] = field(default_factory=list)
    constants: list[float] = field(default_factory=list)


def written_gradients(model: Model, inputs: dict[str, Any], readouts: Sequence[Readout], *, direct: bool) -> Written:
    """Gradients of weighted sums of logits with respect to the layers' writes, all in one pass over ``inputs``.

    ``direct=True``: along the residual stream alone, with the final norm and all others linearized where they are,
    before any soft cap; ``direct=False``: of the model's real logits, through all later layers. Rows count as in the
    sequence of ``inputs`` (from its end when negative).
    """
    leaves: dict[Key, Tensor] = {}
    outputs: dict[Key, Tensor] = {}
    constants: list[Tensor] = []
    rows = sorted({row for row, _ in readouts})
    result = Written()
    with frozen_parameters(model.module), Hooks() as hooks, torch.enable_grad():
        if direct:
            _direct_hooks(model, hooks, leaves, outputs, constants)
        else:
            _full_hooks(model, hooks, leaves)
        logits, before_cap = _logits(model, inputs, rows, hooks)
        read_from = before_cap if direct else logits
        for row, weights in readouts:
            value = _weighted(read_from[0, rows.index(row)], weights)
            grads = torch.autograd.grad(value, [*leaves.values(), *constants], retain_graph=True, allow_unused=True)
            found = {key: grad for key, grad in zip(leaves, grads, strict=False) if grad is not None}
            result.values.append(float(value.detach()))
            if direct:
                # Along the direct path a position sees itself alone, so one row of each gradient is all there is.
                result.gradients.append({key: _rows(grad)[row].float().cpu() for key, grad in found.items()})
                result.shares.append({key: _product(grad, outputs[key]) for key, grad in found.items()})
                biases = zip(constants, grads[len(leaves) :], strict=True)
                total = sum(_product(grad, bias) for bias, grad in biases if grad is not None)
                head = getattr(model.head, "bias", None)
                if isinstance(head, Tensor):
                    total += float(_weighted(head.detach(), weights)) * _scale(logits, before_cap)
                result.constants.append(total)
            else:
                result.gradients.append({key: _rows(grad).float().cpu() for key, grad in found.items()})
    return result


def _weighted(logits: Tensor, weights: Mapping[int, float]) -> Tensor:
    chosen = logits[torch.tensor(list(weights), device=logits.device)].float()
    return (chosen * torch.tensor(list(weights.values()), device=logits.device)).sum()


def _rows(values: Tensor) -> Tensor:
    return values.detach().reshape(-1, values.shape[-1])


def _product(left: Tensor, right: Tensor) -> float:
    return float((left.detach().float() * right.detach().float()).sum())


def _direct_hooks(
    model: Model, hooks: Hooks, leaves: dict[Key, Tensor], outputs: dict[Key, Tensor], constants: list[Tensor]
) -> None:
    for block in model.blocks:
        cut = _Cut(hooks, block, leaves, outputs)
        units = [routed_unit(block, i) for i in range(len(block.routed))]
        inside_units = {id(m) for unit in units for m in unit.modules()}
        for name, module in block.module.named_modules():
            if any(module is unit for unit in units):
                cut(name, module)
            elif id(module) in inside_units:
                continue
            elif looks_like_norm(name, module):
                hooks.after(module, _LinearNorm(constants, cut.active))
            elif _has_own_weights(module):
                cut(name, module)
            else:
                constants += [bias.requires_grad_(True) for bias in _own_biases(module, block.hidden_size)]
    inside = {id(m) for block in model.blocks for m in block.module.modules()}
    for name, module in model.module.named_modules():
        if id(module) not in inside and looks_like_norm(name, module):
            hooks.after(module, _LinearNorm(constants, lambda: EMBEDDINGS in outputs))  # none of an image encoder

    def embeddings(module: nn.Module, args: Any, kwargs: Any) -> Any:
        hidden = first_tensor(args, kwargs).detach()
        outputs[EMBEDDINGS] = hidden
        leaves[EMBEDDINGS] = torch.zeros_like(hidden, requires_grad=True)
        return replace_first(args, kwargs, hidden + leaves[EMBEDDINGS])

    hooks.before(model.blocks[0].module, embeddings)


def _has_own_weights(module: nn.Module) -> bool:
    """Owns parameters (or a quantized weight) itself, and none of its parts do."""
    own = any(True for _ in module.parameters(recurse=False)) or isinstance(getattr(module, "weight", None), Tensor)
    return own and not any(True for child in module.children() for _ in child.parameters())


def _own_biases(module: nn.Module, hidden_size: int) -> list[Tensor]:
    """Biases that a module adds to what its parts return (GPT-NeoX Japanese, JetMoE's attention)."""
    own = module.named_parameters(recurse=False)
    return [p for name, p in own if name.endswith("bias") and p.shape == (hidden_size,)]


class _Cut:
    """Cuts modules of one layer from the graph; what they write into the stream becomes leaves."""

    def __init__(self, hooks: Hooks, block: Block, leaves: dict[Key, Tensor], outputs: dict[Key, Tensor]) -> None:
        self.hooks = hooks
        self.block = block
        self.leaves = leaves
        self.outputs = outputs
        self.active = hooks.inside(block.module)

    def __call__(self, name: str, module: nn.Module) -> None:
        """Cut ``module``. Dense writers inside of it (beside routed experts) are leaves of their own."""
        inner = [w for w in writers_inside(module, self.block.dense) if w.module is not module]
        beside: dict[int, Tensor] = {}
        for writer in inner:
            keep_beside(self.hooks, writer.module, beside)

        def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
            return tuple(_detached(a) for a in args), {name: _detached(v) for name, v in kwargs.items()}

        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            tensor = output if isinstance(output, Tensor) else output[0] if isinstance(output, tuple) else None
            if not self.active() or not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                return None
            tensor = joined = tensor.detach()
            if tensor.shape[-1] == self.block.hidden_size:  # anything else (a gate's number) is no part of the stream
                for writer in inner:
                    part = beside[id(writer.module)].reshape(tensor.shape)
                    tensor = tensor - part
                    joined = joined + self._leaf(writer.path, part)
                joined = joined + self._leaf(name, tensor)
            return joined if isinstance(output, Tensor) else (joined, *output[1:])

        self.hooks.before(module, before)
        self.hooks.after(module, after)

    def _leaf(self, name: str, output: Tensor) -> Tensor:
        leaf = torch.zeros_like(output, requires_grad=True)
        self.leaves[self.block.layer, name], self.outputs[self.block.layer, name] = leaf, output
        return leaf


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


class _LinearNorm:
    """Replaces a norm's output by the linear map it was, so that no gradient flows through its scale."""

    def __init__(self, constants: list[Tensor], active: Callable[[], bool]) -> None:
        self.constants = constants
        self.active = active

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if not self.active():
            return None
        inputs = first_tensor(args, kwargs)
        if len(args) + len(kwargs) > 1 or not isinstance(output, Tensor) or output.shape != inputs.shape:
            return None
        inputs = inputs.to(output.device)  # the first norm behind a change of devices is given them from the other
        frozen = freeze(module, inputs, output)
        if frozen is None:
            return None
        linear = frozen.linear(inputs.float())
        if frozen.bias is not None:
            bias = frozen.bias.expand(linear.shape).clone().requires_grad_(True)
            self.constants.append(bias)
            linear = linear + bias
        return linear.to(output.dtype)


def _full_hooks(model: Model, hooks: Hooks, leaves: dict[Key, Tensor]) -> None:
    def add_leaf(key: Key, active: Callable[[], bool]) -> Any:
        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            if not active():
                return None
            tensor = output if isinstance(output, Tensor) else output[0]
            leaves[key] = torch.zeros_like(tensor, requires_grad=True)
            joined = tensor + leaves[key]
            return joined if isinstance(output, Tensor) else (joined, *output[1:])

        return after

    for block in model.blocks:
        active = hooks.inside(block.module)
        for writer in block.dense:
            hooks.after(writer.module, add_leaf((block.layer, writer.path), active))
        for number in range(len(block.routed)):
            hooks.after(routed_unit(block, number), add_leaf((block.layer, unit_path(block, number)), active))


def unit_path(block: Any, number: int) -> str:
    """The path, in its layer, of the module whose output holds what the routed experts write."""
    unit = routed_unit(block, number)
    return next(name for name, module in block.module.named_modules() if module is unit)


def _logits(model: Model, inputs: dict[str, Any], rows: list[int], hooks: Hooks) -> tuple[Tensor, Tensor]:
    """The model's logits (1, rows, V) and the same before any soft cap, with every linear scale applied."""
    seen: list[Tensor] = []
    hooks.after(model.head, lambda module, args, kwargs, output: seen.append(output))
    logits = model.forward(inputs, rows=rows)
    if len(seen) != 1:
        raise ModelError(
            "The output head of this model is called more than once in a pass; its logits cannot be split."
        )
    return logits, seen[0] * _scale(logits, seen[0])


def _scale(logits: Tensor, head: Tensor) -> float:
    """c where logits = c · head output (a logit scale); 1 where they are not proportional (a soft cap)."""
    a, b = logits.detach().float().flatten(), head.detach().to(logits.device).float().flatten()
    scale = float((a @ b) / (b @ b).clamp_min(1e-30))
    return scale if bool((a - scale * b).norm() <= 1e-4 * a.norm()) else 1.0


@contextlib.contextmanager
def frozen_parameters(module: nn.Module) -> Iterator[None]:
    """No parameter asks for gradients within the body, so that no activations are kept for them."""
    before = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, wanted in before:
            parameter.requires_grad_(wanted)
