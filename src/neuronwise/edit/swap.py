"""Swap: the word that a caption says for a thing is replaced by another ([MMN] §editing)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from neuronwise.answers.naming import names
from neuronwise.edit.delta import Delta, by_writer, columns_of, place
from neuronwise.edit.edit import Edit
from neuronwise.edit.presets import OURS, Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.edit.words import Place, Seen, again, places_of, runs_of
from neuronwise.errors import MethodError, NonFiniteError, TargetError
from neuronwise.locate import locate
from neuronwise.locate.contribution import SHARP
from neuronwise.model.model import Model
from neuronwise.model.record import Activations
from neuronwise.model.run import Run
from neuronwise.model.stream import unit_path, written_gradients
from neuronwise.neurons import Neuron, NeuronSet

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
    there. The smaller, the narrower; None leaves it out, as published.
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

    def __post_init__(self) -> None:
        if self.top < 1 or self.steps < 1:
            raise MethodError("top and steps are 1 or more.")
        if not (self.step > 0 and self.growth >= 1 and self.cap > 0 and self.beta >= 0):
            raise MethodError("step and cap are above 0, growth is 1 or more, beta is 0 or more.")
        if self.spare is not None and self.spare <= 0:
            raise MethodError("spare is above 0, or None for none.")
        if self.read not in READINGS:
            raise MethodError(f"read={self.read!r} is unknown; choose one of {', '.join(READINGS)}.")


PRESETS = {"default": Preset(SwapSettings(), OURS)}


def swap(
    model: Model,
    seen: Seen,
    source: str,
    target: str,
    settings: SwapSettings | None = None,
    *,
    neurons: NeuronSet | None = None,
    beside: Seen = (),
    **changes: object,
) -> Edit:
    """An edit after which ``model`` says ``target`` where it said ``source``; the model itself is left as it is.

    ``seen`` is a run, a photo, or a list of them: several photos of a concept make an edit of the concept rather than
    of one photo. Minimized by gradient descent over the chosen neurons, o_i their activation where the source was
    predicted, averaged over all places that say it: Σ_i o_i·⟨v_i + Δ_i, U_src − U_tgt⟩ + β‖Δ‖₂. This is linear along
    its own gradient and has no minimum, so it ends on success (at every place the target's logit is above the
    source's, and the texts generated anew say the target and no longer the source) or at the cap. Words of several
    tokens are swapped at their first; the generation check takes the whole words. A source that stands in the plural
    is swapped for the target's plural.

    ``neurons`` takes a set of your own instead of the located ones; ``beside`` names runs or photos that ``spare``
    shall leave alone. The record holds texts before and after, success,
    steps and ‖Δ‖₂ as a share of the value vectors' norm. A target that is said already gives an edit that changes
    nothing, with a note. Raises ``TargetError`` that lists the nouns for a source that a text does not name.
    """
    settings = resolved(model, settings, PRESETS, changes)
    runs = runs_of(model, seen)
    if not target.strip():
        raise TargetError("The target is empty; name a word such as 'dog'.")
    present = _present(runs, source, target)
    request = {"source": source, "target": target, "prompts": [run.prompt for run in runs], "photos": len(runs)}
    before = [run.text for run in runs]
    if present:
        return edited("swap", model, settings, request, (), texts_before=before, note=present)
    places = [place for run in runs for place in places_of(model, run, source, target)]
    if neurons is None:
        neurons = locate(
            model, runs, source, method=settings.method, top=settings.top, agree=settings.agree, **settings.options
        )
    chosen = [n for members in by_writer(model, neurons.neurons).values() for n in members]
    fired = torch.stack([activations_at(place.run, place.position, chosen) for place in places])
    directions = torch.stack([_directions(model, place, chosen, settings.read) for place in places])
    vectors = torch.stack([model.blocks[n.layer].value_vector(n).float().cpu() for n in chosen])
    spared = [*runs, *(runs_of(model, beside) if isinstance(beside, Run) or len(beside) else [])]  # type: ignore[arg-type]
    kept = (
        torch.eye(len(chosen)) if settings.spare is None else narrowing(model, spared, places, chosen, settings.spare)
    )
    terms = (fired, vectors, directions, kept)
    delta, outcome = _descend(model, runs, places, chosen, terms, source, target, settings)
    notes = "; ".join(dict.fromkeys(place.note for place in places if place.note))
    outcome |= {"note": notes} if notes else {}
    return edited("swap", model, settings, request, _deltas(model, chosen, delta), texts_before=before, **outcome)


def swap_loss(fired: Tensor, vectors: Tensor, delta: Tensor, directions: Tensor, beta: float) -> Tensor:
    """Σ_i o_i·⟨v_i + Δ_i, u_i⟩ + β‖Δ‖₂, the sum averaged over places.

    ``fired`` (places, k) holds o, ``vectors`` and ``delta`` (k, d), ``directions`` (places, k, d) the u, which is
    U_src − U_tgt for every neuron in the published form.
    """
    pushed = ((vectors + delta) * directions).sum(-1)
    return (fired * pushed).sum(-1).mean() + beta * delta.norm()


def activations_at(run: Run, position: int, neurons: Sequence[Neuron]) -> Tensor:
    """(k,) float32: what multiplies each value vector at the position that predicts token ``position``.

    For a routed expert's neuron that is its activation times the router's weight, 0 where the token went elsewhere.
    """
    return _of_row(run.activations(position), 0, neurons)


def narrowing(
    model: Model, runs: Sequence[Run], places: Sequence[Place], chosen: Sequence[Neuron], ridge: float
) -> Tensor:
    """(k, k): (I + C / (ridge · mean diag C))⁻¹, C the second moment of the neurons' activations beside the places.

    Over all rows of the runs but the first, whose activations are of their own kind, and those that predict the word.
    """
    rows = []
    for run in runs:
        taken = {run.length + run.row(at.position) for at in places if at.run is run}
        rest = [row for row in range(1, run.length) if row not in taken]
        if rest:
            rows.append(activations_in(model, run, chosen)[rest])
    beside = torch.cat(rows).double() if rows else torch.zeros(1, len(chosen), dtype=torch.float64)
    moment = beside.T @ beside / len(beside)
    scale = float(moment.diagonal().mean())
    if scale == 0:
        return torch.eye(len(chosen))
    return torch.linalg.inv(torch.eye(len(chosen), dtype=torch.float64) + moment / (ridge * scale)).float()


def activations_in(model: Model, run: Run, neurons: Sequence[Neuron]) -> Tensor:
    """(rows, k) float32: what multiplies each value vector at every row of the run, see ``activations_at``."""
    units: dict[int, list[int]] = {}
    for neuron in neurons:
        units.setdefault(neuron.layer, []).append(neuron.unit)
    if any(neuron.expert is not None for neuron in neurons):
        acts = run.rows(list(range(run.length)))
        return torch.stack([_of_row(acts, row, neurons) for row in range(run.length)])
    acts = model.record(run.forced_inputs(), units={layer: torch.tensor(own) for layer, own in units.items()})
    order = {layer: iter(range(len(own))) for layer, own in units.items()}
    return torch.stack([acts.dense[n.layer][:, next(order[n.layer])].float() for n in neurons], dim=1)


def _of_row(acts: Activations, row: int, neurons: Sequence[Neuron]) -> Tensor:
    found = torch.zeros(len(neurons))
    for index, neuron in enumerate(neurons):
        if neuron.expert is None:
            found[index] = acts.dense[neuron.layer][row, neuron.unit].float()
        elif neuron.expert in acts.routed[neuron.layer][row]:
            expert = acts.routed[neuron.layer][row][neuron.expert]
            found[index] = float(expert.weight) * float(expert.activation[neuron.unit])
    return found


def _present(runs: Sequence[Run], source: str, target: str) -> str | None:
    """What to say when there is nothing to swap, because every text says the target already."""
    if source.strip().lower() == target.strip().lower():
        for run in runs:
            run.concept(source)
        return f"The source and the target are the same word, {source.strip()!r}; nothing is changed."
    if all(names(run.text, target) and not names(run.text, source) for run in runs):
        return f"The text says {target.strip()!r} already, and not {source.strip()!r}; nothing is changed."
    return None


def _directions(model: Model, at: Place, chosen: Sequence[Neuron], read: str) -> Tensor:
    """(k, d): the direction at each neuron's layer that raises the source's logit over the target's."""
    if read == "unembedding":
        source, target = model.unembedding[[at.source_id, at.target_id]].detach().float().cpu()
        return (source - target).expand(len(chosen), -1)
    row = at.run.row(at.position)
    readout = (row, {at.source_id: 1.0, at.target_id: -1.0})
    gradients = written_gradients(model, at.run.forced_inputs(), [readout], direct=read == "norm").gradients[0]
    found = torch.zeros(len(chosen), model.hidden_size)
    for index, neuron in enumerate(chosen):
        block = model.blocks[neuron.layer]
        path = place(model, neuron)[1]
        if neuron.expert is not None:
            path = unit_path(block, block.routed.index(block.expert(neuron.expert)[0]))
        gradient = gradients.get((neuron.layer, path))
        if gradient is not None:
            found[index] = gradient if gradient.dim() == 1 else gradient[row]
    return found


def _descend(
    model: Model,
    runs: Sequence[Run],
    places: Sequence[Place],
    chosen: Sequence[Neuron],
    terms: tuple[Tensor, Tensor, Tensor, Tensor],
    source: str,
    target: str,
    settings: SwapSettings,
) -> tuple[Tensor, dict[str, Any]]:
    """Gradient descent until success or the cap: Δ (k, d), and how it went."""
    fired, vectors, directions, kept = terms
    size = float(vectors.norm())
    delta = torch.zeros_like(vectors, requires_grad=True)
    slope = kept @ (fired[:, :, None] * directions).mean(0)  # of the linear part, the same everywhere
    if not torch.isfinite(slope).all():
        raise NonFiniteError("The activations or the unembedding are not finite; load the model with float32.")
    if float(slope.norm()) <= settings.beta:
        raise MethodError(
            f"beta={settings.beta} holds these neurons where they are: their slope is {float(slope.norm()):.3g}."
        )
    rate = settings.step * size / float(slope.norm())
    now = delta.detach()
    outcome: dict[str, Any] = {}
    for step in range(1, settings.steps + 1):
        (gradient,) = torch.autograd.grad(swap_loss(fired, vectors, delta, directions, settings.beta), delta)
        with torch.no_grad():
            delta -= rate * settings.growth ** (step - 1) * (kept @ gradient)
            length = float(delta.norm())
            capped = length >= settings.cap * size * (1 - 1e-6)
            if capped:
                delta *= settings.cap * size / length
        now = delta.detach().clone()
        loss = swap_loss(fired, vectors, now, directions, settings.beta)
        with Edit(_deltas(model, chosen, now)).applied(model):
            above = ranked(model, places)
            texts = [again(model, run) for run in runs] if settings.generate and (all(above) or capped) else None
        said = [names(text, target) and not names(text, source) for text in texts or ()]
        outcome = {
            "success": all(above) and all(said), "ranked": above, "generated": said, "texts": texts, "steps": step,
            "capped": capped, "norm": float(now.norm()) / size, "loss": float(loss),
        }  # fmt: skip
        if outcome["success"] or capped:
            break
    return now, outcome


def ranked(model: Model, places: Sequence[Place]) -> list[bool]:
    """At each place, with the text before it as it was: is the target's logit above the source's?"""
    found = []
    with torch.no_grad():
        for at in places:
            logits = model.forward(at.run.forced_inputs(at.position), rows=[-1])[0, -1].float()
            found.append(bool(logits[at.target_id] > logits[at.source_id]))
    return found


def _deltas(model: Model, neurons: Sequence[Neuron], delta: Tensor) -> tuple[Delta, ...]:
    """Rows of ``delta`` (k, d) as changes of the neurons' value vectors."""
    order = {neuron: row for row, neuron in enumerate(neurons)}
    return tuple(
        Delta(
            layer, path, delta[[order[n] for n in members]].T.contiguous(),
            units=columns_of(model, members), expert=expert,
        )
        for (layer, path, expert), members in by_writer(model, neurons).items()
    )  # fmt: skip
