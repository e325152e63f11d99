"""The table of forms in which other tools name neurons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuronwise.errors import NeuronError
from neuronwise.registry import Registry

if TYPE_CHECKING:
    from neuronwise.model.exchange.form import Form

FORMS: Registry[Form] = Registry(
    "form of neurons",
    {
        "transformer_lens": "neuronwise.model.exchange.transformer_lens:FORM",
        "nnsight": "neuronwise.model.exchange.nnsight:NNSIGHT",
        "nnterp": "neuronwise.model.exchange.nnsight:NNTERP",
        "neuronpedia": "neuronwise.model.exchange.neuronpedia:FORM",
    },
    plural="forms of neurons",
    kind="neuronwise.model.exchange.form:Form",
    group="neuronwise.neurons",
    error=NeuronError,
)
"""The first form that recognizes a row is taken."""
