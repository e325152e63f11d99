"""Swap: the word that a caption says for a thing is replaced by another ([MMN] §editing)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from neuronwise.answers.naming import swapped
from neuronwise.edit.delta import Delta, deltas_of, value_vectors
from neuronwise.edit.edit import Edit
from neuronwise.edit.presets import OURS, Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.edit.verdict import Aim
from neuronwise.edit.words import Seen, TokenPosition, any_runs_of, positions_of, runs_of
from neuronwise.errors import MethodError, NonFiniteError, TargetError
from neuronwise.locate import locate
from neuronwise.locate.contribution import SHARP
from neuronwise.model.activations import Activations
from neuronwise.model.lock import alone
from neuronwise.model.model import Model
from neuronwise.model.run import Run
from neuronwise.model.stream import written_gradients
from neuronwise.neurons import Neuron, Neurons, NeuronSet
from neuronwise.registry.arguments import taken

READINGS = ("unembedding", "norm", "model")


@dataclass(frozen=True)
class SwapSettings:
    """How ``swap`` finds neurons and how far it moves them; nothing of it is published: our choices, all of them.

    ``top`` neurons by ``method`` with its ``options``, over several runs by ``agree`` (see ``locate``).
    ``read`` is what the source's and target's difference is read by at a layer: "unembedding", U_src − U_tgt as
    published; "norm", the same through the final norm and all else on the direct path; "model", the gradient of the
    logits' difference through all later layers. ``beta`` weighs ‖Δ‖₂. The first step moves Δ by ``step`` of the norm
    of the chosen value vectors (less what ``beta`` holds back), each later one by ``growth`` times the one before;
    ‖Δ‖₂ stays within ``cap`` of that norm; at most ``steps``.
    ``generate``: success is checked by free generation too, not at the predicting position alone. ``spare`` (ours)
    turns each step so that the neurons together write little where the texts, and the runs given as ``beside``, do not
    predict the word: Δ ← (I + C / (spare · mean diag C))⁻¹ Δ over neurons, C the second moment of their activations
    there. The smaller, the narrower; None leaves it out, as published. ``fewer``: so many of the best neurons are tried
    after a success, then three times as many each time (0: none); the record's "enough" is the least that does.
    """

    top: int = 300
    method: str = "contribution"
    options: Mapping[str, Any] = field(default_factory=lambda: dict(SHARP))
    agree: str = "mean"
    read: str = "unembedding"
    beta: float = 0.1
    step: float = 0.005
    growth: float = 1.5
    cap: float = 0.5
    steps: int = 50
    generate: bool = True
    spare: float | None = 0.05
    fewer: int = 10

    def __post_init__(self) -> None:
        if self.top < 1 or self.steps < 1:
            raise MethodError("top and steps must be 1 or more.")
        if not (self.step > 0 and self.growth >= 1 and self.cap > 0 and self.beta >= 0):
            raise MethodError("step and cap must be above 0, growth 1 or more, beta 0 or more.")
        if self.spare is not None and self.spare <= 0:
            raise MethodError("spare must be above 0, or None for none.")
        if self.fewer < 0:
            raise MethodError("fewer counts neurons: 1 or more, or 0 for none.")
        if self.read not in READINGS:
            raise MethodError(f"read={self.read!r} is unknown; choose one of {', '.join(READINGS)}.")


PRESETS = {"default": Preset(SwapSettings(), OURS)}


@alone
def swap(
    model: Model,
    seen: Seen,
    source: str,
    target: str,
    settings: SwapSettings | None = None,
    *,
    neurons: Neurons | None = None,
    beside: Seen = (),
    **changes: object,
) -> Edit:
    """An edit after which ``model`` says ``target`` where it said ``source``; the model itself is left as it is.

    ``seen`` is a run, a photo, or a list of them: several photos of a concept make an edit of the concept rather than
    of one photo. Minimized by gradient descent over the chosen neurons, o_i their activation where the source was
    predicted, averaged over all positions that say it: Σ_i o_i·⟨v_i + Δ_i, U_src − U_tgt⟩ + β‖Δ‖₂. This is linear along
    its own gradient and has no minimum, so it ends on success (at every position the target's logit is above the
    source's, and the texts generated anew say the target and no longer the source) or at the cap. Words of several
    tokens are swapped at their first; the generation check takes the whole words. A source in the plural
    is swapped for the target's plural.

    ``neurons`` takes a set of your own instead of the located ones; ``beside`` names runs or photos that ``spare``
    must leave alone. The record holds texts before and after, success, steps and ‖Δ‖₂ as a share of the value vectors'
    norm. A target that the text already names gives an edit that changes nothing, with a note. Raises ``TargetError``
    that lists the nouns for a source that a text does not name.
    """
    settings = resolved(model, settings, PRESETS, changes)
    source, target = taken("source", source, str, "swap"), taken("target", target, str, "swap")
    request = Request(tuple(runs_of(model, seen)), source, target)
    present = request.present()
    if present:
        return edited("swap", model, settings, request.record, (), texts_before=request.texts, note=present)
    positions = [one for run in request.runs for one in positions_of(model, run, source, target)]
    chosen: NeuronSet = NeuronSet.of(neurons) if neurons is not None else locate(
        model, request.runs, source, method=settings.method, top=settings.top, agree=settings.agree,
        **settings.options,
    )  # fmt: skip
    spared = (*request.runs, *any_runs_of(model, beside))
    deltas, outcome = _moved(model, request, positions, chosen, spared, settings)
    if outcome["success"] and settings.fewer:
        outcome["enough"] = _enough(model, request, positions, chosen, spared, settings)
    notes = "; ".join(dict.fromkeys(one.note for one in positions if one.note))
    outcome |= {"note": notes} if notes else {}
    aims = _aims(request, positions, outcome)
    return edited("swap", model, settings, request.record, deltas, aims, texts_before=request.texts, **outcome)


def _aims(request: Request, positions: Sequence[TokenPosition], outcome: Mapping[str, Any]) -> list[Aim]:
    """At each position the target ranks above the source, and the photo's new caption, if any, is met."""
    said = dict(zip(map(id, request.runs), outcome["generated"], strict=False))  # none: not generated
    held = [above and said.get(id(one.run), True) for one, above in zip(positions, outcome["ranked"], strict=True)]
    return [
        Aim(
            one.run.prompt, one.target, partial(one.run.forced_inputs, one.position), [one.target_id],
            lambda rank, text, met=met: met, free=False,
        )
        for one, met in zip(positions, held, strict=True)
    ]  # fmt: skip


def _moved(
    model: Model,
    request: Request,
    positions: Sequence[TokenPosition],
    neurons: NeuronSet,
    spared: Sequence[Run],
    settings: SwapSettings,
) -> tuple[tuple[Delta, ...], dict[str, object]]:
    """The deltas of these neurons, and how it went."""
    chosen = [neuron for members in model.by_writer(neurons.neurons).values() for neuron in members]
    terms = Terms(
        fired=torch.stack([activations_at(model, one.run, one.position, chosen) for one in positions]),
        vectors=value_vectors(model, chosen),
        directions=torch.stack([_directions(model, one, chosen, settings.read) for one in positions]),
        narrow=None if settings.spare is None else narrowing(model, spared, positions, chosen, settings.spare),
    )
    return _descend(model, request, positions, chosen, terms, settings)


def _enough(
    model: Model,
    request: Request,
    positions: Sequence[TokenPosition],
    neurons: NeuronSet,
    spared: Sequence[Run],
    settings: SwapSettings,
) -> int:
    """The least number of best neurons tried by which the swap succeeds too, else all of them."""
    for count in itertools.takewhile(lambda n: n < len(neurons), (settings.fewer * 3**k for k in itertools.count())):
        try:
            if _moved(model, request, positions, neurons[:count], spared, settings)[1]["success"]:
                return count
        except MethodError:  # beta holds so few where they are
            continue
    return len(neurons)


@dataclass(frozen=True)
class Request:
    """The runs in which the target should replace the source."""

    runs: tuple[Run, ...]
    source: str
    target: str

    def __post_init__(self) -> None:
        if not self.target.strip():
            raise TargetError("The target is empty; name a word such as 'dog'.")

    @property
    def texts(self) -> list[str]:
        """What the unedited model said."""
        return [run.text for run in self.runs]

    @property
    def record(self) -> dict[str, object]:
        """What an edit's record says of it."""
        prompts = [run.prompt for run in self.runs]
        return {"source": self.source, "target": self.target, "prompts": prompts, "photos": len(self.runs)}

    def met(self, text: str) -> bool:
        """Whether a text names the target and no longer the source."""
        return swapped(text, self.source, self.target)

    def present(self) -> str | None:
        """A note when there is nothing to swap, because every text says the target already."""
        if self.source.strip().lower() == self.target.strip().lower():
            for run in self.runs:
                run.concept(self.source)
            return f"The source and the target are the same word, {self.source.strip()!r}; nothing is changed."
        if all(map(self.met, self.texts)):
            source, target = self.source.strip(), self.target.strip()
            return f"The text says {target!r} already, and not {source!r}; nothing is changed."
        return None


@dataclass(frozen=True)
class Terms:
    """The numbers of the loss: Σ_i o_i·⟨v_i + Δ_i, u_i⟩ + β‖Δ‖₂, the sum averaged over positions.

    ``fired`` (positions, k) holds o, ``vectors`` (k, d) v, ``directions`` (positions, k, d) the u, which is
    U_src − U_tgt for every neuron in the published form. ``narrow`` (k, k) turns each step, None for none.
    """

    fired: Tensor
    vectors: Tensor
    directions: Tensor
    narrow: Tensor | None = None

    def loss(self, delta: Tensor, beta: float) -> Tensor:
        """The loss of Δ (k, d)."""
        pushed = ((self.vectors + delta) * self.directions).sum(-1)
        return (self.fired * pushed).sum(-1).mean() + beta * delta.norm()

    def narrowed(self, gradient: Tensor) -> Tensor:
        """A step's direction (k, d) as it is taken."""
        return gradient if self.narrow is None else self.narrow @ gradient

    @property
    def slope(self) -> Tensor:
        """(k, d): the gradient of the linear part, the same everywhere."""
        return self.narrowed((self.fired[:, :, None] * self.directions).mean(0))


def activations_at(model: Model, run: Run, position: int, neurons: Sequence[Neuron]) -> Tensor:
    """(k,) float32: what multiplies each value vector at the position that predicts token ``position``.

    For a routed expert's neuron that is its activation times the router's weight, 0 where the token went elsewhere.
    """
    return _fired(model, run.activations(position), 1, neurons)[0]


def activations_in(model: Model, run: Run, neurons: Sequence[Neuron]) -> Tensor:
    """(rows, k) float32: what multiplies each value vector at every row of the run, see ``activations_at``."""
    if any(neuron.expert is not None for neuron in neurons):
        return _fired(model, run.rows(list(range(run.length))), run.length, neurons)
    units: dict[int, list[int]] = {}
    for neuron in neurons:
        units.setdefault(neuron.layer, []).append(neuron.unit)
    acts = model.record(run.forced_inputs(), units={layer: torch.tensor(own) for layer, own in units.items()})
    order = {layer: iter(range(len(own))) for layer, own in units.items()}
    return torch.stack([acts.dense[n.layer][:, next(order[n.layer])].float() for n in neurons], dim=1)


def _fired(model: Model, activations: Activations, rows: int, neurons: Sequence[Neuron]) -> Tensor:
    found = torch.zeros(rows, len(neurons))
    order = {neuron: column for column, neuron in enumerate(neurons)}
    for writer, members in model.by_writer(neurons).items():
        fired, columns = writer.fired_rows(activations), writer.columns(members)
        for row, values in zip(fired.rows, fired.values, strict=True):
            found[row, [order[neuron] for neuron in members]] = values[columns]
    return found


def narrowing(
    model: Model, runs: Sequence[Run], positions: Sequence[TokenPosition], chosen: Sequence[Neuron], ridge: float
) -> Tensor:
    """(k, k): (I + C / (ridge · mean diag C))⁻¹, C the second moment of the neurons' activations beside the positions.

    Over all rows of the runs but the first, whose activations are of their own kind, and those that predict the word.
    """
    rows = []
    for run in runs:
        taken = {one.row for one in positions if one.run is run}
        rest = [row for row in range(1, run.length) if row not in taken]
        if rest:
            rows.append(activations_in(model, run, chosen)[rest])
    beside = torch.cat(rows).double() if rows else torch.zeros(1, len(chosen), dtype=torch.float64)
    moment = beside.T @ beside / len(beside)
    scale = float(moment.diagonal().mean())
    if scale == 0:
        return torch.eye(len(chosen))
    return torch.linalg.inv(torch.eye(len(chosen), dtype=torch.float64) + moment / (ridge * scale)).float()


def _directions(model: Model, at: TokenPosition, chosen: Sequence[Neuron], read: str) -> Tensor:
    """(k, d): the direction at each neuron's layer that raises the source's logit over the target's."""
    if read == "unembedding":
        source, target = model.unembedding[[at.source_id, at.target_id]].detach().float().cpu()
        return (source - target).expand(len(chosen), -1)
    readout = (at.run.row(at.position), {at.source_id: 1.0, at.target_id: -1.0})
    gradients = written_gradients(model, at.run.forced_inputs(), [readout], direct=read == "norm").gradients[0]
    found = torch.zeros(len(chosen), model.hidden_size)
    for index, neuron in enumerate(chosen):
        gradient = gradients.get(model.writer(neuron).site)
        if gradient is not None:
            found[index] = gradient if gradient.dim() == 1 else gradient[at.run.row(at.position)]
    return found


def _descend(
    model: Model,
    request: Request,
    positions: Sequence[TokenPosition],
    chosen: Sequence[Neuron],
    terms: Terms,
    settings: SwapSettings,
) -> tuple[tuple[Delta, ...], dict[str, object]]:
    """Gradient descent until success or the cap: the deltas, and how it went."""
    size, slope = float(terms.vectors.norm()), terms.slope
    if not torch.isfinite(slope).all():
        raise NonFiniteError("The activations or the unembedding are not finite; load the model with float32.")
    if float(slope.norm()) <= settings.beta:
        raise MethodError(
            f"beta={settings.beta} holds these neurons where they are: their slope is {float(slope.norm()):.3g}."
        )
    rate = settings.step * size / float(slope.norm())
    delta = torch.zeros_like(terms.vectors, requires_grad=True)
    deltas: tuple[Delta, ...] = ()
    outcome: dict[str, object] = {}
    for step in range(1, settings.steps + 1):
        (gradient,) = torch.autograd.grad(terms.loss(delta, settings.beta), delta)
        with torch.no_grad():
            delta -= rate * settings.growth ** (step - 1) * terms.narrowed(gradient)
            length = float(delta.norm())
            capped = length >= settings.cap * size * (1 - 1e-6)
            if capped:
                delta *= settings.cap * size / length
        now = delta.detach().clone()
        deltas = deltas_of(model, dict(zip(chosen, now, strict=True)))
        with Edit(deltas).applied(model):
            above = ranked(model, positions)
            generate = settings.generate and (all(above) or capped)
            texts = [run.again() for run in request.runs] if generate else None
        said = [request.met(text) for text in texts or ()]
        success = all(above) and all(said)
        outcome = {
            "success": success, "ranked": above, "generated": said, "texts": texts, "steps": step, "capped": capped,
            "norm": float(now.norm()) / size, "loss": float(terms.loss(now, settings.beta)),
        }  # fmt: skip
        if success or capped:
            break
    return deltas, outcome


def ranked(model: Model, positions: Sequence[TokenPosition]) -> list[bool]:
    """At each position, with the text before it as it was: is the target's logit above the source's?"""
    found = []
    with torch.no_grad():
        for at in positions:
            logits = model.forward(at.run.forced_inputs(at.position), rows=[-1])[0, -1].float()
            found.append(bool(logits[at.target_id] > logits[at.source_id]))
    return found
