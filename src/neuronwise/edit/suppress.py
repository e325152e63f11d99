"""Suppression as an edit: value vectors set to zero, or freed of one direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from neuronwise.answers.naming import names
from neuronwise.edit.delta import deltas_of, value_vectors
from neuronwise.edit.distractor import distracted
from neuronwise.edit.edit import Edit
from neuronwise.edit.ledger import column_norms
from neuronwise.edit.presets import OURS, Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.edit.verdict import Aim, judged
from neuronwise.edit.words import Seen, runs_of
from neuronwise.errors import MethodError
from neuronwise.files import versions
from neuronwise.locate import locate
from neuronwise.locate.contribution import SHARP
from neuronwise.model.lock import alone
from neuronwise.model.model import Model
from neuronwise.neurons import Neurons, NeuronSet
from neuronwise.registry.arguments import checked


@dataclass(frozen=True)
class SuppressSettings:
    """How ``suppress`` finds neurons, and what it takes from them.

    ``top`` neurons by ``method`` with its ``options``, over several runs by ``agree`` (see ``locate``).
    ``along`` None sets their value vectors to zero; "word" takes out their part along the word's unembedding U_t
    alone; "distractor" changes them as little as makes another token likelier by ``margin`` logits wherever the word
    was said, in up to ``rounds`` texts ([OVE], see ``distracted``): ``distractor``, a word of yours, or what the model
    would say there instead; ``spare`` is that of ``SwapSettings``. ``generate``: the record says whether the word left
    the texts.
    """

    top: int = 10
    method: str = "contribution"
    options: Mapping[str, Any] = field(default_factory=lambda: dict(SHARP))
    agree: str = "mean"
    along: str | None = None
    distractor: str | None = None
    margin: float = 1.0
    rounds: int = 4
    spare: float = 0.05
    generate: bool = True

    def __post_init__(self) -> None:
        if self.top < 1:
            raise MethodError("top must be 1 or more.")
        if self.along not in (None, "word", "distractor"):
            raise MethodError(f"along={self.along!r} is unknown; choose 'word', 'distractor' or None.")
        if self.distractor is not None and self.along != "distractor":
            raise MethodError("A distractor belongs to along='distractor'.")
        if self.margin <= 0 or self.rounds < 1 or self.spare <= 0:
            raise MethodError("margin and spare must be above 0, rounds 1 or more.")


PRESETS = {"default": Preset(SuppressSettings(), OURS)}


@alone
def suppress(
    model: Model,
    seen: Seen,
    word: str,
    settings: SuppressSettings | None = None,
    *,
    neurons: Neurons | None = None,
    **changes: object,
) -> Edit:
    """An edit that takes the neurons behind a word away; the model itself is left as it is.

    ``seen`` is a run or a photo whose text says the word, or a list of them: neurons that several photos share are
    the word's rather than the photo's. ``neurons`` takes a set of your own instead. (``nw.suppress`` is the same as
    a temporary intervention.) Raises ``TargetError`` that lists the nouns for a word that a text does not name.
    """
    settings = resolved(model, settings, PRESETS, changes)
    runs = runs_of(model, seen)
    targets = [run.target(word) for run in runs]
    chosen: NeuronSet = (
        NeuronSet.of(neurons)
        if neurons is not None
        else locate(
            model, runs, word, method=settings.method, top=settings.top, agree=settings.agree, **settings.options
        )
    )
    outcome: dict[str, object] = {"texts_before": [run.text for run in runs]}
    if settings.along == "distractor":
        deltas, found = distracted(model, runs, word, chosen.neurons, settings)
        edit = Edit(deltas)
        outcome |= found
    else:
        direction = model.unembedding[targets[0].token_id].detach() if settings.along == "word" else None
        edit = _silencing(model, chosen, direction)
    texts: list[str] = []
    if settings.generate:
        with edit.applied(model):
            texts = [run.again() for run in runs]
        outcome |= {"texts": texts, "success": not any(names(text, word) for text in texts)}
    outcome["neurons"] = [str(neuron) for neuron in chosen.neurons]
    note = next((target.note for target in targets if target.note), None)
    if note:
        outcome["note"] = note
    request = {"word": word, "prompts": [run.prompt for run in runs], "photos": len(runs)}
    aims = [
        Aim(run.prompt, word, partial(run.forced_inputs, target.position), [target.token_id],
            lambda rank, _, text=text: rank > 1 if text is None else not names(text, word), free=False)
        for run, target, text in zip(runs, targets, texts or [None] * len(runs), strict=True)
    ]  # fmt: skip
    return edited("suppress", model, settings, request, edit.deltas, aims, **outcome)


@alone
@checked
def suppress_neurons(model: Model, neurons: Neurons, *, direction: Tensor | None = None) -> Edit:
    """An edit that sets v ← 0 for every neuron, or takes out of v its part along ``direction`` (d,) alone ([OVE]).

    Its verdict says how the model writes what has nothing to do with it; where there is no tokenizer it has none.
    """
    if direction is not None and direction.shape != (model.hidden_size,):
        raise MethodError(f"direction has the shape {tuple(direction.shape)}, not ({model.hidden_size},).")
    edit = _silencing(model, NeuronSet.of(neurons), direction)
    return edit if model.tokenizer is None else judged(model, edit, ())


def _silencing(model: Model, neurons: NeuronSet, direction: Tensor | None) -> Edit:
    vectors = value_vectors(model, neurons.neurons)
    if direction is not None:
        unit = (direction.float() / direction.float().norm()).cpu()
        vectors = torch.outer(vectors @ unit, unit)
    deltas = deltas_of(model, dict(zip(neurons.neurons, -vectors, strict=True)))
    record = {"method": "suppress", "model": model.name, "neurons": [str(n) for n in neurons.neurons]}
    return Edit(deltas, record, column_norms(model, deltas))


@alone
@checked
def scale_neurons(model: Model, neurons: Neurons, factor: float) -> Edit:
    """An edit that multiplies the value vector of every neuron, v ← c·v: what ``nw.intervene.scale`` does, for good."""
    chosen = NeuronSet.of(neurons).neurons
    deltas = deltas_of(model, dict(zip(chosen, (factor - 1) * value_vectors(model, chosen), strict=True)))
    record = {
        "method": "scale", "factor": factor, "model": model.name, "neurons": [str(neuron) for neuron in chosen],
        "versions": versions(),
    }  # fmt: skip
    return Edit(deltas, record, column_norms(model, deltas))
