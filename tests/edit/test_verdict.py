"""The verdict on an edit: plain passes as oracle; edits that hold, fail and hurt by construction."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import neuronwise as nw
from edits import same, weights
from neuronwise.answers.naming import names
from neuronwise.data.facts import Fact
from neuronwise.edit import EDITORS, Delta, fine_tune, suppress, swap, verdict, without_verdict
from neuronwise.edit.record import edited
from neuronwise.edit.suppress import SuppressSettings
from neuronwise.edit.verdict import GIVEN, OPENINGS, TEXT, complaints
from neuronwise.errors import EditError
from speakers import PHOTO, given, speaker

FACT = Fact("the capital of {} is", "France", "dog house")
OTHER = Fact("the capital of {} is", "cat", "red")


@pytest.fixture
def model(tiny_tokenizer: Any) -> nw.Model:
    return speaker("llama", tiny_tokenizer)


def plain(model: nw.Model, prompt: str, target: str) -> tuple[float, int, str]:
    """p of the target, the worst rank of its tokens, and the greedy continuation, one token at a time."""
    ids = model.tokenizer(prompt)["input_ids"]
    p, rank = 1.0, 1
    forced = list(ids)
    for token in model.tokenizer(f" {target}", add_special_tokens=False)["input_ids"]:
        chances = model.module(input_ids=torch.tensor([forced])).logits[0, -1].softmax(-1)
        order = chances.argsort(descending=True).tolist()
        p, rank = p * float(chances[token]), max(rank, order.index(token) + 1)
        forced.append(token)
    return p, rank, greedy(model, prompt, len(forced) - len(ids) + 3)


def greedy(model: nw.Model, prompt: str, count: int) -> str:
    ids = list(model.tokenizer(prompt)["input_ids"])
    start = len(ids)
    for _ in range(count):  # no token ends it
        ids.append(int(model.module(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return model.tokenizer.decode(ids[start:], skip_special_tokens=True)


def perplexity(model: nw.Model) -> float:
    ids = torch.tensor([model.tokenizer(" ".join(TEXT.split()[:32]))["input_ids"]])
    logits = model.module(input_ids=ids).logits[0, GIVEN - 1 : -1]
    return float(torch.nn.functional.cross_entropy(logits, ids[0, GIVEN:]).exp())


def sentences(make: Any) -> tuple[nw.Edit, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        edit = make()
    return edit, [str(one.message) for one in caught if str(one.message).startswith("The edit")]


def test_it_says_what_plain_passes_say(model: nw.Model) -> None:
    with torch.no_grad():
        before = [plain(model, fact.text, fact.target_new) for fact in (FACT, OTHER)]
        texts, perplexed = [greedy(model, prompt, 5) for prompt in OPENINGS], perplexity(model)
        held = weights(model)
        edit = nw.fine(model, [FACT, OTHER], freeze_last=1, steps=4, rate=0.05)
        assert same(held, weights(model))
        verdict = edit.record["verdict"]
        with edit.applied(model):
            after = [plain(model, fact.text, fact.target_new) for fact in (FACT, OTHER)]
            assert verdict["perplexity"] == pytest.approx(perplexity(model), rel=1e-4)
            assert [row["after"] for row in verdict["openings"]] == [greedy(model, prompt, 5) for prompt in OPENINGS]
    assert verdict["perplexity_before"] == pytest.approx(perplexed, rel=1e-4)
    assert [row["before"] for row in verdict["openings"]] == texts
    assert verdict["same"] == sum(row["before"] == row["after"] for row in verdict["openings"])
    for row, fact, first, then in zip(verdict["targets"], (FACT, OTHER), before, after, strict=True):
        assert (row["prompt"], row["target"]) == (fact.text, fact.target_new)
        assert (row["p_before"], row["p"]) == (pytest.approx(first[0], rel=1e-3), pytest.approx(then[0], rel=1e-3))
        assert (row["rank_before"], row["rank"]) == (first[1], then[1])
        assert (row["says_before"], row["says"]) == (first[2], then[2])
        assert row["holds"] == (then[1] == 1)
    assert verdict["holds"] == all(row["holds"] for row in verdict["targets"])


def test_an_edit_that_holds_has_no_complaint_and_one_that_fails_has(model: nw.Model) -> None:
    free = {"mode": "M", "norm_constraint": None, "rate": 1e-2}
    edit, said = sentences(lambda: fine_tune(model, FACT, steps=60, **free))
    verdict = edit.record["verdict"]
    assert verdict["holds"]
    assert verdict["targets"][0]["says"].strip().startswith("dog house")
    assert not [sentence for sentence in said if "fails" in sentence]
    edit, said = sentences(lambda: fine_tune(model, FACT, steps=1, rate=1e-9))
    assert not edit.record["verdict"]["holds"]
    assert not edit.record["verdict"]["hurts"]
    (sentence,) = said
    assert sentence.startswith("The edit fails for 1 of 1 targets: 'the capital of France is' → 'dog house' (p ")


def blown_up(model: nw.Model, size: float) -> nw.Edit:
    """An edit that writes a large random vector whatever is read."""
    delta = Delta(1, model.blocks[1].dense[0].path, size * torch.randn(32, 48), torch.arange(48))
    return edited("noise", model, SuppressSettings(), [FACT], [delta])


def test_a_model_that_is_broken_is_said_to_be(model: nw.Model) -> None:
    edit, said = sentences(lambda: blown_up(model, 100.0))
    assert edit.record["verdict"]["hurts"]
    assert any(sentence.startswith("The edit hurts the model: perplexity of a neutral text") for sentence in said)
    held = weights(model)
    edit, said = sentences(lambda: blown_up(model, 5e37))
    assert edit.record["verdict"]["error"]
    assert (edit.record["verdict"]["holds"], edit.record["verdict"]["hurts"]) == (False, True)
    assert said[0].startswith("The edit could not be judged: ")
    assert same(held, weights(model))


def test_the_model_before_edits_is_asked_what_is_neutral_once(model: nw.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    plainly = verdict.neutral_perplexity
    asked: list[float] = []
    monkeypatch.setattr(verdict, "neutral_perplexity", lambda model: asked.append(plainly(model)) or asked[-1])

    def judged() -> tuple[float, float]:
        record = blown_up(model, 0.1).record["verdict"]
        return record["perplexity_before"], record["perplexity"]

    first = judged()
    assert asked == [*first]
    assert judged()[0] == first[0]
    assert len(asked) == 3
    with blown_up(model, 100.0).applied(model):
        assert judged()[0] == asked[-2] != first[0]
    model.module.lm_head.weight.data.neg_()  # torch does not count it
    assert judged()[0] == asked[-2] != first[0]


def test_each_reason_alone_is_a_complaint() -> None:
    row = {"prompt": "p", "target": "t", "p": 0.5, "rank": 2, "says": None, "holds": True}
    sound = {"targets": [row] * 5, "hurts": False, "perplexity_before": 2.0, "perplexity": 2.1, "same": 9}
    assert complaints(sound) == []
    (sentence,) = complaints({**sound, "targets": [{**row, "holds": False}] * 5})
    assert sentence.startswith("The edit fails for 5 of 5 targets: 'p' → 't' (p 0.5, rank 2); ")
    assert sentence.endswith("; and 2 more.")
    (sentence,) = complaints({**sound, "hurts": True, "same": 4})
    assert sentence.endswith("2.0 → 2.1; 4 of 10 openings go on as before.")


def test_none_is_given_where_none_is_wanted(model: nw.Model) -> None:
    with without_verdict():
        edit, said = sentences(lambda: nw.fine(model, FACT, freeze_last=1, steps=1))
    assert not said
    assert "verdict" not in edit.record
    again = nw.fine(model, FACT, freeze_last=1, steps=1)
    assert "verdict" in again.record
    assert again.fingerprint == edit.fingerprint


def test_words_of_captions_are_judged_too(tiny_tokenizer: Any) -> None:
    model, run, word = given("llava", tiny_tokenizer)
    edit, said = sentences(lambda: swap(model, run, word, "dog", top=30, step=0.05, growth=1.2, cap=20.0, spare=None))
    assert edit.record["success"]
    assert edit.record["verdict"]["holds"]
    assert not [sentence for sentence in said if "fails" in sentence]
    edit, said = sentences(lambda: swap(model, run, word, "dog", steps=1, step=1e-6, top=1, beta=0.0, fewer=0))
    row = edit.record["verdict"]["targets"][0]
    position = run.concept(word).occurrences[0].positions[0]
    with edit.applied(model), torch.no_grad():
        chances = model.forward(run.forced_inputs(position), rows=[-1])[0, -1].softmax(-1)
        chance = float(chances[model.tokenizer(" dog", add_special_tokens=False)["input_ids"][0]])
    assert row["p"] == pytest.approx(chance, rel=1e-3)
    assert row["rank"] == 1 + int((chances > chance + 1e-7).sum())
    assert any("fails" in sentence for sentence in said)


def test_a_word_that_stays_is_a_failure_of_suppression(tiny_tokenizer: Any) -> None:
    model, run, word = given("llava", tiny_tokenizer)
    for top in (1, 100):
        edit, said = sentences(lambda top=top: suppress(model, run, word, top=top, method="contribution", options={}))
        gone = not any(names(text, word) for text in edit.record["texts"])
        assert edit.record["verdict"]["holds"] == gone == edit.record["success"]
        assert any("fails" in sentence for sentence in said) == (not gone)


def test_a_photo_handed_to_fine_is_asked_about(tiny_tokenizer: Any) -> None:
    model = speaker("llava", tiny_tokenizer)
    edit = nw.fine(model, FACT, image=PHOTO, freeze_last=1, steps=2)
    run = model.run(PHOTO, FACT.text, max_new_tokens=5)
    assert edit.record["verdict"]["targets"][0]["says_before"].strip() == run.text


@pytest.mark.parametrize("name", EDITORS)
def test_facts_that_contradict_are_refused(name: str, model: nw.Model) -> None:
    one, other = Fact("the capital of {} is", "France", "dog"), Fact("the capital of France is ", "France", "cat")
    with pytest.raises(EditError, match="contradict: 'the capital of France is ' cannot be both 'dog' and 'cat'"):
        EDITORS[name].function(model, [one, OTHER, other])
