"""A decoder layer's feed-forward block as neurons: their value vectors, whatever the layout of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from neuronwise.errors import ModelError, NeuronError
from neuronwise.model.anatomy import Dense, LayerParts, Routed
from neuronwise.neurons import Neuron


class Block:
    """The neurons of one decoder layer.

    A dense neuron's unit counts over the layer's dense writers in the order of their definition; a routed expert's
    neurons are addressed by (expert, unit). ``value_vectors`` is (d, f): column i is what unit i writes into the
    residual stream. Layers without feed-forward neurons (state-space layers of a hybrid) have f = 0.
    """

    def __init__(self, layer: int, parts: LayerParts, hidden_size: int) -> None:
        self.layer = layer
        self.module = parts.module
        self.dense: tuple[Dense, ...] = parts.dense
        self.routed: tuple[Routed, ...] = parts.routed
        self.hidden_size = hidden_size
        self.width = parts.width
        self.num_experts = sum(routed.experts for routed in parts.routed)
        self.num_neurons = self.width + sum(routed.experts * routed.width for routed in parts.routed)

    def __repr__(self) -> str:
        experts = f", {self.num_experts} experts" if self.num_experts else ""
        return f"Block(layer={self.layer}, d={self.hidden_size}, f={self.width}{experts})"

    @property
    def value_vectors(self) -> Tensor:
        """(d, f) value vectors of the dense neurons: a view of W_down where one writer holds them all."""
        if not self.dense:
            raise NeuronError(f"Layer {self.layer} has no dense feed-forward neurons; see expert_value_vectors.")
        views = [dense_weight(writer) for writer in self.dense]
        return views[0] if len(views) == 1 else torch.cat(views, dim=1)

    def expert_value_vectors(self, expert: int) -> Tensor:
        """(d, f) value vectors of one routed expert: a view of its slice of the weights."""
        routed, index = self.expert(expert)
        return expert_weight(routed, index)

    def value_vector(self, neuron: Neuron) -> Tensor:
        """(d,) the value vector of one neuron; raises ``NeuronError`` when the layer has no such neuron."""
        self.require(neuron)
        if neuron.expert is None:
            return self.value_vectors[:, neuron.unit]
        return self.expert_value_vectors(neuron.expert)[:, neuron.unit]

    def expert(self, expert: int) -> tuple[Routed, int]:
        """The routed writer that holds ``expert`` and the expert's index in it."""
        index = expert
        for routed in self.routed:
            if 0 <= index < routed.experts:
                return routed, index
            index -= routed.experts
        raise NeuronError(f"Layer {self.layer} has {self.num_experts} routed experts; there is no expert {expert}.")

    def dense_from(self) -> list[tuple[Dense, int]]:
        """Each dense writer with the unit that its first neuron has in this layer."""
        starts = [sum(writer.width for writer in self.dense[:index]) for index in range(len(self.dense))]
        return list(zip(self.dense, starts, strict=True))

    def first_expert(self, routed: Routed) -> int:
        """The number under which the first expert of ``routed`` is addressed in this layer."""
        before = self.routed[: self.routed.index(routed)]
        return sum(other.experts for other in before)

    def require(self, neuron: Neuron) -> None:
        """Raise ``NeuronError`` with the valid range when the layer has no such neuron."""
        if neuron.expert is not None:
            width, where = self.expert(neuron.expert)[0].width, f"expert {neuron.expert} of layer {self.layer}"
        else:
            width, where = self.width, f"layer {self.layer}"
            if width == 0:
                kind = "only routed experts' neurons; write L.E.U" if self.routed else "no feed-forward neurons"
                raise NeuronError(f"There is no neuron {neuron}: layer {self.layer} has {kind}.")
        if not 0 <= neuron.unit < width:
            raise NeuronError(f"There is no neuron {neuron}: {where} has units 0 to {width - 1}.")

    def project(self, directions: Tensor) -> Tensor:
        """⟨direction, value vector⟩ for every dense neuron: directions (T, d) float32 → (T, f) float32."""
        weights = self.value_vectors
        return directions.to(weights.device).float().matmul(weights.float()).cpu()

    def project_expert(self, expert: int, directions: Tensor) -> Tensor:
        """The same for one routed expert: (T, d) → (T, f)."""
        weights = self.expert_value_vectors(expert)
        return directions.to(weights.device).float().matmul(weights.float()).cpu()


def dense_weight(writer: Dense) -> Tensor:
    """(d, f) view of a dense writer's weight (nn.Linear as it is, Conv1D transposed, quantized dequantized)."""
    weight = plain_weight(writer.module)
    return weight.T if hasattr(writer.module, "nx") else weight


def expert_weight(routed: Routed, index: int) -> Tensor:
    """(d, f) view of one expert's output projection."""
    if routed.parameter is None:
        return dense_weight(Dense(routed.path, routed.linears[index], routed.width, routed.hidden_size))
    owner, _, name = routed.parameter.rpartition(".")
    with materialized(routed.module):
        parameter = getattr(routed.module.get_submodule(owner), name).detach()
    rows = parameter.reshape(routed.experts, -1, parameter.shape[-1])[index]
    return rows.T if routed.transposed else rows


def holds(routed: Routed, index: int, view: Tensor) -> bool:
    """Whether ``view`` lies in one expert's own weights, so that writing into it changes them."""
    if routed.parameter is None:
        own: Any = getattr(routed.linears[index], "weight", None)
    else:
        owner, _, name = routed.parameter.rpartition(".")
        own = getattr(routed.module.get_submodule(owner), name)
    if not isinstance(own, Tensor) or own.is_meta or view.is_meta:
        return False
    return type(own.data) is Tensor and own.untyped_storage().data_ptr() == view.untyped_storage().data_ptr()


def writer_bias(module: nn.Module) -> Tensor | None:
    with materialized(module):
        bias = getattr(module, "bias", None)
        return bias.detach() if isinstance(bias, Tensor) else None


@contextlib.contextmanager
def materialized(module: nn.Module) -> Iterator[None]:
    """Weights that accelerate keeps on disk or in another memory are brought in for the body only."""
    if hasattr(module, "_hf_hook"):
        from accelerate.utils import align_module_device

        with align_module_device(module):
            yield
    else:
        yield


def keep_readable(module: nn.Module) -> None:
    """Have bitsandbytes leave its 4-bit weights as they are, where it would lay them out anew for this CPU.

    In that form nothing can be read from them and no gradient passes. Raises ``ModelError`` where it has been done.
    """
    for part in module.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
            if getattr(getattr(part.weight, "quant_state", None), "packing_format_for_cpu", False):
                raise ModelError(
                    "This model has run already, and bitsandbytes has laid its 4-bit weights out anew for this CPU, "
                    "unreadable; load it again and wrap it before it runs."
                )


def plain_weight(module: Any) -> Tensor:
    with materialized(module):
        weight = module.weight
        if hasattr(weight, "quant_state") or type(weight).__name__ == "Int8Params":
            from transformers.integrations.bitsandbytes import dequantize_bnb_weight

            return dequantize_bnb_weight(weight, getattr(module, "state", None))  # type: ignore[arg-type]
        if not weight.is_floating_point() or (type(weight.data) is not Tensor and hasattr(weight, "dequantize")):
            return weight.dequantize()  # type: ignore[union-attr]
        return weight.detach()  # type: ignore[union-attr]
