"""Figures by hand, from answers that no model gave."""

from __future__ import annotations

import json
from math import exp, log

import pytest

from neuronwise.answers.forced import Reading
from neuronwise.data.facts import Fact, FactCase, Probe
from neuronwise.measure import Answered, CaseAnswers, Question, figures, means, questions_of


def reading(ids: str, best: str, p: float = 0.5) -> Reading:
    return Reading(tuple(map(ord, ids)), tuple(map(ord, best)), log(p))


def answered(
    part: str, said: str | None, new: str | None = None, old: str | None = None, **readings: Reading
) -> Answered:
    """Readings by answer, ``own`` for the model's own; those beside the targets are the answers that count."""
    beside = (new, old) if part.startswith("locality") else ()
    answers = tuple(name for name in readings if name != "own" and name not in beside)
    if part in ("success", "generality"):
        answers = answers[:1]
    found = {"" if name == "own" else name: value for name, value in readings.items()}
    return Answered(Question(part, "?", answers, new, old), found, said)


def test_success_and_generality_under_both_protocols() -> None:
    after = [
        answered("success", " Rome is", Rome=reading("ab", "ab")),
        answered("generality", " Rom", Rome=reading("ab", "ax")),
        answered("generality", " Rome", Rome=reading("ab", "ab")),
    ]
    assert figures(after) == {
        "success_forced": 1, "success_free": 1, "generality_forced": 0.75, "generality_free": 0.5,
    }  # fmt: skip


def test_any_answer_counts_for_portability_and_kinds_weigh_the_same() -> None:
    after = [
        answered("portability_reasoning", " Latin", Italian=reading("abcd", "abcx"), Latin=reading("ab", "xb")),
        answered("portability_reasoning", " no", Italian=reading("ab", "xy")),
        answered("portability_subject_aliasing", " Rome", Rome=reading("ab", "ab")),
    ]
    found = figures(after)
    assert found["portability_reasoning_forced"] == pytest.approx(0.375)
    assert found["portability_reasoning_free"] == 0.5
    assert found["portability_forced"] == pytest.approx((0.375 + 1) / 2)
    assert found["portability_free"] == 0.75
    # The released code asks for the first answer alone.
    assert found["portability_reasoning_first_forced"] == pytest.approx((0.75 + 0) / 2)
    assert found["portability_first_forced"] == pytest.approx((0.375 + 1) / 2)


def test_the_first_answer_alone_may_be_the_worse_one() -> None:
    found = figures([answered("portability_reasoning", " no", Italian=reading("ab", "ax"), Latin=reading("ab", "ab"))])
    assert (found["portability_forced"], found["portability_first_forced"]) == (1, 0.5)


def test_locality_compares_with_before_and_not_with_the_truth() -> None:
    before = [
        answered(
            "locality_relation_specificity", " Euro", "Rome", Euro=reading("abcd", "axcy"), Rome=reading("r", "z")
        ),
        answered("locality_relation_specificity", " Europe", "Rome", own=reading("ef", "ef"), Rome=reading("r", "z")),
        answered("locality_forgetfulness", " same", own=reading("st", "st")),
    ]
    after = [
        answered(
            "locality_relation_specificity", " Rome!", "Rome", Euro=reading("abcd", "abcy"), Rome=reading("r", "r")
        ),
        answered("locality_relation_specificity", " Europe", "Rome", own=reading("ef", "ef"), Rome=reading("r", "e")),
        answered("locality_forgetfulness", " other", own=reading("st", "sx")),
    ]
    found = figures(after, before)
    assert found["locality_relation_specificity_forced"] == (0.75 + 1) / 2
    assert found["locality_relation_specificity_free"] == 0.5
    assert found["locality_forgetfulness_forced"] == 0.5
    assert found["locality_forced"] == (0.875 + 0.5) / 2
    assert found["locality_free"] == 0.25
    assert found["overediting_forced"] == found["overediting_free"] == 0.5
    assert found["unchanging_forced"] == found["unchanging_free"] == 0.5
    assert not any(name.startswith("locality") for name in figures(after))


