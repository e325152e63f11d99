"""A decoder layer's feed-forward block as neurons: their value vectors, whatever the layout of the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuronwise.errors import NeuronError
from neuronwise.model.writers import Experts, Writer
from neuronwise.neurons import Neuron


class Block:
    """The neurons of one decoder layer, and its ``writers`` in the order (expert, first).

    A dense neuron's unit counts over the layer's dense writers in the order of their definition; a routed expert's
    neurons are addressed by (expert, unit). ``value_vectors`` is (d, f): column i is what unit i writes into the
    residual stream. Layers without feed-forward neurons (state-space layers of a hybrid) have f = 0.
    """

    def __init__(
        self,
        layer: int,
        path: str,
        module: nn.Module,
        writers: Sequence[Writer],
        experts: Sequence[Experts],
        hidden_size: int,
    ) -> None:
        self.layer = layer
        self.path = path
        self.module = module
        self.hidden_size = hidden_size
        self.writers = tuple(writers)
        self.experts = tuple(experts)
        self.dense = tuple(writer for writer in writers if writer.expert is None)
        self.width = sum(writer.width for writer in self.dense)
        self.num_experts = len(self.writers) - len(self.dense)
        self.num_neurons = sum(writer.width for writer in self.writers)

    def __repr__(self) -> str:
        experts = f", {self.num_experts} experts" if self.num_experts else ""
        return f"Block(layer={self.layer}, d={self.hidden_size}, f={self.width}{experts})"

    @property
    def value_vectors(self) -> Tensor:
        """(d, f) value vectors of the dense neurons: a view of W_down where one writer holds them all."""
        if not self.dense:
            raise NeuronError(
                f"Layer {self.layer} has no dense feed-forward neurons; its writers have the experts' value vectors."
            )
        views = [writer.vectors for writer in self.dense]
        return views[0] if len(views) == 1 else torch.cat(views, dim=1)

    def value_vector(self, neuron: Neuron) -> Tensor:
        """(d,) the value vector of one neuron; raises ``NeuronError`` when the layer has no such neuron."""
        writer = self.writer(neuron)
        return writer.vectors[:, neuron.unit - writer.first]

    def writer(self, neuron: Neuron) -> Writer:
        """The writer whose column a neuron is; raises ``NeuronError`` when the layer has no such neuron."""
        if neuron.expert is not None:
            writer = self._expert_writer(neuron.expert)
            width, where = writer.width, f"expert {neuron.expert} of layer {self.layer}"
            if neuron in writer:
                return writer
        else:
            width, where = self.width, f"layer {self.layer}"
            for writer in self.dense:
                if neuron in writer:
                    return writer
            if width == 0:
                kind = "only routed experts' neurons; write L.E.U" if self.writers else "no feed-forward neurons"
                raise NeuronError(f"There is no neuron {neuron}: layer {self.layer} has {kind}.")
        raise NeuronError(f"There is no neuron {neuron}: {where} has units 0 to {width - 1}.")

    def _expert_writer(self, expert: int) -> Writer:
        if not 0 <= expert < self.num_experts:
            raise NeuronError(f"Layer {self.layer} has {self.num_experts} routed experts; there is no expert {expert}.")
        return self.writers[len(self.dense) + expert]

    def around(self, path: str) -> nn.Module:
        """The module of the layer around the one at ``path``."""
        return self.module.get_submodule(path.rpartition(".")[0])
