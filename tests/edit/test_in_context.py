"""What an edit in context puts before prompts, and how such edits add up, are saved and meet others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import families
import neuronwise as nw
from neuronwise.answers.answers import ask
from neuronwise.answers.questions import Question
from neuronwise.data.facts import Fact
from neuronwise.edit import in_context, load_edit, rome
from neuronwise.errors import EditError, MethodError
from neuronwise.model.model import Model

FRANCE = Fact("the capital of {} is", "France", "house")
CAT = Fact("{} sits on the", "cat", "red")


@pytest.fixture
def model(tiny_tokenizer: Any) -> Model:
    return Model(families.tiny("llama")[0], tiny_tokenizer, name="llama")


def read(model: Model, prompt: str = "the dog") -> str:
    return model.decode_ids(model.prepare(prompt=prompt, chat=False)[0].input_ids)


def test_the_fact_is_read_before_the_prompt_as_in_easyedit(model: Model) -> None:
    edit = in_context(model, FRANCE)
    plain = read(model)
    published = f"New Fact: {FRANCE.text} {FRANCE.target_new}\nPrompt: the dog"  # evaluate.py: compute_icl_edit_quality
    ids = model.tokenizer(published)["input_ids"]
    with edit.applied(model):
        prompted, _ = model.prepare(prompt="the dog", chat=False)
        assert prompted.input_ids == ids
        assert prompted.prompt == published
        assert model.prepare(prompt="the dog", chat=False, bare=True)[0].prompt == "the dog"
        assert model.run(prompt="the dog", chat=False, max_new_tokens=1).prompted.input_ids == ids
    assert read(model) == plain


def test_answers_of_an_evaluation_are_those_behind_the_fact(model: Model) -> None:
    question = Question("paraphrase", "the dog", ("house",))
    behind = Question("paraphrase", f"New Fact: {FRANCE.text} house\nPrompt: the dog", ("house",))
    (expected,) = ask(model, [behind])
    (plain,) = ask(model, [question])
    with in_context(model, FRANCE).applied(model):
        (found,) = ask(model, [question])
    assert (found.text, found.readings) == (expected.text, expected.readings)
    assert found.readings != plain.readings


def test_the_verdict_is_that_of_the_model_behind_the_fact(model: Model) -> None:
    edit = in_context(model, FRANCE, lead="")
    (row,) = edit.record["verdict"]["targets"]
    behind = nw.Fact(f"New Fact: {FRANCE.text} house\nthe capital of {{}} is", "France", "house")
    (other,) = in_context(model, behind).record["verdict"]["targets"]
    assert row["p"] == pytest.approx(other["p_before"])
    assert row["p"] != row["p_before"]


def test_edits_add_up_and_the_lead_is_read_once(model: Model, tmp_path: Path) -> None:
    one, two = in_context(model, FRANCE), in_context(model, CAT, demonstrations=("the house is red",))
    (one + two).save(tmp_path / "sum")
    text = "New Fact: the capital of France is house\nthe house is red\n\nNew Fact: cat sits on the red\nPrompt: dog"
    with load_edit(tmp_path / "sum").applied(model):
        assert model.prepare(prompt="dog", chat=False)[0].prompt == text
        for edit in (one, two, one + two):
            with pytest.raises(EditError, match="applied already"):
                edit.apply(model)
    one.apply(model)
    two.apply(model)
    assert model.prepare(prompt="dog", chat=False)[0].prompt == text
    one.revert(model)
    two.revert(model)
    assert model.edits == ()


def test_other_editors_read_the_bare_fact(model: Model) -> None:
    """The key of ROME is at the subject of its own prompt, whatever is told before prompts."""
    settings: dict[str, Any] = {"context_templates": (), "v_num_grad_steps": 2}
    alone = rome(model, FRANCE, **settings)
    with in_context(model, CAT).applied(model):
        behind = rome(model, FRANCE, **settings)
    assert alone.fingerprint == behind.fingerprint


def test_a_changed_text_is_damage(model: Model, tmp_path: Path) -> None:
    in_context(model, FRANCE).save(tmp_path / "edit")
    content = (tmp_path / "edit" / "edit.json").read_text(encoding="utf-8")
    (tmp_path / "edit" / "edit.json").write_text(content.replace("Prompt: ", "Prompt; "), encoding="utf-8")
    with pytest.raises(EditError, match="damaged"):
        load_edit(tmp_path / "edit")


def test_a_template_without_a_place_is_refused(model: Model) -> None:
    with pytest.raises(MethodError, match="one place"):
        in_context(model, FRANCE, template="New Fact")
