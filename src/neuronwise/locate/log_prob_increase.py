"""How much a neuron alone raises the target's log-probability at the residual stream it writes into."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate.method import Method
from neuronwise.locate.scores import Scores
from neuronwise.model.activations import Activations
from neuronwise.model.logit_lens import LogitLens
from neuronwise.model.run import Run, Target
from neuronwise.model.writers import Writer

if TYPE_CHECKING:
    from neuronwise.model import Model

# (writer, residual (d,), activations (width,), what each neuron writes into the stream (width, d))
Written = tuple[Writer, Tensor, Tensor, Tensor]
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

        if exact is not None and lens.tail.has_bounds:
            for index in indices:
                _best(lens, written, targets[index].token_id, exact, chunk, results[index])
        else:
            tokens = [targets[i].token_id for i in indices]
            for writer, residual, a, vectors in written():
                increases = _increases(lens, residual, vectors, tokens, chunk)
                for column, index in enumerate(indices):
                    results[index].put(writer, increases[:, column], a)
    return results


def _written(model: Model, lens: LogitLens, acts: Activations) -> Iterator[Written]:
    for block in model.blocks:
        fired = {writer: a for writer in block.writers if (a := writer.fired(acts)) is not None}
        residual = lens.residual_before(block.layer) if fired else None
        for writer, a in fired.items():
            assert residual is not None
            vectors = lens.into_stream(writer.site, writer.vectors.float().T.cpu())
            yield writer, residual, a, a.unsqueeze(1) * vectors


def _increases(lens: LogitLens, residual: Tensor, vectors: Tensor, tokens: list[int], chunk: int) -> Tensor:
    """(n, tokens): the exact increases."""
    before = lens.tail.log_probabilities(residual.unsqueeze(0))[0, tokens].cpu()
    pieces = [lens.tail.log_probabilities(residual + piece)[:, tokens].cpu() - before for piece in vectors.split(chunk)]
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
    for writer, residual, a, vectors in written():
        scores.put(writer, lens.tail.increase_bounds(residual, vectors, token) + ROUNDING, a)
    bounds = torch.cat(list(scores.values()))
    lowest = float(bounds.topk(min(exact, len(bounds))).values[-1])
    chosen = {writer: values >= lowest for writer, values in scores.items()}
    found = _read(lens, written, chosen, token, chunk)
    threshold = float(torch.cat(list(found.values())).topk(min(exact, len(bounds))).values[-1])
    more = {writer: (values > threshold) & ~chosen[writer] for writer, values in scores.items()}
    found_later = _read(lens, written, more, token, chunk)
    for where, values in ((chosen, found), (more, found_later)):
        for writer, exact_values in values.items():
            scores[writer][where[writer]] = exact_values


def _read(
    lens: LogitLens,
    written: Callable[[], Iterator[Written]],
    chosen: Mapping[Writer, Tensor],
    token: int,
    chunk: int,
) -> dict[Writer, Tensor]:
    return {
        writer: _increases(lens, residual, vectors[chosen[writer]], [token], chunk)[:, 0]
        for writer, residual, _, vectors in written()
        if bool(chosen[writer].any())
    }


METHOD = Method(
    "log_prob_increase",
    log_prob_increase,
    meaning="by how much each neuron raises the log-probability of {token}",
    source="Yu and Ananiadou 2024 (arXiv 2312.12141), eq. 6",
    records=True,
)
