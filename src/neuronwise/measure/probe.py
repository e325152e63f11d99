"""A sparse linear probe of neurons: which of them tell two kinds of cases apart, judged on cases held out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from neuronwise.errors import MethodError, NonFiniteError
from neuronwise.locate.scores import Scores
from neuronwise.measure.judged import Judged, judged
from neuronwise.model.modes import computes
from neuronwise.neurons import Neuron, Neurons, NeuronSet, ScoredNeuron, as_neurons

Numbers: TypeAlias = NDArray[np.float64]
Truth: TypeAlias = NDArray[np.bool_]
Rows: TypeAlias = NDArray[np.intp]
Features: TypeAlias = Sequence[Scores] | Numbers
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)  # C of scikit-learn, the inverse of the weight of |w|; the best is chosen
FOLDS = 5
INNER = 3  # parts held out to choose the strength; 2 where there are but two groups


@dataclass(frozen=True)
class Probe:
    """A fitted probe. ``neurons``: those with a weight other than 0, by the size of their weight, which is their score.

    A weight is for a feature in standard deviations; above 0 it speaks for the label. ``held_out``: how well probes
    fitted on the other folds tell each fold; ``shuffled``: the same with labels drawn anew among the cases, all
    repetitions together. ``strength`` is scikit-learn's C.
    """

    neurons: NeuronSet
    held_out: Judged
    shuffled: Judged | None
    strength: float
    columns: tuple[Neuron, ...] | None = field(repr=False)
    fitted: Fitted = field(repr=False)

    def probabilities(self, features: Features) -> list[float]:
        """Of each case the probability that the label is true."""
        table, columns = _table(features, self.columns)
        if table.shape[1] != self.fitted.count or columns != self.columns:
            raise MethodError("These features are not those that the probe was fitted on; take the same method.")
        return self.fitted(table).tolist()

    def judge(
        self, features: Features, labels: Sequence[bool | int], groups: Sequence[Hashable] | None = None
    ) -> Judged:
        """How well it tells the labels of another set of cases (transfer)."""
        truth = _truth(labels, len(features))
        return judged(truth, np.array(self.probabilities(features)), _groups(groups, len(truth)))


@dataclass(frozen=True)
class Fitted:
    """Standardization and weights; called with (cases, columns) it gives (cases,) probabilities."""

    used: Rows
    mean: Numbers
    spread: Numbers
    weights: Numbers
    constant: float
    count: int

    def __call__(self, table: Numbers) -> Numbers:
        lead = ((table[:, self.used] - self.mean) / self.spread) @ self.weights + self.constant
        return 1 / (1 + np.exp(-np.clip(lead, -500, 500)))


@computes
def probe(
    features: Features,
    labels: Sequence[bool | int],
    *,
    neurons: Neurons | None = None,
    groups: Sequence[Hashable] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = FOLDS,
    shuffles: int = 5,
    seed: int = 0,
) -> Probe:
    """Fit a sparse (L1) logistic regression on features of neurons, after [HN] (arXiv 2512.01797).

    ``features``: one ``Scores`` for each case, as ``scores`` gives them (activations by ``method="activation"``), or a
    (cases, neurons) array whose columns ``neurons`` names. ``labels``: true or false for each case. ``groups``: what
    must not be split between fitting and judging, such as the photo of each case.

    Each feature is standardized over the cases that are fitted. ``folds`` parts are held out in turn; within the rest
    the strength is chosen among ``strengths`` by the log-likelihood of three parts held out there, so that no judged
    case has a say (our choices). Both labels weigh the same, in the fit and in this choice. ``shuffles``: repetitions
    with labels drawn anew among the cases. Raises ``MethodError`` for features and labels that do not fit, and for too
    few cases to hold any out.

    >>> cases = [nw.scores(model, run, word, method="activation") for run, word in nouns]
    >>> found = nw.probe(cases, unsupported, groups=photos)
    >>> found.held_out.accuracy, found.shuffled.accuracy, found.neurons[:10]
    """
    table, columns = _table(features, None if neurons is None else as_neurons(neurons))
    truth, owners = _truth(labels, len(table)), _groups(groups, len(table))
    _require(truth, owners, folds, strengths)
    draw = np.random.default_rng(seed)
    held_out = judged(truth, _held_out(table, truth, owners, strengths, folds, draw), owners)
    drawn = [draw.permutation(truth) for _ in range(shuffles)]
    guessed = [_held_out(table, one, owners, strengths, folds, draw) for one in drawn]
    shuffled = judged(np.concatenate(drawn), np.concatenate(guessed), np.tile(owners, shuffles)) if drawn else None
    strength = _strength(table, truth, owners, strengths, draw)
    fitted = _fit(table, truth, strength)
    return Probe(_chosen(fitted, columns), held_out, shuffled, strength, columns, fitted)


def _table(features: Features, columns: tuple[Neuron, ...] | None) -> tuple[Numbers, tuple[Neuron, ...] | None]:
    """(cases, columns) numbers, and the neuron of each column; of ``Scores`` 0 where an expert was not routed to."""
    if not _are_scores(features):
        table = np.asarray(features, dtype=np.float64)
        if table.ndim != 2 or (columns is not None and len(columns) != table.shape[1]):
            raise MethodError("Features are Scores, one for each case, or an array of (cases, neurons).")
    else:
        names = {str(writer): writer for one in features for writer in one}
        writers = sorted(names.values(), key=lambda writer: writer.neuron(0))
        own = tuple(writer.neuron(column) for writer in writers for column in range(writer.width))
        columns = own if columns is None else columns
        place = {neuron: column for column, neuron in enumerate(own)}
        missing = [str(neuron) for neuron in columns if neuron not in place and neuron.expert is None]
        if missing:
            raise MethodError(f"These cases have no score of {', '.join(missing[:3])}.")
        scored = np.zeros((len(features), len(own) + 1))  # the last column: of experts that no case was routed to
        for row, one in enumerate(features):
            for writer, values in one.items():
                first = place[writer.neuron(0)]
                scored[row, first : first + writer.width] = values.double().numpy()
        table = scored[:, [place.get(neuron, len(own)) for neuron in columns]]
    if not np.isfinite(table).all():
        raise NonFiniteError("Some features are not finite; load the model with dtype=torch.float32.")
    return table, columns


def _are_scores(features: object) -> TypeGuard[Sequence[Scores]]:
    return isinstance(features, Sequence) and bool(features) and all(isinstance(one, Scores) for one in features)


def _truth(labels: Sequence[bool | int], count: int) -> Truth:
    found = np.asarray(labels)
    if found.shape != (count,) or not np.isin(found, (0, 1)).all():
        raise MethodError(f"Give one label for each of the {count} cases, true or false.")
    return found.astype(bool)


def _groups(groups: Sequence[Hashable] | None, count: int) -> Rows:
    """The number of each case's group; every case is its own where none are given."""
    listed = list(range(count)) if groups is None else list(groups)
    if len(listed) != count:
        raise MethodError(f"Give one group for each of the {count} cases.")
    order = {group: number for number, group in enumerate(dict.fromkeys(listed))}
    return np.array([order[group] for group in listed])


