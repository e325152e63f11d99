"""The other definition of activation: the gate's output alone, before it is multiplied ([MMN]'s published code)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from neuronwise.errors import MethodError
from neuronwise.model.blocks import Block
from neuronwise.model.record import Recorder, parent_of


class GateRecorder(Recorder):
    """Records the output of each block's activation function in place of W_down's input.

    In an ungated block both are the same. Raises ``MethodError`` for blocks that compute their gate without a module
    of its own, or inside routed experts.
    """

    def _register(self) -> None:
        for block in self.blocks:
            if block.routed:
                raise MethodError(
                    f"activation='gate' is not to be had in layer {block.layer}: its routed experts compute their gate "
                    "inside one product. Use activation='ffn'."
                )
            for number, writer in enumerate(block.dense):
                gate = activation_function(parent_of(block.module, writer.path))
                self._hooks.after(gate, self._keep(block, number))

    def _keep(self, block: Block, number: int) -> Any:
        state = {"calls": 0}

        def after(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
            if output.shape[-1] != block.dense[number].width:
                raise MethodError(
                    f"The gate of layer {block.layer} is not as wide as its neurons; use activation='ffn'."
                )
            values = output.detach().reshape(-1, output.shape[-1])
            rows = values if self.rows is None else values[self.rows]
            kept = self.activations(state["calls"]).dense
            state["calls"] += 1
            kept[block.layer] = rows.to("cpu", copy=True)

        return after


def activation_function(parent: nn.Module) -> nn.Module:
    """The activation function's module: the one child without weights that is no dropout or norm."""
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
