"""Facts in chat form: taught and measured in the model's chat template, behind a system text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import neuronwise as nw
from neuronwise.answers.answers import ask
from neuronwise.answers.questions import others_of, questions_of
from neuronwise.answers.request import forced, taught
from neuronwise.data.facts import FactCase, Probe, load_facts
from neuronwise.errors import MethodError, PromptError

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
FACT = nw.Fact("the capital of {} is", "France", "red", chat=True, system="the blue cat")
RENDERED = "system: the blue cat user: the capital of France is assistant:"


@pytest.fixture
def chatty(model: Any) -> Any:
    model.tokenizer.chat_template = TEMPLATE
    return model


def test_it_is_taught_and_measured_behind_the_template(chatty: Any) -> None:
    ids = chatty.tokenizer(RENDERED, add_special_tokens=False)["input_ids"]
    red = chatty.tokenizer(" red", add_special_tokens=False)["input_ids"]
    run = forced(chatty, FACT)
    assert run.prompted.input_ids[-len(ids) :] == ids
    assert (taught(chatty, FACT), run.output_ids) == (" red", red)
    edit = nw.fine(chatty, FACT, freeze_last=0, steps=60, rate=0.05)
    assert edit.record["taught"] == [" red"]
    assert nw.Fact(**edit.record["request"]) == replace(FACT, join=" ")  # behind a colon the model decides

    def probability() -> float:
        with torch.no_grad():
            inputs = torch.tensor([run.prompted.input_ids])
            return float(chatty.module(input_ids=inputs).logits[0, -1].softmax(-1)[red[0]])

    case = FactCase("1", FACT, ("France is",), {"reasoning": (Probe("the animal in France", ("cat",)),)})
    asked = [*questions_of(case), *others_of([FACT])]
    assert all((question.chat, question.system) == (True, FACT.system) for question in asked)
    before = probability()
    with edit.applied(chatty):
        assert probability() > max(0.8, before)
        answered = ask(chatty, asked[:1], free=False)[0]
        assert answered.readings["red"].log_prob == pytest.approx(float(torch.tensor(probability()).log()), abs=1e-4)


@pytest.mark.parametrize(("ending", "answer"), [("assistant:", " red"), ("assistant\n", "red"), ("[/INST]", " red")])
def test_the_template_decides_what_is_before_the_target(ending: str, answer: str, chatty: Any) -> None:
    chatty.tokenizer.chat_template = TEMPLATE.replace("assistant:", ending)
    chatty.tokenizer.decode = lambda *_, **__: f"user: the capital of France is {ending}"  # a tokenizer of real text
    assert taught(chatty, FACT) == answer


def test_files_say_so_too(tmp_path: Path) -> None:
    record = {"prompt": "the capital of France is", "subject": "France", "target_new": "red", "chat": True}
    (tmp_path / "a.json").write_text(
        json.dumps([{**record, "system": FACT.system}, record, {**record, "chat": "yes"}, {**record, "chat": False}])
    )
    facts = load_facts(tmp_path / "a.json")
    assert facts.cases[0].fact == FACT
    assert [case.fact.chat for case in facts] == [True, True, False]
    assert "its chat is a str, not true or false" in facts.left_out[0].reason
    assert facts.unread == {}


def test_what_cannot_be_asked_so_is_refused(model: Any, chatty: Any) -> None:
    with pytest.raises(PromptError, match="belongs to a chat"):
        nw.Fact("{} is", "cat", "red", system="x")
    with pytest.raises(PromptError, match="leave chat and system out"):
        nw.Fact("{} is", "cat", "red", image="a.png", chat=True)
    with pytest.raises(PromptError, match="True or False"):
        nw.Fact("{} is", "cat", "red", chat="yes")  # type: ignore[arg-type]
    with pytest.raises(MethodError, match="leave chat out, or use fine"):
        nw.edit.rome(chatty, FACT)
    model.tokenizer.chat_template = None
    with pytest.raises(nw.NeuronwiseError):
        nw.fine(model, FACT)