def test_counterfact_success_and_magnitude() -> None:
    near = "locality_neighborhood"
    after = [
        answered("success", None, "Rome", "Paris", Rome=reading("a", "a", 0.7), Paris=reading("b", "a", 0.2)),
        answered("generality", None, "Rome", "Paris", Rome=reading("a", "b", 0.1), Paris=reading("b", "b", 0.4)),
        answered("generality", None, "Rome", "Paris", Rome=reading("a", "b", 0.5), Paris=reading("b", "b", 0.2)),
        answered(near, None, "Rome", "Paris", Rome=reading("a", "b", 0.1), Paris=reading("b", "b", 0.4)),
        answered(near, None, "Rome", "Paris", Rome=reading("a", "b", 0.5), Paris=reading("b", "b", 0.4)),
    ]  # fmt: skip
    found = figures(after)
    assert (found["efficacy_success"], found["paraphrase_success"], found["neighborhood_success"]) == (1, 0.5, 0.5)
    assert found["efficacy_magnitude"] == pytest.approx(0.5)
    assert found["paraphrase_magnitude"] == pytest.approx((-0.3 + 0.3) / 2)
    assert found["neighborhood_magnitude"] == pytest.approx((0.3 - 0.1) / 2)
    assert "success_free" not in found


def test_another_fact_is_unchanged_when_all_its_tokens_are() -> None:
    before = [answered("others", None, Paris=reading("abc", "abc")), answered("others", None, Oslo=reading("ab", "ax"))]
    after = [answered("others", None, Paris=reading("abc", "abx")), answered("others", None, Oslo=reading("ab", "ax"))]
    assert figures(after, before) == {"others_unchanged_forced": 0.5}


def test_a_case_asks_every_question_with_what_is_read_beside_it() -> None:
    case = FactCase(
        "1",
        Fact("The capital of {} is", "France", "Rome", "Paris"),
        ("France's capital is",),
        {"reasoning": (Probe("They speak", ("Italian", "Latin")), Probe("nothing follows"))},
        {
            "relation_specificity": (Probe("The currency of France is", ("euro", "franc")), Probe("France lies in")),
            "neighborhood": (Probe("The capital of Lyon is", ("Paris",)),),
            "forgetfulness": (Probe("France has", ("Paris",)),),
        },
    )
    read = {question.prompt: (question.part, question.read) for question in questions_of(case)}
    assert read == {
        "The capital of France is": ("success", ("Rome", "Paris")),
        "France's capital is": ("generality", ("Rome", "Paris")),
        "They speak": ("portability_reasoning", ("Italian", "Latin")),
        "The currency of France is": ("locality_relation_specificity", ("euro", "Rome")),
        "France lies in": ("locality_relation_specificity", ("", "Rome")),
        "The capital of Lyon is": ("locality_neighborhood", ("Paris", "Rome")),
        "France has": ("locality_forgetfulness", ("Paris",)),
    }


def test_a_photo_is_asked_about_in_three_ways() -> None:
    case = FactCase("1", Fact("{} is", "Rex", "red", image="dog.jpg"), ("The color of Rex is",))
    asked = {question.part: (question.prompt, question.image) for question in questions_of(case)}
    assert asked == {
        "success": ("Rex is", "dog.jpg"),
        "generality": ("The color of Rex is", "dog.jpg"),
        "success_text": ("Rex is", None),
        "success_image": ("The object in the photo is", "dog.jpg")
        if "The the" not in asked["success_image"][0]
        else None,
    }


def test_answers_survive_json_to_the_last_digit() -> None:
    answers = CaseAnswers((answered("success", " Rome", Rome=reading("ab", "ax", 1 / 3)),), ("a text",))
    assert CaseAnswers.from_dict(json.loads(json.dumps(answers.to_dict()))) == answers
    assert exp(answers.answers[0].readings["Rome"].log_prob) == pytest.approx(1 / 3)


def test_means_are_over_the_cases_that_have_the_figure() -> None:
    assert means([{"a": 1.0, "b": 0.5}, {"a": 0.0}]) == {"a": 0.5, "b": 0.5}
