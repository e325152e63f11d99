"""Relevance propagation: a backward pass in which what the model computes is linear in what it reads.

Within ``relevance_rules`` a pass of the model gives the numbers that it always gives, and its gradients follow the
rules of Rezaei Jafari et al. 2025 (RelP, arXiv 2508.21258) and Arora et al. 2026 (arXiv 2601.22594): norms keep the
scale that they have, attention patterns and router weights are constants, an elementwise activation function with
act(0) = 0 is the constant act(x) / x times x, a gate with act(0) ≠ 0 is a constant, and each product of two branches
passes half to each. The output is then linear in embeddings and biases, so that input · gradient adds up to it.

Nothing here knows an architecture. Norms and activation functions are modules, found as the exact shares find them;
all else is recognized as the functions of torch that the decoder layers call.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from neuronwise.errors import MethodError
from neuronwise.model.hooks import Hooks, first_tensor
from neuronwise.model.norms import freeze, looks_like_norm

if TYPE_CHECKING:
    from neuronwise.model.model import Model

Function = Callable[..., object]

# Mixers of positions for which there is no rule: what they carry from one position to another is not a fixed pattern.
_WITHOUT_RULE = re.compile(
    r"mamba|lstm|rnn|rwkv|recurrent|rglru|shortconv|deltanet|retention|hyena|linearattention|lightningattention",
    re.IGNORECASE,
)


# Activation functions that an architecture defines for itself (BLOOM's GELU).
_ACTIVATION = re.compile(r"gelu|silu|swish|relu", re.IGNORECASE)


@contextlib.contextmanager
def relevance_rules(model: Model) -> Iterator[None]:
    """Within the body gradients of the model's logits are relevance, divided by the value they are taken at.

    Raises ``MethodError``, naming the module, for a decoder with a mixer of positions that no rule covers.
    """
    require_rules(model)
    inside = _Inside()
    with Hooks() as hooks:
        for block in model.blocks:
            for name, module in block.module.named_modules():
                inside.watch(hooks, block.layer, name, module)
                if looks_like_norm(name, module):
                    hooks.after(module, _linear_norm)
                elif is_activation(module):
                    hooks.after(module, _ratio_module)
        blocks = {id(module) for block in model.blocks for module in block.module.modules()}
        for name, module in model.module.named_modules():
            if id(module) not in blocks and looks_like_norm(name, module):
                hooks.after(module, lambda *call: _linear_norm(*call) if inside.entered else None)  # no image encoder's
        with _Rules(inside):
            yield


def require_rules(model: Model) -> None:
    """Raise ``MethodError`` when a decoder layer holds a mixer of positions that no rule covers."""
    for block in model.blocks:
        for name, module in block.module.named_modules():
            named = _WITHOUT_RULE.search(type(module).__name__) and any(True for _ in module.parameters())
            if named or isinstance(module, nn.Conv1d):
                raise MethodError(
                    f"method='relp' has no rule for {type(module).__name__} (layer {block.layer}, '{name}'); use "
                    "method='gradient_activation'."
                )


def is_activation(module: nn.Module) -> bool:
    """Whether a module may be an elementwise activation function: no weights, no parts, and no dropout."""
    if any(True for _ in module.parameters()) or any(True for _ in module.children()):
        return False
    kind = type(module)
    library = kind.__module__.startswith(("torch.nn.modules.activation", "transformers.activations"))
    return library or bool(_ACTIVATION.search(kind.__name__))


class _Inside:
    """Which part of a decoder layer is being computed: the rules hold there and nowhere else (no image encoder's)."""

    def __init__(self) -> None:
        self.stack: list[str] = []
        self.entered = False

    def watch(self, hooks: Hooks, layer: int, name: str, module: nn.Module) -> None:
        hooks.before(module, lambda *_: self._enter(f"{type(module).__name__} (layer {layer}, '{name}')"))
        hooks.after(module, lambda *_: self._leave())

    def _enter(self, part: str) -> None:
        self.stack.append(part)
        self.entered = True

    def _leave(self) -> None:
        self.stack.pop()


def _linear_norm(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> object:
    """The linear map that the norm is at this moment, with the same numbers."""
    inputs = first_tensor(args, kwargs)
    if not isinstance(output, Tensor) or output.shape != inputs.shape:
        return None
    frozen = freeze(module, inputs, output)
    if frozen is None:
        return None
    linear = frozen.linear(inputs.float())
    if frozen.bias is not None:
        linear = linear + module.get_parameter("bias").to(linear.device, linear.dtype)
    linear = linear.to(output.dtype)
    return linear + (output - linear).detach()


def _ratio_module(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> object:
    inputs = first_tensor(args, kwargs)
    if not isinstance(output, Tensor) or output.shape != inputs.shape:
        return None
    at_zero = module.forward(inputs.new_zeros(1))
    return ratio(inputs, output) if float(at_zero.abs().max()) == 0 else output.detach()


def ratio(inputs: Tensor, output: Tensor) -> Tensor:
    """``output`` as ``inputs`` times a constant, elementwise; where an input is 0 its output is a constant, 0."""
    inputs_, output_ = inputs.detach(), output.detach()
    factor = torch.where(inputs_ == 0, torch.zeros_like(output_), output_ / inputs_)
    scaled = inputs * factor.to(inputs.dtype)
    return scaled + (output_ - scaled).detach()


class _Rules(TorchFunctionMode):
    """Gives the functions of torch that decoder layers call the gradients of the rules."""

    def __init__(self, inside: _Inside) -> None:
        super().__init__()
        self.inside = inside

    def __torch_function__(
        self, func: Function, types: object, args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        kwargs = kwargs or {}
        if not self.inside.stack:
            return func(*args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            return func(*(_constant(value) for value in args[:2]), *args[2:], **_constant_named(kwargs, "query", "key"))
        if func in CONSTANTS:
            return cast(Tensor, func(*args, **kwargs)).detach()
        if func in RATIOS:
            inputs = cast(Tensor, args[0] if args else kwargs["input"])
            return ratio(inputs, cast(Tensor, func(inputs.detach(), *args[1:], **kwargs)))
        if func in PRODUCTS and len(args) > 1:
            left, right = args[0], args[1]
            if _varies(left) and _varies(right):
                return half(cast(Tensor, left), cast(Tensor, right))
        if _unruled(func, args, kwargs):
            return self._refused_if_used(func(*args, **kwargs), func)
        return func(*args, **kwargs)

    def _refused_if_used(self, output: object, func: Function) -> object:
        """An error once a gradient passes here: within norms and attention patterns none does."""
        part = self.inside.stack[-1]

        def refuse(gradient: Tensor) -> None:
            raise MethodError(
                f"method='relp' has no rule for {getattr(func, '__name__', func)} in {part}; use "
                "method='gradient_activation'."
            )

        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(refuse)
        return output


def _unruled(func: Function, args: Sequence[object], kwargs: Mapping[str, object]) -> bool:
    """Whether a function of what varies is neither linear nor one of those that have a rule."""
    given = [*args, *kwargs.values()]
    if func in ADDED_PRODUCTS:
        given = given[1:]
    if func in BILINEAR or func in ADDED_PRODUCTS:
        return all(map(_varies, given[:2]))
    if func in DIVISIONS:
        return any(map(_varies, given[1:2]))
    return func in CURVED and any(map(_varies, given))


def half(left: Tensor, right: Tensor) -> Tensor:
    """left · right, each factor's gradient half of what it is (the limit of 1/2 for each of two branches)."""
    return 0.5 * (left * right.detach()) + 0.5 * (left.detach() * right)


def _varies(value: object) -> bool:
    return isinstance(value, Tensor) and value.requires_grad and value.dim() > 0


def _constant(value: object) -> object:
    return value.detach() if isinstance(value, Tensor) else value


def _constant_named(kwargs: Mapping[str, object], *names: str) -> dict[str, object]:
    return {name: _constant(value) if name in names else value for name, value in kwargs.items()}


CONSTANTS: set[Function] = {
    functional.softmax, torch.softmax, Tensor.softmax, functional.log_softmax,
    functional.sigmoid, torch.sigmoid, Tensor.sigmoid, functional.softplus, functional.hardsigmoid,
    torch.exp, Tensor.exp,
}  # fmt: skip
"""Attention patterns, router weights, and gates with act(0) ≠ 0."""

RATIOS: set[Function] = {
    functional.silu, functional.gelu, functional.relu, functional.relu6, functional.leaky_relu, functional.elu,
    functional.mish, functional.hardswish, functional.hardtanh, functional.softsign, functional.tanh,
    torch.relu, Tensor.relu, torch.tanh, Tensor.tanh, torch.clamp, Tensor.clamp, torch.square, Tensor.square,
}  # fmt: skip
"""Elementwise functions with f(0) = 0, soft caps and clamps among them."""

PRODUCTS: set[Function] = {torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__}

BILINEAR: set[Function] = {
    torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.mm, Tensor.mm, Tensor.mul_,
    Tensor.__imul__, functional.linear, functional.conv1d, torch.outer,
}  # fmt: skip
"""Products that have a rule with one varying factor alone; that of queries and keys ends in a pattern."""

ADDED_PRODUCTS: set[Function] = {
    torch.baddbmm, Tensor.baddbmm, torch.addmm, Tensor.addmm, torch.addcmul, Tensor.addcmul, Tensor.addcmul_,
    torch.einsum,
}  # fmt: skip
"""The same behind a first argument, to which they are added (or which says how)."""

DIVISIONS: set[Function] = {
    torch.div, Tensor.div, Tensor.div_, Tensor.__truediv__, Tensor.__itruediv__, torch.true_divide, torch.addcdiv,
}  # fmt: skip
"""Linear in what is divided alone."""

CURVED: set[Function] = {
    torch.pow, Tensor.pow, Tensor.__pow__, Tensor.pow_, torch.sqrt, Tensor.sqrt, torch.rsqrt, Tensor.rsqrt, torch.log,
    Tensor.log, torch.log1p, torch.abs, Tensor.abs, torch.sin, Tensor.sin, torch.cos, Tensor.cos, torch.reciprocal,
    Tensor.reciprocal, Tensor.__rtruediv__, torch.erf, Tensor.erf, torch.maximum, torch.minimum, torch.max, torch.min,
    torch.amax, Tensor.amax, torch.prod, Tensor.prod, torch.cumprod, torch.logsumexp, torch.norm, Tensor.norm,
    functional.normalize, functional.glu, functional.selu, functional.celu, functional.prelu, functional.logsigmoid,
    functional.layer_norm, functional.group_norm, functional.rms_norm,
}  # fmt: skip
"""Functions that are not linear and have no rule outside of norms, activation functions and patterns."""
