"""The check of relevance propagation: a pass keeps its numbers, and relevance adds up to the logit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from neuronwise.check.result import Measured, NotApplicable, difference, within
from neuronwise.check.subject import Subject, allowed
from neuronwise.errors import MethodError
from neuronwise.model.direct import logit_scale
from neuronwise.model.hooks import Args, Hooks, Kwargs, first_output, first_tensor, replace_first
from neuronwise.model.model import Model
from neuronwise.model.passes import frozen_parameters, outputs_of
from neuronwise.model.relevance import relevance_rules

ADDS: set[Callable[..., object]] = {torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_}


def relevance(subject: Subject) -> Measured:
    """Under the rules logits stay as they are, and all that enters the decoder shares the logit among itself.

    What enters: embeddings, biases, constants added to a branch, an encoder's states, and what is added between layers.
    """
    model, token = subject.model, subject.target.token_id
    entering = _Entering(model)
    try:
        with frozen_parameters(model.module), torch.enable_grad(), entering.watched(), relevance_rules(model):
            with outputs_of(model.head) as seen:
                logits = model.forward(subject.inputs, rows=[-1])
            head = seen[-1].reshape(-1, seen[-1].shape[-1])[-1] * logit_scale(logits, seen[-1])
            shares = entering.shares(head[token])
    except MethodError as error:
        raise NotApplicable(str(error)) from error
    moved = difference(allowed(logits[0, -1].float()), subject.logits())
    total, value = sum(shares), float(head[token].detach())
    off = abs(total - value) / (sum(map(abs, shares)) + abs(value) + 1e-12)
    what = f"logits as they are to {moved:.0e}; what enters adds up to {total:.4f}, the logit is {value:.4f}"
    return within("difference", max(moved, off), subject.tolerance, what, moved=moved, total=total, logit=value)


class _Entering:
    """What enters the decoder in one pass, so that its shares of a logit can be read off gradients."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.biases = [p for name, p in model.module.named_parameters() if name.endswith("bias")]
        self.leaves: list[Tensor] = []
        self.added: list[float] = []
        self._last: Tensor | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Set the hooks; the body runs one pass and reads its shares."""
        for bias in self.biases:
            bias.requires_grad_(True)
        with Hooks() as hooks, _Constants(self.added):
            for number, block in enumerate(self.model.blocks):
                hooks.before(block.module, self._enter if number == 0 else self._between)
                hooks.after(block.module, self._leave)
            yield

    def shares(self, value: Tensor) -> list[float]:
        """Input · gradient of every leaf and bias, and of what was added on the way."""
        inputs = [*self.leaves, *self.biases]
        gradients: list[Tensor | None] = [*torch.autograd.grad(value, inputs, allow_unused=True)]
        own = [
            float((i.detach().double() * g.double()).sum())
            for i, g in zip(inputs, gradients, strict=True)
            if g is not None
        ]
        return [*own, *self.added]

    def _leaf(self, value: Tensor) -> Tensor:
        self.leaves.append(value.detach().requires_grad_(True))
        return self.leaves[-1]

    def _enter(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        args, kwargs = replace_first(args, kwargs, self._leaf(first_tensor(args, kwargs)))
        return self._beside(args, kwargs)

    def _between(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        hidden = first_tensor(args, kwargs)
        if self._last is not None and hidden is not self._last and hidden.shape == self._last.shape:
            last = self._last.to(hidden.device)
            added = (hidden - last).detach()
            if added.any():
                args, kwargs = replace_first(args, kwargs, last + self._leaf(added))
        return self._beside(args, kwargs)

    def _beside(self, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        """An encoder's states are leaves too."""
        hidden = first_tensor(args, kwargs)

        def leaf(value: object) -> object:
            states = isinstance(value, Tensor) and value is not hidden and value.is_floating_point()
            return self._leaf(value) if states and value.dim() == 3 else value  # type: ignore[union-attr, arg-type]

        return tuple(map(leaf, args)), {name: leaf(value) for name, value in kwargs.items()}

    def _leave(self, module: nn.Module, args: Args, kwargs: Kwargs, output: object) -> None:
        self._last = first_output(output)


class _Constants(TorchFunctionMode):
    """Adds up what numbers that a layer adds to a branch have of the value: their gradient times the number."""

    def __init__(self, added: list[float]) -> None:
        super().__init__()
        self.added = added

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        output = func(*args, **(kwargs or {}))
        numbers = [one for one in args if isinstance(one, int | float) and not isinstance(one, bool) and one]
        if func in ADDS and numbers and isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(lambda g: self.added.append(float(g.double().sum()) * float(numbers[0])))
        return output
