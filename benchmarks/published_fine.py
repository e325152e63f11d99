"""FiNE as its released code does it, step by step, in our words: the baseline of `edit.py`.

Both variants freeze the parameters, run the whole model in every step and let gradients flow back to the lowest layer
that is changed, as the released code does; the distribution before the edit is computed once.

- "released": deltas and Adam in bfloat16; one delta for every target position and neuron, so that a neuron chosen at
  two positions is learned twice; activations of all layers and positions kept; for the choice a half-precision copy of
  every layer's W_down at every target position; the probabilities that it prints in each step are computed (the
  printing itself is left out).
- "needed": the same procedure cut down to what it needs: float32, one delta for a neuron, the choice of `fine`, no
  probabilities but those of the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import neuronwise as nw
from neuronwise.edit import Delta, Edit, FineSettings
from neuronwise.edit.fine.neurons import choose, observe
from neuronwise.edit.fine.request import Batch, Request
from neuronwise.model.passes import frozen_parameters


@dataclass
class Slot:
    """One delta: of ``unit`` in ``layer``."""

    layer: int
    unit: int


def literal(model: nw.Model, fact: nw.Fact, settings: FineSettings, variant: str = "needed") -> tuple[Edit, int]:
    """The edit and the number of steps. For decoders of text with one dense writer in each layer."""
    request = Request.of(model, fact)
    ids, target = request.run.forced_inputs()["input_ids"], request.target
    with frozen_parameters(model.module):
        if variant == "released":
            slots, dtype = _released_choice(model, ids, len(target), settings), torch.bfloat16
        else:
            observe(Batch.of(model, [request]))
            slots = [Slot(n.layer, n.unit) for n in choose(model, request, settings)]
            dtype = torch.float32
        deltas = torch.zeros(len(slots), model.hidden_size, dtype=dtype, requires_grad=True)
        handles = [_hook(model, layer, slots, deltas) for layer in sorted({slot.layer for slot in slots})]
        try:
            steps = _learn(model, ids, target, deltas, settings, variant)
        finally:
            for handle in handles:
                handle.remove()
    return Edit(tuple(_deltas(model, slots, deltas.detach().float())), {"method": variant}), steps


def _learn(model: nw.Model, ids: Tensor, target: Tensor, deltas: Tensor, settings: FineSettings, variant: str) -> int:
    count = len(target)
    optimizer = torch.optim.Adam([deltas], lr=settings.rate)
    mask = torch.ones_like(ids)
    with torch.no_grad():
        before = model.module(input_ids=ids, attention_mask=mask).logits[0, : -count - 1].softmax(-1)
    for step in range(1, settings.steps + 1):
        logits = model.module(input_ids=ids, attention_mask=mask).logits[0]
        answer = logits[-count - 1 : -1].float()
        new = nn.functional.nll_loss(answer.log_softmax(-1), target, reduction="none").max()
        kept = nn.functional.kl_div(logits[: -count - 1].log_softmax(-1), before, reduction="batchmean")
        again = (-torch.log(1 - logits[-1].float().softmax(-1)[target])).max()
        loss = new + settings.gamma * deltas.norm() + settings.alpha * kept + settings.beta * again
        if variant == "released":  # what it prints
            _ = answer.softmax(-1).gather(-1, target.unsqueeze(-1)).min().item(), loss.item(), kept.item()
            _ = logits[-count - 1 : -1].argmax(-1).tolist(), logits[-1].softmax(-1)[target].tolist()
        if new.exp() <= 1 / settings.enough:
            return step
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return settings.steps


def _released_choice(model: nw.Model, ids: Tensor, count: int, settings: FineSettings) -> list[Slot]:
    kept: list[Tensor] = []
    handles = [
        block.dense[0].module.register_forward_pre_hook(lambda m, args: kept.append(args[0].detach().clone()))
        for block in model.blocks
    ]
    try:
        with torch.no_grad():
            said = model.module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.argmax(-1)[0]
    finally:
        for handle in handles:
            handle.remove()
    activations = torch.stack(kept)[:, 0, -count - 1 : -1]
    slots = []
    for position, token in enumerate(said[-count - 1 : -1].tolist()):
        direction = model.unembedding.detach().T[:, token].half()
        scores = []
        for layer in range(model.num_layers - settings.freeze_last):
            written = model.blocks[layer].value_vectors.detach().T.half()
            scores.append(activations[layer, position] * (written @ direction))
        best = torch.stack(scores).half().flatten().topk(settings.n).indices.tolist()
        slots += [Slot(*divmod(index, activations.shape[-1])) for index in best]
    return slots


def _hook(model: nw.Model, layer: int, slots: Sequence[Slot], deltas: Tensor) -> Any:
    mine = [number for number, slot in enumerate(slots) if slot.layer == layer]
    units = [slots[number].unit for number in mine]

    def after(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output + (args[0][..., units].to(deltas.dtype) @ deltas[mine]).to(output.dtype)

    return model.blocks[layer].dense[0].module.register_forward_hook(after)


def _deltas(model: nw.Model, slots: Sequence[Slot], deltas: Tensor) -> list[Delta]:
    found = []
    for layer in sorted({slot.layer for slot in slots}):
        mine = [number for number, slot in enumerate(slots) if slot.layer == layer]
        units = torch.tensor([slots[number].unit for number in mine])
        found.append(Delta(layer, model.blocks[layer].dense[0].path, deltas[mine].T.contiguous(), units=units))
    return found
