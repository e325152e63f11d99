"""Sets of very many neurons, kept as columns, are the sets that their members make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neuronwise.errors import NeuronError, NeuronwiseError, NonFiniteError
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron, as_neurons
from neuronwise.neurons.columns import Columns

MEMBERS = (
    ScoredNeuron(Neuron(2, 7), 3.0, 0.5), ScoredNeuron(Neuron(0, 1, 4), 2.0, None, 6), ScoredNeuron(Neuron(2, 8), 1.0),
)  # fmt: skip
GIVEN = {
    "layer": [2, 0, 2], "unit": [7, 1, 8], "expert": [-1, 4, -1], "score": [3.0, 2.0, 1.0],
    "activation": [0.5, np.nan, np.nan], "position": [-1, 6, -1],
}  # fmt: skip


def test_columns_are_their_members(tmp_path: Path) -> None:
    plain, found = NeuronSet(MEMBERS, {"method": "a"}), NeuronSet.of_columns({"method": "a"}, **GIVEN)
    assert found == plain
    assert isinstance(found.members, Columns)
    assert (found[0], found[-1], found[1:]) == (MEMBERS[0], MEMBERS[2], plain[1:])
    assert found & plain[:1] == plain & plain[:1]
    assert found - plain[:1] == plain - plain[:1]
    assert found[:1] | plain == plain
    assert "L0.E4.U1@6" in found
    assert found.layers(3) == plain.layers(3)
    assert found.to_pandas().equals(plain.to_pandas())
    found.save(tmp_path / "set.json")
    loaded = NeuronSet.load(tmp_path / "set.json")
    assert loaded == plain
    assert isinstance(loaded.members, Columns)
    assert as_neurons(tmp_path / "set.json") == plain.neurons


def test_columns_that_are_wrong_are_refused(tmp_path: Path) -> None:
    for change, said in (
        ({"layer": [2, 0]}, "one length"),
        ({"unit": [7, -1, 8]}, "count from 0"),
        ({"layer": ["a", 0, 2]}, "not a number"),
        ({"size": [1, 2, 3]}, "'size' is not one of them"),
        ({"layer": [2, 0, 2], "unit": [7, 1, 7], "position": [-1, 6, -1]}, "holds each neuron once"),
    ):
        with pytest.raises(NeuronError, match=said):
            NeuronSet.of_columns(**{**GIVEN, **change})
    with pytest.raises(NonFiniteError, match="1 of 3 scores are not finite"):
        NeuronSet.of_columns(**{**GIVEN, "score": [1.0, np.inf, 0.0]})
    with pytest.raises(NeuronError, match="'score' is missing"):
        NeuronSet.of_columns(layer=[1], unit=[1])
    (tmp_path / "set.json").write_text('{"schema": "neuronwise.neurons/2", "record": {}, "columns": {"layer": [1]}}')
    with pytest.raises(NeuronwiseError, match="is not a set of neurons saved by neuronwise, or it is damaged"):
        NeuronSet.load(tmp_path / "set.json")
