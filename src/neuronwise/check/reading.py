"""The check of what neurons are read as."""

from __future__ import annotations

import torch

from neuronwise.check.result import Deviation, Measured, NotApplicable
from neuronwise.check.subject import Subject
from neuronwise.read.decode import decode_all
from neuronwise.read.extremes import top_tokens

TOKENS = 5


def decoding(subject: Subject) -> Measured:
    """The tokens of a neuron are those of the largest U · v, and every one has a text."""
    model = subject.model
    vectors = [model.blocks[n.layer].value_vector(n).detach() for n in subject.neurons]
    unembedding = model.unembedding.detach()
    ids = top_tokens(torch.stack([v.to(vectors[0].device) for v in vectors]), unembedding, TOKENS)
    worst = 0.0
    for vector, row in zip(vectors, ids, strict=True):
        read = unembedding.float() @ vector.to(unembedding.device).float()
        lowest, wanted = float(read[row].min()), float(read.topk(TOKENS).values[-1])
        worst = max(worst, (wanted - lowest) / float(read.abs().max().clamp_min(1e-12)))
    if worst > subject.tolerance:
        raise Deviation(f"tokens of a neuron are not those of the largest U · v, by {worst:.1e}", difference=worst)
    if model.tokenizer is None:
        raise NotApplicable("the model has no tokenizer, so tokens have no texts")
    texts = decode_all(model, subject.neurons, TOKENS)
    if any(len(row) != TOKENS for row in texts):
        raise Deviation(f"a neuron is read as {next(row for row in texts if len(row) != TOKENS)}")
    first = " ".join(repr(text)[1:-1] for text in texts[0])
    return Measured(f"{len(texts)} neurons; {subject.neurons[0]}: {first}", {"difference": worst})
