"""Neurons and sets of neurons as values."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronwise.errors import NeuronError, NeuronwiseError, NonFiniteError
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron, as_neurons

numbers = st.integers(min_value=0, max_value=10**6)
neurons = st.builds(Neuron, layer=numbers, unit=numbers, expert=st.none() | numbers)
scores = st.floats(allow_nan=False, allow_infinity=False)
sets = st.lists(
    st.builds(ScoredNeuron, neurons, scores, st.none() | scores, st.none() | numbers),
    max_size=20,
    unique_by=lambda m: (m.neuron, m.position),
).map(lambda members: NeuronSet(tuple(members), {"method": "made up"}))


def places(found: NeuronSet) -> set[tuple[Neuron, int | None]]:
    return {(member.neuron, member.position) for member in found}


@given(neurons, st.none() | numbers)
def test_an_address_is_parsed_back(neuron: Neuron, position: int | None) -> None:
    assert Neuron.parse(str(neuron)) == neuron
    scored = ScoredNeuron(neuron, 0.0, position=position)
    assert ScoredNeuron.parse(str(scored)) == scored
    assert ScoredNeuron.from_row(json.loads(json.dumps(scored.to_row()))) == scored


@pytest.mark.parametrize(
    "address", ["", "23.8083", "L1U2", "L1.U", "L-1.U2", "L1.E.U2", "L1.U2x", "l1.u2", "L1.U2@", "L1.U2@3"]
)
def test_anything_else_is_no_address(address: str) -> None:
    with pytest.raises(NeuronError, match=r"L23\.U8083|for the neuron itself"):
        Neuron.parse(address)


def test_an_attention_head_is_named_as_one() -> None:
    with pytest.raises(NeuronError, match=r"'L5\.H3' is an attention head, not a neuron; `neuronwise find --heads"):
        Neuron.parse("L5.H3")


def test_addresses_print_as_documented() -> None:
    assert str(Neuron(23, 8083)) == "L23.U8083"
    assert str(Neuron(23, 80, expert=5)) == "L23.E5.U80"
    assert str(ScoredNeuron(Neuron(23, 8083), 1.0, position=14)) == "L23.U8083@14"


@given(found=sets)
def test_save_and_load_is_the_identity(tmp_path_factory: pytest.TempPathFactory, found: NeuronSet) -> None:
    path = tmp_path_factory.mktemp("sets") / "set.json"
    found.save(path)
    assert NeuronSet.load(path) == found


@given(sets, sets)
def test_set_algebra(left: NeuronSet, right: NeuronSet) -> None:
    both, either, only = left & right, left | right, left - right
    assert places(both) == places(left) & places(right)
    assert places(either) == places(left) | places(right)
    assert places(only) == places(left) - places(right)
    assert both.members == tuple(m for m in left.members if m in both.members)
    assert either.members[: len(left)] == left.members


def test_slices_are_sets_and_indices_are_members() -> None:
    found = NeuronSet(tuple(ScoredNeuron(Neuron(1, u), 9.0 - u) for u in range(5)), {"method": "m"})
    assert found[0].neuron == Neuron(1, 0)
    assert found[:2].neurons == (Neuron(1, 0), Neuron(1, 1))
    assert found[:2].record == {"method": "m"}
    assert found.layers(3) == [0, 5, 0]
    assert Neuron(1, 4) in found
    assert "L1.U4" in found
    assert Neuron(1, 5) not in found
    assert found.to_pandas().iloc[0] in found
    assert {"layer": 1, "unit": 4} in found
    assert {"layer": 1, "unit": 5} not in found
    assert not any(other in found for other in (None, 3.5, (1, 4), [Neuron(1, 4)]))


def test_pandas_has_one_row_per_neuron() -> None:
    frame = NeuronSet((ScoredNeuron(Neuron(1, 2), 0.5, 3.0), ScoredNeuron(Neuron(0, 4, 7), 0.25))).to_pandas()
    assert list(frame.columns) == ["layer", "expert", "unit", "score", "activation", "position"]
    assert frame["unit"].tolist() == [2, 4]
    assert frame["expert"].isna().tolist() == [True, False]


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(score: float) -> None:
    with pytest.raises(NonFiniteError, match=r"L1\.U2"):
        NeuronSet((ScoredNeuron(Neuron(1, 2), score),))


def test_a_set_holds_a_neuron_once_at_each_position() -> None:
    found = NeuronSet.of(["L1.U2@3", "L1.U2@4", "L1.U2"])
    assert [str(member) for member in found] == ["L1.U2@3", "L1.U2@4", "L1.U2"]
    assert found.neurons == (Neuron(1, 2),) * 3
    for repeated in (["L1.U2", "L1.U2"], ["L1.U2@3", "L1.U2@3"]):
        with pytest.raises(NeuronError, match="repeats"):
            NeuronSet.of(repeated)


def test_neurons_are_given_in_many_ways() -> None:
    one, two = Neuron(1, 2), Neuron(0, 4, 7)
    found = NeuronSet((ScoredNeuron(one, 1.0), ScoredNeuron(two, 0.5, position=3)))
    for several in (found, found.members, [one, "L0.E7.U4"], iter(["L1.U2", found[1]])):
        assert as_neurons(several) == (one, two)
    for alone in (one, "L1.U2", found[0]):
        assert as_neurons(alone) == (one,)
    for wrong in (5, [(1, 2)], [None]):
        with pytest.raises(NeuronError, match="not a neuron"):
            as_neurons(wrong)  # type: ignore[arg-type]


def test_files_without_positions_are_read(tmp_path: Path) -> None:
    row = {"layer": 1, "expert": None, "unit": 2, "score": 0.5, "activation": None}
    path = tmp_path / "set.json"
    path.write_text(json.dumps({"schema": "neuronwise.neurons/1", "record": {}, "neurons": [row]}))
    assert NeuronSet.load(path).members == (ScoredNeuron(Neuron(1, 2), 0.5),)


def test_membership_does_not_walk_through_the_set() -> None:
    found = NeuronSet(tuple(ScoredNeuron(Neuron(0, unit), 0.0) for unit in range(1000)))
    compared = []

    class Asked:
        def __hash__(self) -> int:
            return hash(Neuron(0, 999))

        def __eq__(self, other: object) -> bool:
            compared.append(other)
            return other == Neuron(0, 999)

    assert Asked() in found
    assert len(compared) < 10


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
