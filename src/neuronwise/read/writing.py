"""Which neurons of a model write a token."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.files import versions
from neuronwise.model import Model
from neuronwise.model.direct_map import DirectMap
from neuronwise.model.modes import computes
from neuronwise.model.prompt import exact_tokens
from neuronwise.model.writers import Writer
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron


@computes
@torch.no_grad()
def neurons_writing(model: Model, token: str | int, top: int = 20, *, turned: bool = False) -> NeuronSet:
    """The ``top`` neurons by cos(U′_t, v′), the number by which ``decode`` ranks tokens; one pass over all writers.

    ``turned``: by −cos, those that lower the token when they fire positively. A string is its token with the blank
    before it where it has one there, else as it stands. Raises ``TargetError`` for a token that the vocabulary lacks.
    """
    if top < 1:
        raise MethodError(f"top is {top}; ask for 1 neuron or more.")
    asked = token if isinstance(token, int) or token[:1].isspace() else f" {token}"
    found = exact_tokens(model.tokenizer, model.vocabulary_size, asked)
    if isinstance(token, str) and found.note and not token[:1].isspace():  # several tokens: perhaps one as it stands
        plain = exact_tokens(model.tokenizer, model.vocabulary_size, token)
        found = found if plain.note else plain
    own = cosines(model, found.token_id)
    best: list[tuple[float, Neuron]] = []
    for writer in model.writers:
        values = -own(writer) if turned else own(writer)
        highest, order = values.sort(descending=True, stable=True)  # topk takes any of equal ones
        best += zip(highest[:top].tolist(), map(writer.neuron, order[:top].tolist()), strict=True)
    best.sort(key=lambda one: (-one[0], one[1]))
    record = {
        "method": "cos(U′, v′)", "model": model.name, "token": found.text, "token_id": found.token_id,
        "turned": turned, "versions": versions(),
    }  # fmt: skip
    return NeuronSet(tuple(ScoredNeuron(neuron, value) for value, neuron in best[:top]), record)


def cosines(model: Model, token_id: int) -> Callable[[Writer], Tensor]:
    """A function of a writer: (width,) cos(U′_t, v′) of each of its neurons for one token.

    As in ``decode``: U′ is the unembedding with its mean row taken off, v′ the value vector as it arrives at the output
    head.
    """
    unembedding, arriving = model.unembedding, DirectMap(model)
    direction = unembedding[token_id].float() - unembedding.mean(0, dtype=torch.float32)

    def of(writer: Writer) -> Tensor:
        vectors = arriving(writer.site, writer.vectors.T)
        return torch.nn.functional.cosine_similarity(vectors, direction.to(vectors.device)[None], dim=1)

    return of
