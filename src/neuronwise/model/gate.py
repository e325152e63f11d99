"""The other definition of activation: the gate's output alone, before it is multiplied ([MMN]'s published code)."""

from __future__ import annotations

from torch import Tensor, nn

from neuronwise.errors import MethodError
from neuronwise.model.hooks import After, Args, Kwargs
from neuronwise.model.record import Recorder
from neuronwise.model.writers import Writer


class GateRecorder(Recorder):
    """Records the output of each block's activation function in place of W_down's input.

    In an ungated block both are the same. Raises ``MethodError`` for blocks that compute their gate without a module
    of its own, or inside routed experts.
    """

    def _register(self) -> None:
        for block in self.blocks:
            if block.experts:
                raise MethodError(
                    f"activation='gate' is not available in layer {block.layer}: its routed experts compute their gate "
                    "inside one product. Use activation='ffn'."
                )
            for writer in block.writers:
                self._hooks.after(activation_function(block.around(writer.path)), self._keep(writer))

    def _keep(self, writer: Writer) -> After:
        calls = 0

        def after(module: nn.Module, args: Args, kwargs: Kwargs, output: Tensor) -> None:
            nonlocal calls
            if output.shape[-1] != writer.width:
                raise MethodError(
                    f"The gate of layer {writer.layer} is not as wide as its neurons; use activation='ffn'."
                )
            values = output.detach().reshape(-1, output.shape[-1])
            chosen = self.rows(len(values))
            rows = values if chosen is None else values[chosen]
            self.activations(calls).dense[writer.layer] = rows.to("cpu", copy=True)
            calls += 1

        return after


def activation_function(parent: nn.Module) -> nn.Module:
    """The module of the activation function: the one child without weights that is neither a dropout nor a norm."""
    found = [
        child
        for name, child in parent.named_children()
        if not any(True for _ in child.parameters())
        and not any(True for _ in child.children())
        and not isinstance(child, (nn.Dropout, nn.Identity))
        and "norm" not in name.lower()
    ]
    if len({id(child) for child in found}) != 1:
        raise MethodError(f"{type(parent).__name__} has no activation function of its own; use activation='ffn'.")
    return found[0]
