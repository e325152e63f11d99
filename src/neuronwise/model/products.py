"""The products of experts that share one parameter: watched, or changed, as the experts' own code computes them.

Such experts are computed by fused kernels, so there is no module to hook. A function mode watches which slice of the
output parameter each product of their plain implementation uses. Nothing of any architecture's formula (gates, clamps,
biases, scaled inputs) is written down here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from neuronwise.model.hooks import Args, Hooks, Kwargs, first_tensor
from neuronwise.model.passes import configured
from neuronwise.model.writers import Experts

# (index of an expert in the parameter, its activations (n, f), what it writes for them (n, d)) → what is written
# instead, None for the same
Product = Callable[[int, Tensor, Tensor], Tensor | None]

_watching: list[Experts] = []


def watching() -> bool:
    """Whether modules are being called again to watch the experts: no hook may count that call."""
    return bool(_watching)


@contextlib.contextmanager
def last_activations(experts: Experts, *, attached: bool = False) -> Iterator[dict[int, Tensor]]:
    """What each expert that is called in the body was given last: (f,) by the expert's index among them.

    ``attached``: as parts of the graph under way.
    """
    seen: dict[int, Tensor] = {}

    def keep(index: int, rows: Tensor) -> None:
        seen[index] = rows[-1] if attached else rows[-1].detach().clone()

    _watching.append(experts)
    try:
        if experts.parameter is None:
            with Hooks() as hooks:
                for index, linear in enumerate(experts.linears):
                    hooks.before(linear, _given(keep, index, experts.width))
                yield seen
        else:

            def note(index: int, inputs: Tensor, output: Tensor) -> None:
                keep(index, inputs)

            with _Products(experts, note):
                yield seen
    finally:
        _watching.pop()


def _given(keep: Callable[[int, Tensor], None], index: int, width: int) -> Callable[[nn.Module, Args, Kwargs], None]:
    def before(module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        rows = first_tensor(args, kwargs).reshape(-1, width)
        if len(rows):
            keep(index, rows)

    return before


class _Products(TorchFunctionMode):
    """Finds every product whose weight is (a slice of) the experts' output parameter.

    ``product(expert, inputs (n, f), output (n, d))`` is called for each; what it returns, unless that is None, takes
    the output's place.
    """

    def __init__(self, experts: Experts, product: Product) -> None:
        super().__init__()
        self.owner, self.name = experts.holder
        self.experts = experts
        self.product = product

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: Sequence[object] = (), kwargs: Kwargs | None = None
    ) -> object:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        operands = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if len(operands) < 2 or func not in _PRODUCTS or not operands[1].numel():
            return output
        # Looked up now: accelerate brings offloaded weights in for the call alone.
        parameter: Tensor = getattr(self.owner, self.name)
        if operands[1].untyped_storage().data_ptr() != parameter.untyped_storage().data_ptr():
            return output
        assert isinstance(output, Tensor)
        return self._passed(operands[0], operands[1], parameter, output)

    def _passed(self, inputs: Tensor, weight: Tensor, parameter: Tensor, output: Tensor) -> Tensor:
        size = parameter.numel() // self.experts.count
        if weight.numel() == size:
            expert = (weight.storage_offset() - parameter.storage_offset()) // size
            rows = inputs.reshape(-1, self.experts.width)
            changed = self.product(expert, rows, output.reshape(-1, self.experts.hidden_size)) if len(rows) else None
            return output if changed is None else changed.reshape(output.shape)
        if weight.dim() == 3 and inputs.dim() == 3:  # every expert at once: (E, n, f) @ (E, f, d)
            parts = [self.product(expert, inputs[expert], output[expert]) for expert in range(self.experts.count)]
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


def plain_implementation(module: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Run fused experts by their plain loop for the body (grouped kernels hide which expert sees which token)."""
    return configured(module, "_experts_implementation", "eager")


class ChangedProducts:
    """What the experts held in one parameter write, passed through ``product`` in every pass until ``remove``.

    The experts run by their plain loop meanwhile. Their activations, the router's weights and whatever else the
    architecture does to an expert's output stay its own.
    """

    def __init__(self, experts: Experts, product: Product) -> None:
        self.module = experts.module
        self.own = self.module.__dict__.get("forward")  # accelerate has put one there
        forward = self.module.forward

        def changed(*args: object, **kwargs: object) -> object:
            with plain_implementation(self.module), _Products(experts, product):
                return forward(*args, **kwargs)

        self.module.__dict__["forward"] = changed

    def remove(self) -> None:
        """Give the module its own forward back."""
        self.module.__dict__.pop("forward", None)
        if self.own is not None:
            self.module.__dict__["forward"] = self.own
