"""Probes: their optimum, what they select, what they are judged on, and the controls."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

import neuronwise as nw
from families import tiny
from neuronwise.errors import MethodError
from neuronwise.locate.scores import Scores
from neuronwise.measure import auroc
from neuronwise.measure.bootstrap import interval_of_groups
from neuronwise.neurons import Neuron

COLUMNS = [Neuron(0, unit) for unit in range(30)]


def planted(count: int, seed: int) -> tuple[Any, list[bool]]:
    """Noise, with the label in columns 3 and 7."""
    draw = np.random.default_rng(seed)
    table = draw.normal(size=(count, len(COLUMNS)))
    labels = draw.random(count) < 0.4
    table[:, 3] += 2.5 * labels
    table[:, 7] -= 2.0 * labels
    return 5 * table + 1, labels.tolist()


def test_a_probe_finds_what_carries_the_label_and_is_judged_on_cases_it_did_not_see() -> None:
    table, labels = planted(120, 0)
    found = nw.probe(table, labels, neurons=COLUMNS)
    assert set(found.neurons.neurons[:2]) == {Neuron(0, 3), Neuron(0, 7)}
    assert [member.score > 0 for member in found.neurons[:2]] == [m.neuron.unit == 3 for m in found.neurons[:2]]
    assert len(found.neurons) < len(COLUMNS)
    assert found.held_out.accuracy.mean > 0.85
    assert found.held_out.auroc is not None
    assert found.held_out.auroc.mean > 0.9
    assert found.shuffled is not None
    assert found.shuffled.auroc is not None
    assert abs(found.shuffled.auroc.mean - 0.5) < 0.12
    assert found.held_out.commonest == pytest.approx(max(np.mean(labels), 1 - np.mean(labels)))
    other, truth = planted(200, 1)
    moved = found.judge(other, truth)
    assert moved.accuracy.mean > 0.85
    assert moved.auroc is not None
    assert moved.auroc.mean == pytest.approx(roc_auc_score(truth, found.probabilities(other)))


def test_weights_are_the_optimum_of_the_penalized_likelihood() -> None:
    """|w|₁ + |b| + C Σ c_i log(1 + e^(−y f)): its slope is within ±1 at weights of 0, and −sign(w) at the others."""
    table, labels = planted(90, 2)
    found = nw.probe(table, labels, neurons=COLUMNS, strengths=[0.1], shuffles=0).fitted
    truth = np.array(labels)
    features = (table - table.mean(0)) / table.std(0)
    signs = np.where(truth, 1, -1)
    balance = np.where(truth, len(truth) / 2 / truth.sum(), len(truth) / 2 / (~truth).sum())
    lead = features @ found.weights + found.constant
    slopes = 0.1 * ((balance * signs / (1 + np.exp(signs * lead)))[:, None] * features).sum(0)
    held = found.weights == 0
    assert held.any()
    assert not held.all()
    assert np.abs(slopes[held]).max() < 1.01
    np.testing.assert_allclose(slopes[~held], np.sign(found.weights[~held]), atol=0.02)


@pytest.mark.parametrize("seed", [3, 7, 9])
def test_the_strength_is_the_best_on_cases_held_out_with_both_labels_weighing_the_same(seed: int) -> None:
    """scikit-learn's loss over three groups, which are the three parts; without the weights another strength wins."""
    draw = np.random.default_rng(seed)
    strengths = [3.0, 0.03, 0.3]
    truth = np.tile(np.arange(40) < 5, 3)
    groups = np.repeat(np.arange(3), 40)
    table = draw.normal(size=(120, 12))
    table[:, 0] += 0.8 * truth
    losses = {weighted: dict.fromkeys(strengths, 0.0) for weighted in (True, False)}
    for group, strength in itertools.product(range(3), strengths):
        held = groups == group
        model = make_pipeline(
            StandardScaler(),
            LogisticRegression(l1_ratio=1.0, C=strength, solver="liblinear", class_weight="balanced", max_iter=1000),
        ).fit(table[~held], truth[~held])
        said = model.predict_proba(table[held])[:, 1]
        for weighted, found in losses.items():
            weights = compute_sample_weight("balanced", truth[held]) if weighted else None
            found[strength] += log_loss(truth[held], said, sample_weight=weights)
    best = {weighted: min(found, key=lambda strength: found[strength]) for weighted, found in losses.items()}
    assert best[True] != best[False]
    found = nw.probe(table, truth.tolist(), groups=groups.tolist(), strengths=strengths, folds=3, shuffles=0)
    assert found.strength == best[True]


