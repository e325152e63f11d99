"""A distractor in place of a word: the least change of output vectors by which another token is likelier ([OVE])."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from neuronwise.answers.naming import names
from neuronwise.edit.delta import Delta, deltas_of, value_vectors
from neuronwise.edit.edit import Edit
from neuronwise.edit.swap import activations_at, narrowing
from neuronwise.edit.words import TokenPosition
from neuronwise.errors import MethodError, NonFiniteError, TargetError
from neuronwise.model.model import Model
from neuronwise.model.prompt import exact_tokens
from neuronwise.model.run import Run
from neuronwise.model.stream import written_gradients
from neuronwise.neurons import Neuron

STEPS = 10  # corrections of the linear constraints by what the model then says
SWEEPS = 2000  # of the dual problem's coordinates


class Constraints(Protocol):
    """How far the distractor must be above the word, and what else must stay."""

    @property
    def distractor(self) -> str | None:
        """A word of the user's, None for what the model itself would say instead."""
        ...

    @property
    def margin(self) -> float:
        """Logits between the two."""
        ...

    @property
    def spare(self) -> float:
        """See ``narrowing``."""
        ...

    @property
    def rounds(self) -> int:
        """The most texts that are constrained in turn."""
        ...


def distracted(
    model: Model, runs: Sequence[Run], word: str, neurons: Sequence[Neuron], settings: Constraints
) -> tuple[tuple[Delta, ...], dict[str, object]]:
    """The deltas by which the runs no longer say ``word``, and how it went.

    Minimized is Σ_ij ⟨Δ_i, (M⁻¹)_ij Δ_j⟩, where M⁻¹ weighs what the neurons write together elsewhere (``narrowing``),
    under one constraint for each position p that predicts the word's token t:
    logit_x − logit_t ≥ ``margin``, x the distractor there. In Δ it is linear to first order,
    Σ_i o_i,p ⟨Δ_i, g_i,p⟩, o the activations and g the gradient of the two logits' difference; what the model then
    says corrects the rest. Activations stay as they are: only output vectors change. A text that the model then writes
    and that names the word still is constrained too, in up to ``rounds`` texts. [OVE] is known to us by its abstract,
    so all but its idea is our choice.
    """
    read, texts, constrained = list(runs), [], list[TokenPosition]()
    change = torch.zeros(len(neurons), model.hidden_size)
    deltas, turn = tuple[Delta, ...](), 0
    while turn < settings.rounds:
        turn += 1
        constrained += [one for run in read for one in _spots(model, run, word, settings.distractor)]
        change, deltas = _least(model, runs, constrained, neurons, settings)
        with Edit(deltas).applied(model):
            texts = [run.again() for run in runs]
        read = [_saying(model, run, text) for run, text in zip(runs, texts, strict=True) if names(text, word)]
        if not read:
            break
    return deltas, {
        "distractors": list(dict.fromkeys(one.target for one in constrained)), "positions": len(constrained),
        "rounds": turn, "norm": float(change.norm() / value_vectors(model, neurons).norm()),
    }  # fmt: skip


def _spots(model: Model, run: Run, word: str, distractor: str | None) -> list[TokenPosition]:
    """Where a run says the word, with the token that is to be likelier there."""
    found = []
    for occurrence in run.concept(word).occurrences:
        own, position = occurrence.token_ids[0], occurrence.positions[0]
        with torch.no_grad():
            logits = model.forward(run.forced_inputs(position), rows=[-1])[0, -1].float()
        if distractor is None:
            ranked = logits.argsort(descending=True).tolist()
            other = next(token for token in ranked if token != own and not _alike(model.decode_ids([token]), word))
        else:
            piece = occurrence.tokens[0]
            written = piece[: len(piece) - len(piece.lstrip())] + distractor.strip()
            other = exact_tokens(model.tokenizer, model.vocabulary_size, written, "distractor").token_id
            if other == own:
                raise TargetError(f"{distractor!r} and {word!r} start with the same token; name another distractor.")
        found.append(TokenPosition(run, position, own, other, model.decode_ids([other]), None))
    return found


