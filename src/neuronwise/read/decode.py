"""What a neuron means: the tokens that its value vector raises most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.model.norms import freeze, looks_like_norm
from neuronwise.model.writers import Writer
from neuronwise.neurons import Neuron, Neurons, ScoredNeuron, as_neurons
from neuronwise.read.extremes import top_tokens

if TYPE_CHECKING:
    from neuronwise.model import Model


def decode(
    model: Model, neuron: ScoredNeuron | Neuron | str, k: int = 10, *, bottom: bool = False, through_norm: bool = False
) -> list[str]:
    """The ``k`` tokens with the largest U·v ([MMN] §3.3); ``bottom``: the smallest.

    ``through_norm`` multiplies v by the final norm's gain first. Raises ``NeuronError`` for a neuron out of range.
    """
    return decode_all(model, [neuron], k, bottom=bottom, through_norm=through_norm)[0]


def decode_all(
    model: Model,
    neurons: Neurons,
    k: int = 10,
    *,
    bottom: bool = False,
    through_norm: bool = False,
) -> list[list[str]]:
    """``decode`` for many neurons, in one product of their value vectors and the unembedding."""
    parsed = as_neurons(neurons)
    if not parsed:
        return []
    if not 1 <= k <= model.vocabulary_size:
        raise MethodError(f"k is {k}; ask for 1 to {model.vocabulary_size} tokens.")
    distinct = list(dict.fromkeys(parsed))
    vectors = value_vectors(model, distinct)
    if through_norm:
        vectors = vectors * final_gain(model).to(vectors.device, vectors.dtype)
    ids = top_tokens(-vectors if bottom else vectors, model.unembedding, k)
    words = token_strings(model, [token for row in ids for token in row])
    found = {neuron: [words[token] for token in row] for neuron, row in zip(distinct, ids, strict=True)}
    return [found[neuron] for neuron in parsed]


def value_vectors(model: Model, neurons: Sequence[Neuron]) -> Tensor:
    """(n, d) value vectors; each writer is read once. Raises ``NeuronError`` for a neuron out of range."""
    rows: dict[Writer, list[int]] = {}
    for row, neuron in enumerate(neurons):
        rows.setdefault(model.writer(neuron), []).append(row)
    found: dict[int, Tensor] = {}
    for writer, own in rows.items():
        vectors = writer.vectors[:, writer.columns([neurons[row] for row in own])]
        found |= zip(own, vectors.T, strict=True)
    return torch.stack([found[row].to(found[0].device) for row in range(len(neurons))])


def token_strings(model: Model, ids: Sequence[int]) -> dict[int, str]:
    """Tokens as text, leading spaces kept."""
    distinct = list(dict.fromkeys(ids))
    texts = model.tokenizer.batch_decode([[token] for token in distinct], clean_up_tokenization_spaces=False)
    return dict(zip(distinct, texts, strict=True))


def final_gain(model: Model) -> Tensor:
    """(d,) gain of the norm before the output head; raises ``MethodError`` for a model without one."""
    inside = {id(m) for block in model.blocks for m in block.module.modules()}
    found = None
    for name, module in model.module.get_submodule(model.anatomy.decoder_path).named_modules():
        weight = getattr(module, "weight", None)
        sized = isinstance(weight, Tensor) and weight.shape == (model.hidden_size,)
        if sized and id(module) not in inside and looks_like_norm(name, module):
            found = module
    if found is None:
        raise MethodError(f"{model.name} has no norm with a gain before its output head.")
    with torch.no_grad():
        probe = torch.randn(4, model.hidden_size, generator=torch.Generator().manual_seed(0))
        probe = probe.to(found.weight.device, found.weight.dtype)  # type: ignore[arg-type]
        frozen = freeze(found, probe, found(probe))
    if frozen is None or frozen.gain is None:
        raise MethodError(f"The norm before the output head of {model.name} is of an unknown form.")
    return frozen.gain
