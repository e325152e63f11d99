"""The direct path: the residual stream with every other branch held at its recorded value, every norm's scale held.

It is found by running the model itself: the inputs of all modules with weights inside the decoder layers are cut off
from the graph, their outputs become leaves, norms become the linear maps they were at that moment. The logit is then
affine in all leaves, through post-norms, residual multipliers, parallel blocks, gates and logit scales of any
architecture, without a word about any of them here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from neuronwise.model.blocks import Block
from neuronwise.model.experts import keep_beside
from neuronwise.model.hooks import After, Args, Hooks, Kwargs, first_output, first_tensor, replace_first, replace_output
from neuronwise.model.norms import freeze, looks_like_norm
from neuronwise.model.weights import linear_shape
from neuronwise.model.writers import Site

EMBEDDINGS: Site = (-1, "embeddings")


class DirectPath:
    """Sets the hooks under which the passes to come follow the direct path alone.

    After a pass ``leaves[site]`` is zero and what a gradient is asked for, ``outputs[site]`` what was written there,
    and ``constants`` the biases on the way.
    """

    def __init__(self, module: nn.Module, blocks: Sequence[Block], hooks: Hooks) -> None:
        self.leaves: dict[Site, Tensor] = {}
        self.outputs: dict[Site, Tensor] = {}
        self.constants: list[Tensor] = []
        self._hooks = hooks
        inside: set[nn.Module] = set()
        for block in blocks:
            self._follow(block)
            inside.update(block.module.modules())
        for name, part in module.named_modules():
            if part not in inside and looks_like_norm(name, part):
                hooks.after(part, self._linear_norm(lambda: EMBEDDINGS in self.outputs))  # none of an image encoder
        hooks.before(blocks[0].module, self._embeddings)

    def _follow(self, block: Block) -> None:
        active = self._hooks.inside(block.module)
        units = [experts.unit for experts in block.experts]
        done: set[nn.Module] = set()
        for name, part in block.module.named_modules():
            if part in done:
                continue
            if part not in units and looks_like_norm(name, part):
                self._hooks.after(part, self._linear_norm(active))
            elif part in units or linear_shape(part) is not None or _alone_with_weights(part):
                self._cut(block, name, part, active)
                done.update(part.modules())
            else:
                self.constants += [bias.requires_grad_(True) for bias in _own_biases(part, block.hidden_size)]

    def _embeddings(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        hidden = first_tensor(args, kwargs).detach()
        return replace_first(args, kwargs, hidden + self._leaf(EMBEDDINGS, hidden))

    def _cut(self, block: Block, name: str, module: nn.Module, active: Callable[[], bool]) -> None:
        """Cut one module from the graph. Dense writers inside of it (beside routed experts) are leaves of their own."""
        parts = set(module.modules()) - {module}
        inner = [writer for writer in block.dense if writer.module in parts]
        beside: dict[int, Tensor] = {}
        for writer in inner:
            keep_beside(self._hooks, writer.module, beside)

        def before(module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
            return tuple(map(_detached, args)), {key: _detached(value) for key, value in kwargs.items()}

        def after(module: nn.Module, args: Args, kwargs: Kwargs, output: object) -> object:
            tensor = first_output(output) if isinstance(output, Tensor | tuple) else None
            if not active() or not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                return None
            tensor = joined = tensor.detach()
            if tensor.shape[-1] == block.hidden_size:  # anything else (a gate's number) is not part of the stream
                for writer in inner:
                    part = beside[id(writer.module)].reshape(tensor.shape)
                    tensor = tensor - part
                    joined = joined + self._leaf(writer.site, part)
                joined = joined + self._leaf((block.layer, name), tensor)
            return replace_output(output, joined)

        self._hooks.before(module, before)
        self._hooks.after(module, after)

    def _leaf(self, site: Site, output: Tensor) -> Tensor:
        self.leaves[site], self.outputs[site] = torch.zeros_like(output, requires_grad=True), output
        return self.leaves[site]

    def _linear_norm(self, active: Callable[[], bool]) -> After:
        """Replaces a norm's output by the linear map it was, so that no gradient flows through its scale."""

        def after(module: nn.Module, args: Args, kwargs: Kwargs, output: object) -> Tensor | None:
            if not active():
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

        return after


def logit_scale(logits: Tensor, head: Tensor) -> float:
    """c where logits = c · head output (a logit scale); 1 where they are not proportional (a soft cap)."""
    a, b = logits.detach().float().flatten(), head.detach().to(logits.device).float().flatten()
    scale = float((a @ b) / (b @ b).clamp_min(1e-30))
    return scale if bool((a - scale * b).norm() <= 1e-4 * a.norm()) else 1.0


def _alone_with_weights(module: nn.Module) -> bool:
    """Owns parameters (or a quantized weight) itself, and none of its parts do."""
    own = any(True for _ in module.parameters(recurse=False)) or isinstance(getattr(module, "weight", None), Tensor)
    parts = any(True for child in module.children() for _ in child.parameters())
    return own and not parts


def _own_biases(module: nn.Module, hidden_size: int) -> list[Tensor]:
    """Biases that a module adds to what its parts return (GPT-NeoX Japanese, JetMoE's attention)."""
    own = module.named_parameters(recurse=False)
    return [p for name, p in own if name.endswith("bias") and p.shape == (hidden_size,)]


def _detached(value: object) -> object:
    return value.detach() if isinstance(value, Tensor) else value
