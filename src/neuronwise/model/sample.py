"""Texts that a model draws from its own distribution, and what its neurons do while it writes them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from neuronwise.errors import ModelError
from neuronwise.model.activations import Activations
from neuronwise.model.batches import generating
from neuronwise.model.model import Model
from neuronwise.model.record import Recorder

TOKENS = 640  # of one padded batch, at most: all activations of its generated tokens are held


@torch.no_grad()
def drawn(model: Model, prompts: Sequence[str], length: int, seed: int) -> Iterator[Activations]:
    """Activations where the model predicts ``length`` tokens after each prompt, one row for each prompt of a batch.

    Without a chat template; drawn at temperature 1 from the whole vocabulary, the end token left out; in batches where
    a batch gives what single prompts give. Raises ``ModelError`` for a model that does not generate.
    """
    if getattr(model.module, "generation_config", None) is None:
        raise ModelError(f"{model.name} does not generate, so it writes no texts of its own.")
    settings = model.greedy(length)
    settings.update(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, min_new_tokens=length, min_length=None)
    inputs = [model.prepare(None, prompt, chat=False)[0].inputs for prompt in prompts]
    for group, batch in generating(model, inputs, [length] * len(inputs), TOKENS):
        with Recorder(model.blocks, rows=None) as recorder, seeded(model, seed + group[0]):
            model.generate(batch, settings)
        yield from (_last(step, len(group)) for step in recorder.passes)


@contextlib.contextmanager
def seeded(model: Model, seed: int) -> Iterator[None]:
    """What the body draws, on the CPU and on the model's devices, follows from ``seed``; later draws do not."""
    placed = {model.device, *(parameter.device for parameter in model.module.parameters())}
    devices = [device for device in placed if device.type not in ("cpu", "meta")]
    with torch.random.fork_rng(devices, device_type=devices[0].type if devices else None):
        torch.manual_seed(seed)
        yield


def _last(step: Activations, count: int) -> Activations:
    """The last row of each of ``count`` sequences."""

    def chosen(rows: int) -> slice:
        return slice(rows // count - 1, None, rows // count)

    dense = {layer: rows[chosen(len(rows))] for layer, rows in step.dense.items()}
    return Activations(dense, {layer: rows[chosen(len(rows))] for layer, rows in step.routed.items()})
