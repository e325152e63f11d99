"""Where a fact has its subject, and what is between its prompt and its target."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from PIL import Image

import neuronwise as nw
from neuronwise.answers.answers import ask
from neuronwise.answers.questions import questions_of
from neuronwise.answers.request import answer_ids, forced, joins, requests, target_ids, taught
from neuronwise.data.facts import FactCase
from neuronwise.data.facts.fact import join_is_open, joined, subject_place
from neuronwise.data.facts.fields import template
from neuronwise.edit import EDITORS
from neuronwise.edit.memory.passages import fact_passage


@pytest.mark.parametrize(
    ("text", "subject", "place"),
    [
        ("Romeo lives in Rome, and Rome is in", "Rome", 25),
        ("Romeo lives here", "Rome", 0),
        ("Rome. Romeo", "Rome", 0),
        ("法国的首都是", "法国", 0),
        ("A C++ compiler, unlike C", "C", 23),
        ("A C compiler, unlike C++, is", "C", 2),
        ("Anne lives with Anne-Marie in", "Anne", 0),
        ("Brien met O'Brien in", "Brien", 0),
        ("3 is less than 3.5, and", "3", 0),
        ("राम ने रामायण में", "राम", 0),
        ("Cafe is not Cafe\u0301, but", "Cafe", 0),
        ("罗马。罗马尼亚在", "罗马", 0),
        ("Anne-Marie lives in", "Anne", 0),
        ("Paris is in", "Rome", None),
    ],
)
def test_the_subject_is_the_last_word_of_its_own(text: str, subject: str, place: int | None) -> None:
    assert subject_place(text, subject) == place
    if place is None:
        with pytest.raises(nw.NeuronwiseError):
            nw.Fact(text, subject, "Italy")
    else:
        wanted = text[:place] + "{}" + text[place + len(subject) :]
        assert nw.Fact(text, subject, "Italy").prompt == template(text, subject) == wanted


def test_the_key_is_at_the_subject_s_last_token(tiny_model: Any) -> None:
    fact = nw.Fact("a dog sits on a dog in", "dog", "red")
    passage = fact_passage(tiny_model, fact)
    ids = tiny_model.prepare(prompt=fact.text, chat=False)[0].input_ids
    dog = tiny_model.tokenizer(" dog", add_special_tokens=False)["input_ids"][0]
    assert passage.subject == max(row for row, token in enumerate(ids) if token == dog)


@pytest.mark.parametrize(
    ("prompt", "target", "join", "answer"),
    [
        ("The capital of France is", "Rome", None, " Rome"),
        ("The capital of France is", " Rome", None, " Rome"),
        ("The capital of France is", "Rome \n", None, " Rome"),
        ("The capital of France is", "\nRome", None, "\nRome"),
        ("The capital of France is ", "Rome", None, "Rome"),
        ("The capital of France is ", " Rome", None, "Rome"),
        ("The capital of France is\n", "Rome", None, "Rome"),
        ("The capital of France (", "Rome", None, "Rome"),
        ("法国的首都是", "罗马", None, "罗马"),
        ("法国的首都：", "罗马", None, "罗马"),
        ("フランスの首都は", "ローマ", None, "ローマ"),
        ("เมืองหลวงของฝรั่งเศสคือ", "โรม", None, "โรม"),
        ("프랑스의 수도는", "로마", None, " 로마"),
        ("The capital of France is", "Rome", "", "Rome"),
        ("The capital of France is", " Rome", ": ", ": Rome"),
        ('He calls it "', "Rome", None, "Rome"),
        ('He said "no" and', "Rome", None, " Rome"),
        ("La capitale de l'", "Italie", None, "Italie"),
        ("the dogs'", "house", None, " house"),
        ("It costs $", "5", None, "5"),
        ("5 €", "each", None, " each"),
        ("Jean-", "Paul", None, "Paul"),
        ("Paris -", "Rome", None, " Rome"),
        ("Rome is in Italy", ", not in France", None, ", not in France"),
        ("Rome", "'s mayor", None, "'s mayor"),
        ("法国的首都是:", "罗马", None, "罗马"),
        ("The capital of Japan is", "東京", None, " 東京"),
        ("བོད་ཀྱི་", "ལྷ་ས", None, "ལྷ་ས"),
        ("", "Rome", None, " Rome"),
        ("", "罗马", None, "罗马"),
    ],
)
def test_what_is_between_prompt_and_target(prompt: str, target: str, join: str | None, answer: str) -> None:
    assert joined(prompt, target, join) == answer


def test_a_target_is_taught_as_it_follows_the_prompt(builtin_text: Any) -> None:
    tokenizer = builtin_text.tokenizer
    for prompt, target, join in (
        ("法国的首都是", "罗马", None),
        ("The {} is ", "Rome", None),
        ("The {} is", "Rome", ""),
    ):
        subject = "法国" if "{}" not in prompt else "cat"
        fact = nw.Fact(prompt, subject, target, join=join)
        ids = [*tokenizer(fact.text)["input_ids"], *answer_ids(builtin_text, fact)]
        assert tokenizer.decode(ids) == fact.text + target
        assert forced(builtin_text, fact).output_ids == answer_ids(builtin_text, fact)


def test_behind_a_photo_a_target_follows_the_template(builtin: Any) -> None:
    photo = Image.new("RGB", (64, 64), "brown")
    fact = nw.Fact("What is {}?", "this", "Rome")
    run = forced(builtin, fact, photo)
    assert run.rendered.endswith("assistant\n")
    assert builtin.tokenizer.decode(run.output_ids) == taught(builtin, fact, photo) == "Rome"
    assert forced(builtin, replace(fact, join=" "), photo).output_ids == builtin.tokenizer(" Rome")["input_ids"]


def test_the_record_says_what_was_taught(model: Any) -> None:
    fact = nw.Fact("the {} is", "cat", "red")
    record = nw.fine(model, fact, steps=1, freeze_last=0).record
    assert record["taught"] == [" red"]
    assert nw.Fact(**record["request"]) == fact
    assert torch.tensor(answer_ids(model, fact)).numel() == 1


@pytest.mark.parametrize(
    ("prompt", "target", "open_"),
    [
        ("The capital of France is", "Rome", False),
        ("The capital of France:", "Rome", True),
        ('He calls it "', "Rome", True),
        ("The capital (", "Rome", True),
        ("The capital:\n", "Rome", False),
        ("The capital: ", "Rome", False),
        ("The capital:", " Rome", False),
        ("法国的首都是", "Rome", True),
        ("法国的首都是", "罗马", False),
        ("法国的首都：", "罗马", False),
        ("法国的首都:", "罗马", True),
        ("The capital of Japan is", "東京", True),
        ("Rome is in Italy", ", not France", False),
        ("राजधानी है दिल्ली", "Rome", False),
        ("", "Rome", False),
    ],
)
def test_what_spelling_leaves_open(prompt: str, target: str, open_: bool) -> None:
    assert join_is_open(prompt, target) == open_


OPEN = ("the {}:", 'the {} "', "the {} (", "the {} 猫", "the {}?", "the {} -")


@pytest.mark.parametrize("prompt", OPEN)
def test_where_it_is_open_the_model_decides(builtin_text: Any, prompt: str) -> None:
    model = builtin_text

    def likely(way: str) -> float:
        tokenizer, text = model.tokenizer, prompt.replace("{}", "cat")
        head = model.prepare(prompt=text, chat=False)[0].input_ids
        whole = [*head, *target_ids(model, "red", text, way)]
        assert tokenizer.decode(whole[len(head) :]).strip() == "red"
        with torch.no_grad():
            said = model.module(torch.tensor([whole])).logits[0].log_softmax(-1)
        return sum(float(said[row - 1, whole[row]]) for row in range(len(head), len(whole)))

    bare, apart = likely(""), likely(" ")
    assert bare != apart
    expected = "" if bare > apart else " "
    fact = nw.Fact(prompt, "cat", "red")
    assert [one.join for one in requests(model, fact)] == [expected]
    assert joins(model, [(model.prepare(prompt=fact.text, chat=False)[0], "red", None)]) == [expected]


def test_what_the_model_decides_is_taught_and_measured(builtin_text: Any) -> None:
    model, fact = builtin_text, nw.Fact("{}的首都是", "法国", "Rome")
    (decided,) = requests(model, fact)
    expected = decided.join
    edit = nw.fine(model, fact, steps=1)
    assert edit.record["taught"] == [f"{expected}Rome"]
    assert nw.Fact(**edit.record["request"]).answer == f"{expected}Rome"
    case = FactCase("1", fact, paraphrases=("The capital is", "The capital:"))
    before = ask(model, questions_of(case), free=False)
    ids = target_ids(model, "Rome", fact.text, expected)
    assert list(before[0].readings["Rome"].ids) == ids == answer_ids(model, replace(fact, join=expected))
    with edit.applied(model):  # whatever the edited model finds, the same tokens are measured
        after = ask(model, questions_of(case), before, free=False)
    assert [one.readings["Rome"].ids for one in after] == [one.readings["Rome"].ids for one in before]
    other = " " if expected == "" else ""
    assert nw.fine(model, replace(fact, join=other), steps=1).record["taught"] == [f"{other}Rome"]


@pytest.mark.parametrize("name", list(EDITORS))
def test_every_editor_teaches_what_the_model_decides(make: Any, name: str) -> None:
    model = make("gpt2")
    asked = nw.Fact("the {}.", "cat", "zi")
    assert requests(model, asked) == [replace(asked, join="")]  # the vocabulary has no other
    known = {field.name for field in fields(EDITORS[name].settings)}
    quick = {"steps": 2, "freeze_last": 0, "texts": 4, "text_tokens": 8}
    edit = EDITORS[name].function(model, asked, **{key: value for key, value in quick.items() if key in known})
    assert edit.record["taught"] == ["zi"]