def test_cases_of_one_group_are_never_on_both_sides() -> None:
    """Columns that name the photo tell a label that photos have at random only where photos are split."""
    draw = np.random.default_rng(3)
    photos = np.repeat(np.arange(30), 4)
    table = np.eye(30)[photos] + 0.01 * draw.normal(size=(120, 30))
    labels = draw.permutation(np.arange(30) % 2 == 0)[photos].tolist()
    split = nw.probe(table, labels, neurons=COLUMNS, strengths=[10.0], shuffles=0)
    whole = nw.probe(table, labels, neurons=COLUMNS, strengths=[10.0], shuffles=0, groups=photos.tolist())
    assert split.held_out.accuracy.mean > 0.95
    assert whole.held_out.accuracy.mean < 0.7


@pytest.mark.parametrize("seed", range(3))
def test_auroc_is_that_of_scikit_learn_with_ties(seed: int) -> None:
    draw = np.random.default_rng(seed)
    truth, values = draw.random(40) < 0.3, draw.integers(0, 6, 40).astype(float)
    assert auroc(truth, values) == pytest.approx(roc_auc_score(truth, values))
    assert np.isnan(auroc(np.ones(3, bool), np.arange(3.0)))


def test_intervals_resample_whole_groups() -> None:
    values = np.repeat(np.arange(10.0), 50)
    wide = interval_of_groups(lambda rows: float(values[rows].mean()), np.repeat(np.arange(10), 50))
    narrow = interval_of_groups(lambda rows: float(values[rows].mean()), np.arange(500))
    assert wide.mean == narrow.mean == 4.5
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_scores_of_runs_are_features_and_the_neurons_have_their_addresses() -> None:
    model = nw.Model(tiny("llama")[0])
    draw = np.random.default_rng(0)
    cases, labels = [], []
    for number in range(24):
        own = Scores()
        for writer in model.writers:
            own[writer] = torch.from_numpy(draw.normal(size=writer.width)).float()
        labels.append(number % 2 == 0)
        own[model.writers[1]][5] += 4.0 * labels[-1]
        cases.append(own)
    found = nw.probe(cases, labels, shuffles=0)
    assert found.neurons[0].neuron == model.writers[1].neuron(5)
    assert len(found.columns or ()) == model.num_neurons
    assert found.judge(cases, labels).accuracy.mean == 1
    less = nw.probe(cases, labels, neurons=["L1.U5", "L0.U1"], shuffles=0)
    assert less.columns == (Neuron(1, 5), Neuron(0, 1))
    assert less.held_out.accuracy.mean > 0.9


def test_an_expert_that_no_case_of_another_set_is_routed_to_counts_as_silent() -> None:
    model = nw.Model(tiny("mixtral")[0])
    draw = np.random.default_rng(0)
    labels = [number % 2 == 0 for number in range(20)]
    cases = []
    for label in labels:
        own = Scores({w: torch.from_numpy(draw.normal(size=w.width)).float() for w in model.writers})
        own[model.writers[0]][3] += 5.0 * label
        cases.append(own)
    found = nw.probe(cases, labels, shuffles=0)
    assert found.neurons[0].neuron == model.writers[0].neuron(3)
    gone = model.writers[-1]
    silent = [Scores({w: v for w, v in case.items() if w is not gone}) for case in cases]
    zeros = [Scores({w: v * (w is not gone) for w, v in case.items()}) for case in cases]
    assert found.probabilities(silent) == pytest.approx(found.probabilities(zeros))


def test_what_does_not_fit_is_refused() -> None:
    table, labels = planted(40, 0)
    with pytest.raises(MethodError, match="one label for each of the 40"):
        nw.probe(table, labels[:-1])
    with pytest.raises(MethodError, match="one group for each"):
        nw.probe(table, labels, groups=[1, 2])
    with pytest.raises(MethodError, match=r"0 true and 40 false cases; both labels need 5"):
        nw.probe(table, [False] * 40)
    with pytest.raises(MethodError, match="2 folds or more"):
        nw.probe(table, labels, folds=1)
    with pytest.raises(MethodError, match="a single group"):
        nw.probe(table, labels, folds=2, groups=[number % 2 for number in range(40)])
    with pytest.raises(MethodError, match="array of"):
        nw.probe(table, labels, neurons=COLUMNS[:3])
    with pytest.raises(MethodError, match="not those that the probe was fitted on"):
        nw.probe(table, labels, shuffles=0).probabilities(table[:, :5])
    with pytest.raises(nw.NeuronwiseError, match="not finite"):
        nw.probe(np.where(table > 8, np.nan, table), labels)
