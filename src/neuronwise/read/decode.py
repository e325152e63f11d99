"""What a neuron does to tokens: which its value vector raises, and which it lowers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronwise.data.texts import openings
from neuronwise.errors import MethodError
from neuronwise.locate.method import require_own
from neuronwise.model import Model, Run
from neuronwise.model.direct_map import DirectMap
from neuronwise.model.later_layers import LaterLayers
from neuronwise.model.lengths import centered
from neuronwise.model.modes import computes
from neuronwise.model.prompt import Inputs
from neuronwise.model.state import state_of
from neuronwise.model.writers import Site, Writer
from neuronwise.neurons import Neuron, Neurons, ScoredNeuron, as_members
from neuronwise.read.extremes import extreme_tokens

FORMS = ("cosine", "logits")
THROUGH = ("direct path", "later layers")
REMEMBERED = 4096  # neurons whose tokens are kept: about a kilobyte each
CASES = 16  # of the built-in texts, those of three words or more: the first tokens of a text are like no others
Arriving = Callable[[Site, Tensor], Tensor]  # (n, d) as written at a site → (n, d′) at the output head
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


@dataclass(frozen=True)
class Effect:
    """The tokens that a neuron ``raises`` and ``lowers``, strongest first."""

    raises: list[str]
    lowers: list[str]


@computes
def decode(
    model: Model,
    neuron: ScoredNeuron | Neuron | str,
    k: int = 10,
    *,
    bottom: bool = False,
    form: str = "cosine",
    through: str = "direct path",
    over: Sequence[str | Run] | None = None,
) -> list[str]:
    """The ``k`` tokens that a neuron raises most; ``bottom``: those that it lowers most. See ``effects``."""
    return decode_all(model, [neuron], k, bottom=bottom, form=form, through=through, over=over)[0]


@computes
def decode_all(
    model: Model,
    neurons: Neurons,
    k: int = 10,
    *,
    bottom: bool = False,
    form: str = "cosine",
    through: str = "direct path",
    over: Sequence[str | Run] | None = None,
) -> list[list[str]]:
    """``decode`` for many neurons, in one product of their value vectors and the unembedding."""
    found = effects(model, neurons, k, form=form, through=through, over=over)
    return [effect.lowers if bottom else effect.raises for effect in found]


@computes
def effects(
    model: Model,
    neurons: Neurons,
    k: int = 10,
    *,
    form: str = "cosine",
    through: str = "direct path",
    over: Sequence[str | Run] | None = None,
) -> list[Effect]:
    """The ``k`` tokens that each neuron raises and lowers most.

    ``form="cosine"``: the largest and the smallest of cos(U′_t, v′), U′ the unembedding with its mean row taken off, v′
    the value vector as it arrives at the output head (ours). A neuron that comes with its activation below its baseline
    (0 without one) writes its value vector turned around, so that its ends change places: what it raises *here*.
    ``form="logits"``: the largest and the smallest of U·v, whatever the activation ([MMN] §3.3).

    ``through="direct path"``: past post-norms, the final norm's gain and centering, and projections. ``through="later
    layers"``: by the mean Jacobian of everything above, at the last position of each text and where each run predicted
    its tokens (``over``; by default at the ends of 16 neutral openings). Raises ``NeuronError`` for a neuron out of
    range, and ``MethodError``.
    """
    listed = as_members(neurons)
    _require(form, through, over)
    if not listed:
        return []
    if not 1 <= k <= model.vocabulary_size:
        raise MethodError(f"k is {k}; ask for 1 to {model.vocabulary_size} tokens.")
    parsed = [one.neuron for one in listed]
    distinct = list(dict.fromkeys(parsed))
    if through == "direct path":
        own = _remembered(model, distinct, k, form)
    else:
        own = _effects(model, distinct, k, form, LaterLayers(model, _cases(model, over)))
    turned = [form == "cosine" and one.sign < 0 for one in listed]
    return [
        Effect(own[neuron].lowers, own[neuron].raises) if negative else own[neuron]
        for neuron, negative in zip(parsed, turned, strict=True)
    ]


def _remembered(model: Model, neurons: Sequence[Neuron], k: int, form: str) -> dict[Neuron, Effect]:
    """The effects of neurons along the direct path: those met last are kept as long as the weights are as they are."""
    known: dict[Neuron, Effect] = model.latest(("effects", k, form), state_of(model), dict)
    new = [neuron for neuron in neurons if neuron not in known]
    if new:
        known |= _effects(model, new, k, form, DirectMap(model) if form == "cosine" else None)
    found = {neuron: known[neuron] for neuron in neurons}
    for neuron in list(known)[: max(0, len(known) - REMEMBERED)]:
        del known[neuron]
    return found


def _effects(
    model: Model, neurons: Sequence[Neuron], k: int, form: str, arriving: Arriving | None
) -> dict[Neuron, Effect]:
    apart = centered(model) if form == "cosine" else None
    ends = extreme_tokens(value_vectors(model, neurons, arriving), model.unembedding, k, centered=apart)
    words = token_strings(model, [token for end in ends for ids in end for token in ids])
    tokens = ([[words[token] for token in ids] for ids in end] for end in ends)
    return dict(zip(neurons, map(Effect, *tokens), strict=True))


def _require(form: str, through: str, over: Sequence[str | Run] | None) -> None:
    if form not in FORMS:
        raise MethodError(f"form={form!r} is unknown; choose {' or '.join(FORMS)}.")
    if through not in THROUGH:
        raise MethodError(f"through={through!r} is unknown; choose {' or '.join(map(repr, THROUGH))}.")
    if through == "later layers" and form == "logits":
        raise MethodError("form='logits' reads the value vector as it is; leave out through='later layers'.")
    if over is not None and (through != "later layers" or not over):
        raise MethodError("over= lists the texts or runs, one or more, for through='later layers'.")


def _cases(model: Model, over: Sequence[str | Run] | None) -> list[Inputs]:
    """Sequences whose last position predicts: texts, and runs up to each of their tokens."""
    if over is None:
        over = [text for text in openings() if len(text.split()) > 2][:CASES]
    cases: list[Inputs] = []
    for one in over:
        if isinstance(one, str):
            cases.append(model.extend(model.prepare(None, one, chat=False)[0].inputs, []))
        else:
            require_own(model, [one])
            cases += [one.forced_inputs(upto) for upto in range(max(len(one.output_ids), 1))]
    return cases


def merged(tokens: Sequence[str]) -> list[str]:
    """Tokens as people read them: of those that differ in case and blanks alone the first, and one piece of a
    character."""
    groups: dict[str, str] = {}
    for token in tokens:
        piece = "\ufffd" in token or _BYTE.fullmatch(token)
        groups.setdefault("\ufffd" if piece else token.strip().casefold(), token)
    return list(groups.values())


def value_vectors(model: Model, neurons: Sequence[Neuron], arriving: Arriving | None = None) -> Tensor:
    """(n, d) value vectors, or what of them arrives at the output head by a map; each writer is read once.

    Raises ``NeuronError`` for a neuron out of range.
    """
    rows: dict[Writer, list[int]] = {}
    for row, neuron in enumerate(neurons):
        rows.setdefault(model.writer(neuron), []).append(row)
    found: dict[int, Tensor] = {}
    for writer, own in rows.items():
        vectors = writer.vectors[:, writer.columns([neurons[row] for row in own])].T
        found |= zip(own, vectors if arriving is None else arriving(writer.site, vectors), strict=True)
    return torch.stack([found[row].to(found[0].device) for row in range(len(neurons))])


def token_strings(model: Model, ids: Sequence[int]) -> dict[int, str]:
    """Tokens as text, leading spaces kept."""
    known: dict[int, str] = model.memo("token strings", dict)
    distinct = dict.fromkeys(ids)
    new = [token for token in distinct if token not in known]
    if new:
        texts = model.tokenizer.batch_decode([[token] for token in new], clean_up_tokenization_spaces=False)
        known |= zip(new, texts, strict=True)
    return {token: known[token] for token in distinct}