def _alike(piece: str, word: str) -> bool:
    """Whether a token may begin the word, in whatever spelling."""
    piece, word = piece.strip().lower(), word.strip().lower()
    return not piece or piece.startswith(word) or word.startswith(piece)


def _saying(model: Model, run: Run, text: str) -> Run:
    """The run with another text in place of its own, forced."""
    ids = exact_tokens(model.tokenizer, model.vocabulary_size, text, "text").token_ids
    return Run.of(model, run.prompted, list(ids), run.image)


@dataclass(frozen=True)
class _Problem:
    """``pushes`` (positions, k, d): the gradient of each position's difference of logits in Δ; ``narrow`` (k, k) M."""

    pushes: Tensor
    narrow: Tensor

    def least(self, bounds: Tensor) -> Tensor:
        """(k, d): the least Δ with ⟨push_p, Δ⟩ ≥ bound_p for all p, by its dual: Δ = Σ_p λ_p M push_p, λ ≥ 0."""
        moves = torch.einsum("ij,pjd->pid", self.narrow, self.pushes)
        gram = torch.einsum("pid,qid->pq", moves, self.pushes).double()
        if not torch.isfinite(gram).all():
            raise NonFiniteError("The activations or gradients are not finite; load the model with float32.")
        if not bool((gram.diagonal() > 0).all()):
            raise MethodError("These neurons do not fire where the word is predicted; take more of them (top).")
        weights = torch.zeros(len(bounds), dtype=torch.float64)
        for _ in range(SWEEPS):
            before = weights.clone()
            for p in range(len(bounds)):
                missing = (bounds[p] - gram[p] @ weights) / gram[p, p]
                weights[p] = (weights[p] + missing).clamp(min=0)
            if torch.allclose(before, weights, rtol=1e-9, atol=0):
                break
        return torch.einsum("p,pid->id", weights.float(), moves)


def _least(
    model: Model,
    runs: Sequence[Run],
    positions: Sequence[TokenPosition],
    neurons: Sequence[Neuron],
    settings: Constraints,
) -> tuple[Tensor, tuple[Delta, ...]]:
    """The change (k, d) that meets all constraints as the model computes, as far as ``STEPS`` corrections do."""
    pushes = torch.stack([_push(model, one, neurons) for one in positions])
    problem = _Problem(pushes, narrowing(model, runs, positions, neurons, settings.spare))
    bounds, change, deltas = settings.margin - gaps(model, positions), pushes[0], tuple[Delta, ...]()
    for _ in range(STEPS):
        change = problem.least(bounds.double())
        deltas = deltas_of(model, dict(zip(neurons, change, strict=True)))
        with Edit(deltas).applied(model):
            missing = settings.margin - gaps(model, positions)
        if bool((missing <= 1e-3).all()):
            break
        bounds = bounds + missing.clamp(min=0)
    return change, deltas


def _push(model: Model, at: TokenPosition, neurons: Sequence[Neuron]) -> Tensor:
    """(k, d): o_i g_i at one position."""
    row = at.run.row(at.position)
    readout = (row, {at.target_id: 1.0, at.source_id: -1.0})
    gradients = written_gradients(model, at.run.forced_inputs(), [readout], direct=False).gradients[0]
    found = torch.zeros(len(neurons), model.hidden_size)
    for index, neuron in enumerate(neurons):
        gradient = gradients.get(model.writer(neuron).site)
        if gradient is not None:
            found[index] = gradient if gradient.dim() == 1 else gradient[row]
    return activations_at(model, at.run, at.position, neurons)[:, None] * found


@torch.no_grad()
def gaps(model: Model, positions: Sequence[TokenPosition]) -> Tensor:
    """(positions,) logit of the distractor less that of the word, the text before it as it was."""
    found = []
    for at in positions:
        logits = model.forward(at.run.forced_inputs(at.position), rows=[-1])[0, -1].float()
        found.append(logits[at.target_id] - logits[at.source_id])
    return torch.stack(found).cpu()