def _require(truth: Truth, owners: Rows, folds: int, strengths: Sequence[float]) -> None:
    if folds < 2 or not strengths or min(strengths) <= 0:
        raise MethodError("A probe needs 2 folds or more, and strengths above 0.")
    fewest = min(len(set(owners[truth == label])) for label in (True, False))
    if fewest < folds:
        raise MethodError(
            f"There are {int(truth.sum())} true and {int((~truth).sum())} false cases; both labels need {folds} or "
            "more (of different groups), one for each fold."
        )


def _parts(truth: Truth, owners: Rows, folds: int, draw: np.random.Generator) -> list[tuple[Rows, Rows]]:
    """(kept, held out) rows of each fold: groups whole, both labels spread as evenly as they allow."""
    try:
        from sklearn.model_selection import StratifiedGroupKFold
    except ImportError as error:
        raise MethodError("A probe needs scikit-learn: pip install 'neuronwise[probe]'.") from error
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=int(draw.integers(2**31)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a label that some inner fold lacks
        return list(parts.split(truth, truth, owners))


def _held_out(
    table: Numbers,
    truth: Truth,
    owners: Rows,
    strengths: Sequence[float],
    folds: int,
    draw: np.random.Generator,
) -> Numbers:
    """Of each case the probability by a probe that saw no case of its fold."""
    found = np.empty(len(truth))
    for kept, held in _parts(truth, owners, folds, draw):
        strength = _strength(table[kept], truth[kept], owners[kept], strengths, draw)
        found[held] = _fit(table[kept], truth[kept], strength)(table[held])
    return found


def _strength(
    table: Numbers,
    truth: Truth,
    owners: Rows,
    strengths: Sequence[float],
    draw: np.random.Generator,
) -> float:
    """The strength of the best log-likelihood of cases held out, both labels weighing the same; the least of equals."""
    if len(strengths) == 1:
        return strengths[0]
    found = dict.fromkeys(sorted(strengths), 0.0)
    weights = 1 / np.where(truth, truth.sum(), (~truth).sum())
    count = min(INNER, len(set(owners)))
    if count < 2:
        raise MethodError(
            "Beside one of the folds there is a single group; give more groups, more folds or one strength."
        )
    for kept, held in _parts(truth, owners, count, draw):
        for strength in found:
            probabilities = np.clip(_fit(table[kept], truth[kept], strength)(table[held]), 1e-6, 1 - 1e-6)
            found[strength] += float(weights[held] @ np.log(np.where(truth[held], probabilities, 1 - probabilities)))
    return max(found, key=lambda strength: found[strength])


def _fit(table: Numbers, truth: Truth, strength: float) -> Fitted:
    """Weights on standardized features; features that do not vary have none."""
    from sklearn.linear_model import LogisticRegression

    mean, spread = table.mean(0), table.std(0)
    used = np.flatnonzero(spread > 1e-12 * np.abs(table).max(0).clip(1e-30))
    mean, spread = mean[used], spread[used]
    if truth.all() or not truth.any() or not len(used):
        share = float(np.clip(truth.mean(), 1e-6, 1 - 1e-6))
        return Fitted(used, mean, spread, np.zeros(len(used)), math.log(share / (1 - share)), table.shape[1])
    model = LogisticRegression(
        l1_ratio=1.0, C=strength, solver="liblinear", class_weight="balanced", random_state=0, max_iter=1000
    )
    model.fit((table[:, used] - mean) / spread, truth)
    weights, constant = np.asarray(model.coef_)[0], float(np.asarray(model.intercept_)[0])
    return Fitted(used, mean, spread, weights, constant, table.shape[1])


def _chosen(fitted: Fitted, columns: tuple[Neuron, ...] | None) -> NeuronSet:
    if columns is None:
        return NeuronSet((), {"method": "probe"})
    nonzero = np.flatnonzero(fitted.weights)
    order = nonzero[np.argsort(-np.abs(fitted.weights[nonzero]), kind="stable")]
    members = (ScoredNeuron(columns[fitted.used[at]], float(fitted.weights[at])) for at in order)
    return NeuronSet(tuple(members), {"method": "probe"})
