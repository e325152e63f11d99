"""Which neurons of a model write a token."""

from __future__ import annotations

import torch

from neuronwise.errors import MethodError
from neuronwise.files import versions
from neuronwise.model import Model
from neuronwise.model.direct_map import DirectMap
from neuronwise.model.modes import computes
from neuronwise.model.prompt import exact_tokens
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
    unembedding = model.unembedding
    direction = unembedding[found.token_id].float() - unembedding.mean(0, dtype=torch.float32)
    direction = torch.nn.functional.normalize(direction, dim=0) * (-1 if turned else 1)
    arriving = DirectMap(model)
    best: list[tuple[float, Neuron]] = []
    for writer in model.writers:
        vectors = arriving(writer.site, writer.vectors.T).float()  # (width, d′)
        values = torch.nn.functional.normalize(vectors, dim=1) @ direction.to(vectors.device)
        highest, order = values.sort(descending=True, stable=True)  # topk takes any of equal ones
        best += zip(highest[:top].tolist(), map(writer.neuron, order[:top].tolist()), strict=True)
    best.sort(key=lambda one: (-one[0], one[1]))
    record = {
        "method": "cos(U′, v′)", "model": model.name, "token": found.text, "token_id": found.token_id,
        "turned": turned, "versions": versions(),
    }  # fmt: skip
    return NeuronSet(tuple(ScoredNeuron(neuron, value) for value, neuron in best[:top]), record)
