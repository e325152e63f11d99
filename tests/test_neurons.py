"""Neurons and sets of neurons as values."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronwise.errors import NeuronError, NeuronwiseError, NonFiniteError
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron

numbers = st.integers(min_value=0, max_value=10**6)
neurons = st.builds(Neuron, layer=numbers, unit=numbers, expert=st.none() | numbers)
scores = st.floats(allow_nan=False, allow_infinity=False)
sets = st.lists(
    st.builds(ScoredNeuron, neurons, scores, st.none() | scores), max_size=20, unique_by=lambda m: m.neuron
).map(lambda members: NeuronSet(tuple(members), {"method": "made up"}))


@given(neurons)
def test_an_address_is_parsed_back(neuron: Neuron) -> None:
    assert Neuron.parse(str(neuron)) == neuron


@pytest.mark.parametrize("address", ["", "23.8083", "L1U2", "L1.U", "L-1.U2", "L1.E.U2", "L1.U2x", "l1.u2"])
def test_anything_else_is_no_address(address: str) -> None:
    with pytest.raises(NeuronError, match=r"L23\.U8083"):
        Neuron.parse(address)


def test_addresses_print_as_documented() -> None:
    assert str(Neuron(23, 8083)) == "L23.U8083"
    assert str(Neuron(23, 80, expert=5)) == "L23.E5.U80"


@given(found=sets)
def test_save_and_load_is_the_identity(tmp_path_factory: pytest.TempPathFactory, found: NeuronSet) -> None:
    path = tmp_path_factory.mktemp("sets") / "set.json"
    found.save(path)
    assert NeuronSet.load(path) == found


@given(sets, sets)
def test_set_algebra(left: NeuronSet, right: NeuronSet) -> None:
    both, either, only = left & right, left | right, left - right
    assert set(both.neurons) == set(left.neurons) & set(right.neurons)
    assert set(either.neurons) == set(left.neurons) | set(right.neurons)
    assert set(only.neurons) == set(left.neurons) - set(right.neurons)
    assert both.members == tuple(m for m in left.members if m in both.members)
    assert either.members[: len(left)] == left.members


def test_slices_are_sets_and_indices_are_members() -> None:
    found = NeuronSet(tuple(ScoredNeuron(Neuron(1, u), 9.0 - u) for u in range(5)), {"method": "m"})
    assert found[0].neuron == Neuron(1, 0)
    assert found[:2].neurons == (Neuron(1, 0), Neuron(1, 1))
    assert found[:2].record == {"method": "m"}
    assert Neuron(1, 4) in found
    assert Neuron(1, 5) not in found


def test_pandas_has_one_row_per_neuron() -> None:
    frame = NeuronSet((ScoredNeuron(Neuron(1, 2), 0.5, 3.0), ScoredNeuron(Neuron(0, 4, 7), 0.25))).to_pandas()
    assert list(frame.columns) == ["layer", "expert", "unit", "score", "activation"]
    assert frame["unit"].tolist() == [2, 4]
    assert frame["expert"].isna().tolist() == [True, False]


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(score: float) -> None:
    with pytest.raises(NonFiniteError, match=r"L1\.U2"):
        NeuronSet((ScoredNeuron(Neuron(1, 2), score),))


def test_a_neuron_stands_once() -> None:
    with pytest.raises(NeuronError):
        NeuronSet.of(["L1.U2", "L1.U2"])


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", json.dumps({"schema": "neuronwise.neurons/1"})])
def test_a_damaged_file_is_said(tmp_path: Path, content: str) -> None:
    path = tmp_path / "set.json"
    path.write_text(content)
    with pytest.raises(NeuronwiseError, match="damaged"):
        NeuronSet.load(path)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(NeuronwiseError, match="cannot be read"):
        NeuronSet.load(tmp_path / "none.json")


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    with pytest.raises(NeuronwiseError, match="cannot be written"):
        NeuronSet.of(["L1.U2"]).save(tmp_path / "no such folder" / "set.json")
    assert list(tmp_path.iterdir()) == []
