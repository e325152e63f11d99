"""One pass under the rules of relevance in which every node of a circuit is cut, so that gradients end at nodes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neuronwise.model.direct import logit_scale
from neuronwise.model.experts import activations_of
from neuronwise.model.heads import Attention, attentions, edit_heads
from neuronwise.model.hooks import Args, Hooks, Kwargs, first_output, replace_output
from neuronwise.model.passes import edit_input, frozen_parameters, outputs_of
from neuronwise.model.products import watching
from neuronwise.model.relevance import relevance_rules
from neuronwise.model.run import Run, Target
from neuronwise.model.writers import Experts, Writer
from neuronwise.neurons import NeuronSet, ScoredNeuron

if TYPE_CHECKING:
    from neuronwise.model import Model


class CutPass:
    """The pass: nodes and the embeddings are leaves of its graph, and with ``cut_heads`` all heads' outputs too.

    ``before[writer]`` holds the activations of the writer's nodes as the layers below give them, ``leaves[writer]`` the
    same numbers as the layers above read them. ``mixed[attention]`` is what an output projection is given, ``heads``
    the same as it reads it: one tensor unless heads are cut. ``value`` is the root's.
    """

    def __init__(
        self, run: Run, target: Target, weights: Mapping[int, float], nodes: NeuronSet, *, cut_heads: bool = False
    ) -> None:
        self.model: Model = run.model
        self.run = run
        self.by_writer: dict[Writer, list[ScoredNeuron]] = {}
        for node in nodes:
            self.by_writer.setdefault(self.model.writer(node.neuron), []).append(node)
        self.before: dict[Writer, Tensor] = {}
        self.leaves: dict[Writer, Tensor] = {}
        self.mixed: dict[Attention, Tensor] = {}
        self.heads: dict[Attention, Tensor] = {}
        self.embedded = torch.empty(0)
        self._cut_heads = cut_heads
        row = run.row(target.position)
        self.last = run.length + row
        with frozen_parameters(self.model.module), torch.enable_grad(), relevance_rules(self.model), self._cuts():
            with outputs_of(self.model.head) as seen:
                logits = self.model.forward(run.forced_inputs(), rows=[row])
            raw = seen[-1] * logit_scale(logits, seen[-1])
        tokens = torch.tensor(list(weights), device=raw.device)
        self.value = (raw[0, 0, tokens].float() * torch.tensor(list(weights.values()), device=raw.device)).sum()

    @contextlib.contextmanager
    def _cuts(self) -> Iterator[None]:
        routed: dict[Experts, list[Writer]] = {}
        with contextlib.ExitStack() as stack:
            stack.enter_context(edit_input(self.model.blocks[0].module, self._embed))
            for one in attentions(self.model):
                stack.enter_context(edit_heads(self.model, one, partial(self._read_heads, one)))
            for writer in self.by_writer:
                if writer.experts is not None:
                    routed.setdefault(writer.experts, []).append(writer)
                else:
                    layer = self.model.blocks[writer.layer].module
                    stack.enter_context(edit_input(writer.module, partial(self._cut, writer), within=layer))
            hooks = stack.enter_context(Hooks())
            for experts, writers in routed.items():
                hooks.after(experts.unit, partial(self._cut_routed, experts, writers))
            yield

    def _embed(self, hidden: Tensor) -> Tensor:
        self.embedded = hidden.detach().requires_grad_(True)
        return self.embedded

    def _read_heads(self, attention: Attention, values: Tensor) -> Tensor:
        self.mixed[attention] = self.heads[attention] = values
        if self._cut_heads:
            self.heads[attention] = values.detach().requires_grad_(True)
        return self.heads[attention]

    def _cut(self, writer: Writer, values: Tensor) -> Tensor:
        if watching():
            return values
        flat = values.reshape(-1, values.shape[-1])
        nodes = self.by_writer[writer]
        rows = torch.tensor([node.position for node in nodes], device=values.device)
        columns = writer.columns(node.neuron for node in nodes).to(values.device)
        self.before[writer] = flat[rows, columns]
        self.leaves[writer] = self.before[writer].detach().requires_grad_(True)
        return flat.index_put((rows, columns), self.leaves[writer]).reshape(values.shape)

    def _cut_routed(
        self,
        experts: Experts,
        writers: Sequence[Writer],
        module: nn.Module,
        args: Args,
        kwargs: Kwargs,
        output: object,
    ) -> object:
        """The experts' kernels hide which row is which, so each node's activation is computed once more for its token.

        What it writes is linear in it: the leaf's writing is added, the activation's own taken off.
        """
        if watching():
            return None
        hidden = first_output(output)
        flat = hidden.reshape(-1, experts.hidden_size)
        positions = sorted({int(node.position or 0) for writer in writers for node in self.by_writer[writer]})
        seen = {p: activations_of(experts, args, kwargs, p, len(flat), attached=True) for p in positions}
        for writer in writers:
            nodes, columns = self.by_writer[writer], writer.columns(node.neuron for node in self.by_writer[writer])
            assert writer.expert is not None
            rows = [int(node.position or 0) for node in nodes]
            given = [
                seen[p][writer.expert - experts.first][column] for p, column in zip(rows, columns.tolist(), strict=True)
            ]
            # The router's weight is a constant of the rules: what the node is recorded with, by what was computed here.
            weights = [float(node.activation or 0.0) / float(a.detach()) for node, a in zip(nodes, given, strict=True)]
            self.before[writer] = torch.stack([a * weight for a, weight in zip(given, weights, strict=True)])
            self.leaves[writer] = self.before[writer].detach().requires_grad_(True)
            written = (self.leaves[writer] - self.before[writer])[:, None] * writer.vectors[:, columns].T
            flat = flat.index_add(0, torch.tensor(rows, device=flat.device), written.to(flat.dtype))
        return replace_output(output, flat.reshape(hidden.shape))

    def backward(self, outputs: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """The gradients (n, …) of each of ``outputs`` (n,) by each of ``inputs``, side by side."""
        each = torch.eye(len(outputs), device=outputs.device, dtype=outputs.dtype)
        return self.pulled([outputs], [each], inputs)

    def pulled(
        self, outputs: Sequence[Tensor], weights: Sequence[Tensor], inputs: Sequence[Tensor]
    ) -> tuple[Tensor | None, ...]:
        """The gradients (n, …) of n weighted sums of ``outputs``, each by its (n, …) weights."""
        return torch.autograd.grad(
            outputs, inputs, weights, retain_graph=True, allow_unused=True, is_grads_batched=True
        )
