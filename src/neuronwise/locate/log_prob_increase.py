"""How much a neuron alone raises the target's log-probability at the residual stream it writes into."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate.method import Method
from neuronwise.locate.scores import Place, Scores
from neuronwise.model.blocks import dense_weight, expert_weight
from neuronwise.model.logit_lens import LogitLens
from neuronwise.model.record import Activations
from neuronwise.model.run import Run, Target
from neuronwise.model.stream import unit_path

if TYPE_CHECKING:
    from neuronwise.model import Model

# (place, residual (d,), activations (f,), what each neuron writes into the stream (f, d))
Written = tuple[Place, Tensor, Tensor, Tensor]
ROUNDING = 1e-4  # nats by which a bound computed in float32 may be too low


def log_prob_increase(
    model: Model, run: Run, targets: Sequence[Target], *, chunk: int = 512, exact: int | None = None
) -> list[Scores]:
    """log p(t | h + a·v) − log p(t | h), read through the final norm and U ([YU] eq. 6).

    h is the residual stream at the predicting position before the layer's feed-forward block writes. One product of
    neurons and vocabulary, ``chunk`` neurons at a time. ``exact=K``: only neurons that can be among the K best are
    read so, which gives the same K best in a fraction of the time; the others get an upper bound of their score, no
    higher than the K-th best. Raises ``MethodError`` where what a neuron writes reaches the stream through more than
    a norm or a multiplier.
    """
    if chunk < 1 or (exact is not None and exact < 1):
        raise MethodError("chunk and exact count neurons: 1 or more.")
    results = [Scores() for _ in targets]
    for position in sorted({target.position for target in targets}):
        indices = [i for i, target in enumerate(targets) if target.position == position]
        acts = run.activations(position)
        lens = LogitLens(model, run.forced_inputs(position))

        def written(lens: LogitLens = lens, acts: Activations = acts) -> Iterator[Written]:
            return _written(model, lens, acts)

        if exact is not None and lens.has_bounds:
            for index in indices:
                _best(lens, written, targets[index].token_id, exact, chunk, results[index])
        else:
            tokens = [targets[i].token_id for i in indices]
            for place, residual, part, vectors in written():
                increases = _increases(lens, residual, vectors, tokens, chunk)
                for column, index in enumerate(indices):
                    results[index].values[place] = increases[:, column]
                    results[index].activations[place] = part
    return results


def _written(model: Model, lens: LogitLens, acts: Activations) -> Iterator[Written]:
    for block in model.blocks:
        parts, pieces, start = [], [], 0
        a = acts.dense.get(block.layer)
        experts = acts.routed[block.layer][0] if block.layer in acts.routed else {}
        if not block.dense and not experts:
            continue
        residual = lens.residual_before(block.layer)
        for writer in block.dense:
            part = a[0, start : start + writer.width].float() if a is not None else torch.zeros(writer.width)
            vectors = lens.into_stream(block.layer, writer.path, dense_weight(writer).float().T.cpu())
            parts.append(part)
            pieces.append(part.unsqueeze(1) * vectors)
            start += writer.width
        if parts:
            yield (block.layer, None), residual, torch.cat(parts), torch.cat(pieces)
        for expert, record in experts.items():
            routed, local = block.expert(expert)
            part = record.written
            path = unit_path(block, block.routed.index(routed))
            vectors = lens.into_stream(block.layer, path, expert_weight(routed, local).float().T.cpu())
            yield (block.layer, expert), residual, part, part.unsqueeze(1) * vectors


def _increases(lens: LogitLens, residual: Tensor, vectors: Tensor, tokens: list[int], chunk: int) -> Tensor:
    """(n, tokens): the exact increases."""
    before = lens.log_probabilities(residual.unsqueeze(0))[0, tokens]
    pieces = [lens.log_probabilities(residual + piece)[:, tokens] - before for piece in vectors.split(chunk)]
    increases = torch.cat(pieces)
    if not torch.isfinite(increases).all():
        raise MethodError("log_prob_increase met numbers that are not finite; load the model in float32.")
    return increases


def _best(
    lens: LogitLens, written: Callable[[], Iterator[Written]], token: int, exact: int, chunk: int, scores: Scores
) -> None:
    """Fill ``scores``: exact where a neuron can be among the ``exact`` best, its upper bound elsewhere.

    The neurons of the highest bounds are read exactly; the lowest of these is a threshold, and every other neuron
    whose bound is over it is read too.
    """
    for place, residual, part, vectors in written():
        scores.values[place] = lens.increase_bounds(residual, vectors, token) + ROUNDING
        scores.activations[place] = part
    bounds = torch.cat(list(scores.values.values()))
    lowest = float(bounds.topk(min(exact, len(bounds))).values[-1])
    chosen = {place: values >= lowest for place, values in scores.values.items()}
    found = _read(lens, written, chosen, token, chunk)
    threshold = float(torch.cat(list(found.values())).topk(min(exact, len(bounds))).values[-1])
    more = {place: (values > threshold) & ~chosen[place] for place, values in scores.values.items()}
    found_later = _read(lens, written, more, token, chunk)
    for where, values in ((chosen, found), (more, found_later)):
        for place, exact_values in values.items():
            scores.values[place][where[place]] = exact_values


def _read(
    lens: LogitLens,
    written: Callable[[], Iterator[Written]],
    chosen: dict[Place, Tensor],
    token: int,
    chunk: int,
) -> dict[Place, Tensor]:
    return {
        place: _increases(lens, residual, vectors[chosen[place]], [token], chunk)[:, 0]
        for place, residual, _, vectors in written()
        if bool(chosen[place].any())
    }


METHOD = Method(
    "log_prob_increase",
    log_prob_increase,
    meaning="by how much each neuron raises the log-probability of {token}",
    source="Yu and Ananiadou 2024 (arXiv 2312.12141), eq. 6",
)
