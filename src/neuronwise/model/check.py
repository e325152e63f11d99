"""The check at load: activations · value vectors + bias must be what each feed-forward block really writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neuronwise.errors import ModelError
from neuronwise.model.anatomy import linear_shape
from neuronwise.model.blocks import Block, dense_weight, writer_bias
from neuronwise.model.experts import RoutedCall, expert_output, record_routed
from neuronwise.model.hooks import Hooks, first_tensor
from neuronwise.model.record import parent_of

if TYPE_CHECKING:
    from neuronwise.model.model import Model


def check_model(model: Model) -> None:
    """Run the blocks on a probe and compare; raises ``ModelError`` naming the first layer that does not add up."""
    if any(parameter.is_meta for parameter in model.module.parameters()) and not hasattr(model.module, "_hf_hook"):
        return  # no weights, nothing to compare
    require_readable(model.name, model.head, model.hidden_size)
    seen: dict[int, int] = {}
    for block in model.blocks:
        kind = hash(tuple((w.path, w.width) for w in block.dense) + tuple((r.path, r.experts) for r in block.routed))
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] > 2:  # one or two layers of each form prove the form
            continue
        for writer in block.dense:
            _check_dense(model, block, writer)
        for routed in block.routed:
            _check_routed(model, block, routed)


def require_readable(name: str, head: nn.Module, hidden_size: int) -> None:
    """Raise ``ModelError`` unless the output embeddings read the stream that the neurons write into."""
    width = (linear_shape(head) or (hidden_size,))[0]
    if width != hidden_size:
        raise ModelError(
            f"{name}: the decoder's hidden size is {hidden_size} but its output embeddings read {width} numbers, so "
            "what a neuron writes cannot be read as tokens."
        )


def _probe(model: Model, module: nn.Module, *shape: int) -> Tensor:
    like = next((p for p in module.parameters() if p.is_floating_point()), None)
    device = like.device if like is not None and not like.is_meta else model.device
    dtype = like.dtype if like is not None else torch.float32
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)


def _check_dense(model: Model, block: Block, writer: Any) -> None:
    """The block around the writer (where it is called with hidden states alone), else the writer itself."""
    parent = parent_of(block.module, writer.path)
    inputs: list[Tensor] = []
    written: list[Tensor] = []
    whole = False
    with Hooks() as hooks, torch.no_grad():
        hooks.before(writer.module, lambda module, args, kwargs: inputs.append(first_tensor(args, kwargs)))
        hooks.after(writer.module, lambda module, args, kwargs, output: written.append(output.clone()))
        output = None
        if parent is not block.module:
            try:
                output = parent(_probe(model, parent, 1, 2, model.hidden_size))
                output = output if isinstance(output, Tensor) else output[0]
                whole = len(inputs) == 1 and output.shape[-1] == model.hidden_size
            except Exception:  # a block that wants more than hidden states: its writer is checked alone
                whole = False
        if not whole:
            inputs.clear()
            written.clear()
            output = writer.module(_probe(model, writer.module, 2, writer.width))
    weight = dense_weight(writer)
    expected = inputs[0].reshape(-1, writer.width).to(weight.device).float() @ weight.float().T
    bias = writer_bias(writer.module)
    if bias is not None:
        expected = expected + bias.to(expected.device).float()
    assert output is not None
    if whole and _outer_steps(parent):
        output = written[0]
    real = output.reshape(-1, model.hidden_size).float().to(expected.device)
    difference = (expected - real).norm()
    if difference > _tolerance(writer.module) * real.norm() + 1e-6:
        raise ModelError(
            f"{model.name}: in layer {block.layer}, activations times the value vectors of '{writer.path}' do not "
            "reproduce what the block writes, so its neurons cannot be scored."
        )


def _outer_steps(parent: nn.Module) -> bool:
    """The module around the writer norms or gates what it wrote (BERT, RWKV): what the writer itself wrote compares."""
    return any("norm" in name.lower() or "receptance" in name.lower() for name, _ in parent.named_children())


def _tolerance(module: nn.Module) -> float:
    """Some quantized layers round what they are given too (LLM.int8), so what they return is rounded as well."""
    weight: Any = getattr(module, "weight", None)
    plain = isinstance(weight, Tensor) and type(weight.data) is Tensor and weight.dtype == torch.float32
    return 1e-4 if plain else 3e-2


def _check_routed(model: Model, block: Block, routed: Any) -> None:
    calls: list[RoutedCall] = []
    parent = parent_of(block.module, routed.path)
    if parent is block.module:
        return  # called by the layer itself with a router beside it: proved when a run records it
    with Hooks() as hooks, torch.no_grad():
        record_routed(hooks, routed, parent, block.dense, lambda: 2, calls.append)
        try:
            parent(_probe(model, parent, 1, 2, model.hidden_size))
        except Exception:  # a block that wants more than hidden states: proved when a run records it
            return
    for call in calls:
        for row in range(call.tokens):
            for expert, record in call.row(row).items():
                if not torch.isfinite(expert_output(routed, expert, record.activation)).all():
                    raise ModelError(
                        f"{model.name}: an expert of layer {block.layer} writes numbers that are not finite."
                    )
