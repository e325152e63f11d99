"""Fluency, bootstrap intervals and costs against independent computations."""

from __future__ import annotations

import gc
import math
from typing import Any

import numpy as np
import pytest

import neuronwise as nw
from neuronwise.measure import costs, fluency, fluency_released, mean_interval

TEXTS = (
    "the cat sat on the mat and the cat sat on the dog",
    "Rome is Rome, is Rome, is Rome.",
    "every word here differs from all others",
)


def by_numpy(text: str) -> float:
    words = text.replace(",", " ,").replace(".", " .").split()

    def bits(n: int) -> float:
        grams = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
        share = np.unique(grams, return_counts=True)[1] / len(grams)
        return float(-(share * np.log2(share)).sum())

    return float(np.mean([2 / 3 * bits(2), 4 / 3 * bits(3)]))


@pytest.mark.parametrize("text", TEXTS)
def test_fluency_is_the_weighted_entropy_of_bigrams_and_trigrams(text: str) -> None:
    assert fluency(text) == pytest.approx(by_numpy(text))


def test_fluency_by_hand() -> None:
    # a b a b a: bigrams ab, ba, ab, ba: one bit; trigrams aba, bab, aba: two thirds and one third
    third = -(2 / 3) * math.log2(2 / 3) - 1 / 3 * math.log2(1 / 3)
    assert fluency("a b a b a") == pytest.approx((2 / 3 + 4 / 3 * third) / 2)
    assert fluency("a a a a") == 0
    assert fluency("") == 0


def test_released_fluency_counts_the_words_of_nltk_sentence_by_sentence() -> None:
    from nltk import FreqDist, ngrams

    text = "The cat can't sit.\n\nIs it (really) Mira's cat?  It's 3.5 kg; it can't sit."
    words = ["The", "cat", "ca", "n't", "sit", ".", "Is", "it", "(", "really", ")", "Mira", "'s", "cat", "?"]
    words += ["It", "'s", "3.5", "kg", ";", "it", "ca", "n't", "sit", "."]
    bits = []
    for n in (2, 3):
        counts = np.array([*FreqDist(ngrams(words, n)).values()])
        bits.append(float(-(counts / counts.sum() * np.log2(counts / counts.sum())).sum()))
    assert fluency_released(text) == pytest.approx((2 / 3 * bits[0] + 4 / 3 * bits[1]) / 2)
    assert fluency_released("ﬁne ﬁne") == fluency_released("fine fine") == 0
    assert fluency_released(text) != pytest.approx(fluency(text))


def test_bootstrap_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(3).beta(2, 5, 60)
    mine = mean_interval(values.tolist(), resamples=20_000)
    other = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    assert mine is not None
    assert mine.mean == pytest.approx(values.mean())
    assert mine.low == pytest.approx(other.low, abs=2e-3)
    assert mine.high == pytest.approx(other.high, abs=2e-3)


def test_bootstrap_of_shares_agrees_with_the_binomial() -> None:
    values = [1.0] * 30 + [0.0] * 70
    found = mean_interval(values)
    assert found is not None
    half = 1.96 * math.sqrt(0.3 * 0.7 / 100)
    assert (found.low, found.high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.015)
    uneven = [math.sqrt(number) for number in range(40)]
    assert mean_interval(uneven) == mean_interval(uneven)
    assert mean_interval(uneven) != mean_interval(uneven, seed=1)


def test_bootstrap_in_blocks_is_an_interval_too(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [float(number % 7) for number in range(50)]
    whole = mean_interval(values)
    monkeypatch.setattr("neuronwise.measure.bootstrap.BLOCK", 333)
    blocks = mean_interval(values)
    assert whole is not None
    assert blocks is not None
    assert (blocks.low, blocks.high) == pytest.approx((whole.low, whole.high), abs=0.05)


def test_cases_without_the_figure_do_not_count() -> None:
    assert mean_interval([None, None]) is None
    one = mean_interval([None, 0.25])
    assert one is not None
    assert (one.mean, one.low, one.high, one.n) == (0.25, 0.25, 0.25, 1)


def test_costs_see_seconds(tiny_model: nw.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    for clock, times in (("perf_counter", [10.0, 15.0]), ("process_time", [2.0, 4.5])):
        monkeypatch.setattr(f"neuronwise.measure.cost.time.{clock}", lambda times=times: times.pop(0))
    with costs(tiny_model) as cost:
        pass
    assert (cost.seconds, cost.cpu_seconds) == (5.0, 2.5)


def test_costs_see_memory_beyond_what_garbage_held(tiny_model: nw.Model) -> None:
    gc.disable()
    garbage: list[Any] = [np.ones(40_000_000)]  # 320 MB, in a circle as models are
    garbage.append(garbage)
    del garbage
    gc.enable()
    with costs(tiny_model) as cost:
        gc.collect()
        held: Any = np.ones(30_000_000)  # 240 MB
    if cost.peak_memory is None:
        pytest.skip("this system does not report peak memory")
    assert 0.9 * held.nbytes < cost.peak_memory < 1.5 * held.nbytes
    del held
    with costs(tiny_model) as cost:
        pass
    assert cost.peak_memory is not None
    assert cost.peak_memory < 20_000_000
