"""What every form of facts and of photos promises, whatever it is given."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronwise.data.facts import FORMS as FACTS
from neuronwise.data.facts import FactCase
from neuronwise.data.facts.fields import Record, RecordError
from neuronwise.data.photos import FORMS as PHOTOS

# The fields that benchmarks have, so that forms recognize some records, and values that do not belong there.
FIELDS = (
    "prompt", "subject", "target_new", "target_true", "requested_rewrite", "src", "alt", "image", "loc", "relation_id",
    "attribute", "template", "known_id", "case_id", "ground_truth", "rephrase_prompt", "ask", "about", "answer",
)  # fmt: skip
values = st.recursive(
    st.none() | st.integers(-2, 2) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize("name", FACTS)
@given(fields=st.dictionaries(st.sampled_from(FIELDS), values, max_size=8))
def test_a_record_makes_a_case_or_a_reason(name: str, fields: dict[str, object]) -> None:
    form = FACTS[name]
    assert form.recognizes(fields) in (True, False)
    with contextlib.suppress(RecordError):
        assert isinstance(form.case(Record(fields), "1"), FactCase)


@pytest.mark.parametrize("name", PHOTOS)
def test_a_folder_of_another_form_is_not_taken(name: str, tmp_path: Path) -> None:
    form = PHOTOS[name]
    assert form.layout
    assert not form.recognizes(tmp_path)
