"""The shipped facts: their form, that their probes ask what they should, and that the built-in model knows them."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest

from neuronwise.data.facts import FactCase, load_facts
from neuronwise.data.facts.load import SHIPPED_FILE

PORTABILITY = {"Subject_Aliasing", "Reasoning", "Logical_Generalization"}
LOCALITY = {"Relation_Specificity", "Forgetfulness", "Neighborhood"}


@pytest.fixture(scope="module")
def cases() -> tuple[FactCase, ...]:
    return load_facts("shipped").cases


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return json.loads(SHIPPED_FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def relations(records: list[dict[str, Any]]) -> dict[str, str]:
    return {record["id"]: record["relation"] for record in records}


def test_enough_facts_of_enough_relations(cases: tuple[FactCase, ...], relations: dict[str, str]) -> None:
    assert list(relations) == [case.id for case in cases]
    assert len(relations) == len(cases) >= 60
    counts = Counter(relations.values())
    assert len(counts) >= 8
    assert min(counts.values()) >= 5


def test_facts_are_unique(cases: tuple[FactCase, ...], relations: dict[str, str]) -> None:
    assert len({case.fact.text for case in cases}) == len(cases)
    assert len({(relations[case.id], case.fact.subject) for case in cases}) == len(cases)


def test_records_have_the_published_fields_and_nothing_is_lost(
    records: list[dict[str, Any]], cases: tuple[FactCase, ...]
) -> None:
    for record, case in zip(records, cases, strict=True):
        assert set(record["portability"]) <= PORTABILITY
        assert set(record["locality"]) <= LOCALITY
        assert case.fact.text == record["prompt"]
        assert case.fact.target_true == record["ground_truth"][0]
        assert list(case.paraphrases) == record["rephrase"]
        for published, read in (("portability", case.portability), ("locality", case.locality)):
            written = {
                kind.lower(): [probe["prompt"] for probe in probes] for kind, probes in record[published].items()
            }
            assert {kind: [probe.prompt for probe in probes] for kind, probes in read.items()} == written


def test_all_kinds_of_probes_are_there(cases: tuple[FactCase, ...]) -> None:
    for case in cases:
        assert len(case.paraphrases) >= 3, case.id
        assert case.portability["reasoning"], case.id
        assert len(case.locality["relation_specificity"]) >= 2, case.id
        assert len(case.locality["neighborhood"]) >= 4, case.id
    assert {kind for case in cases for kind in case.portability} == {kind.lower() for kind in PORTABILITY}
    assert {kind for case in cases for kind in case.locality} == {kind.lower() for kind in LOCALITY}


def test_prompts_hold_their_subject_and_end_before_the_answer(cases: tuple[FactCase, ...]) -> None:
    for case in cases:
        subject = case.fact.subject.lower()
        own = [case.fact.text, *case.paraphrases]
        own += [probe.prompt for probe in case.portability["reasoning"]]
        for kind in ("relation_specificity", "forgetfulness"):
            own += [probe.prompt for probe in case.locality.get(kind, ())]
        for prompt in own:
            assert subject in prompt.lower(), (case.id, prompt)
        others = [probe.prompt for probes in case.portability.values() for probe in probes]
        others += [probe.prompt for probes in case.locality.values() for probe in probes]
        prompts = [case.fact.text, *case.paraphrases, *others]
        assert len(set(prompts)) == len(prompts), case.id
        for prompt in prompts:
            assert prompt == prompt.strip(), (case.id, prompt)
            assert prompt[-1].isalnum(), (case.id, prompt)


def test_answers_tell_an_edited_model_from_another(cases: tuple[FactCase, ...]) -> None:
    for case in cases:
        new, true = case.fact.target_new, case.fact.target_true
        assert true is not None
        assert new.lower() != true.lower(), case.id
        for probe in case.portability.get("subject_aliasing", ()):
            assert probe.answers == (new,), case.id
        for kind in ("reasoning", "logical_generalization"):
            for probe in case.portability.get(kind, ()):
                assert probe.answers, case.id
                assert true not in probe.answers, (case.id, probe.prompt)
        for probes in case.locality.values():
            for probe in probes:
                assert probe.answers, case.id
                assert new not in probe.answers, (case.id, probe.prompt)
        for probe in case.locality["neighborhood"]:
            assert case.fact.subject.lower() not in probe.prompt.lower(), (case.id, probe.prompt)


def test_articles_fit(cases: tuple[FactCase, ...]) -> None:
    """A prompt that ends in "a" or "an" is followed by an answer that takes it, old and new."""
    for case in cases:
        asked = [(prompt, (case.fact.target_new, str(case.fact.target_true))) for prompt in case.paraphrases]
        asked.append((case.fact.text, (case.fact.target_new, str(case.fact.target_true))))
        for groups in (case.portability, case.locality):
            asked += [(probe.prompt, probe.answers) for probes in groups.values() for probe in probes]
        for prompt, answers in asked:
            article = prompt.rsplit(" ", 1)[1]
            if article in ("a", "an"):
                for answer in answers:
                    assert (article == "an") == (answer[0].lower() in "aeiou"), (case.id, prompt, answer)


@pytest.mark.builtin
def test_the_builtin_model_knows_them(builtin_text: Any, cases: tuple[FactCase, ...]) -> None:
    """A fixed sample: each true answer is argmax at every token and is what greedy generation says first."""
    import torch

    from neuronwise.model.run import Run

    for case in random.Random(0).sample(cases, 15):
        answer = f" {case.fact.target_true}"
        ids = builtin_text.tokenizer(answer, add_special_tokens=False)["input_ids"]
        read = builtin_text.run(prompt=case.fact.text, max_new_tokens=0, chat=False)
        inputs = Run(builtin_text, read.prompted, ids, []).forced_inputs()
        with torch.no_grad():
            logits = builtin_text.module(**inputs).logits[0, -len(ids) - 1 : -1]
        assert logits.argmax(-1).tolist() == ids, case.id
        said = builtin_text.run(prompt=case.fact.text, max_new_tokens=len(ids) + 1, chat=False).text
        assert said.startswith(answer.strip()), (case.id, said)
