"""What a chat template makes of a prompt or a conversation: nothing that was asked is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

import neuronwise as nw
from neuronwise.errors import PromptError
from placing import placing
from processors import BUILDERS

TYPED = (  # LLaVA's: reads typed parts, and prints nothing of a text
    "{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] | selectattr('type', 'equalto', 'image') %}"
    "<image>\n{% endfor %}{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ c['text'] }}"
    "{% endfor %} {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
TEXTS = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] | trim }} {% endfor %}"
    "{% if add_generation_prompt %}assistant:{% if thinking %} think{% endif %}{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TEXTS
)
ONLY_LAST = "{% for m in messages %}{% if loop.last %}{{ m['content'] }}{% endif %}{% endfor %} assistant:"
SYSTEM, QUESTION = {"role": "system", "content": "the blue cat"}, {"role": "user", "content": "what is here"}


@pytest.fixture
def templated(model: Any) -> Callable[[str], Any]:
    """``templated(source)``: the tiny model with a chat template."""

    def with_template(source: str) -> Any:
        model.tokenizer.chat_template = source
        return model

    return with_template


def ask(model: Any, *arguments: Any, **options: Any) -> nw.Run:
    return model.run(*arguments, max_new_tokens=0, **options)


@pytest.mark.parametrize("source", [TYPED, TEXTS])
def test_a_template_of_either_form_holds_the_prompt(templated: Any, source: str) -> None:
    model = templated(source)
    first, second = ask(model, prompt="the blue cat"), ask(model, prompt="the cat blue blue")
    assert first.prompted.input_ids != second.prompted.input_ids
    ids = model.tokenizer("user: the blue cat assistant:", add_special_tokens=False)["input_ids"]
    assert first.prompted.input_ids == ids
    assert "the blue cat" in first.rendered


@pytest.mark.parametrize("text_only", [TYPED, TEXTS])
def test_a_processor_s_template_holds_it_too(text_only: str) -> None:
    model, _ = placing("llava")
    model.processor.chat_template = text_only
    try:
        runs = [ask(model, prompt=prompt) for prompt in ("what is here", "is here what what")]
        seen = ask(model, Image.new("RGB", (40, 40)), "what is here")
    finally:
        model.processor.chat_template = None
    assert [run.rendered.count("what") for run in runs] == [1, 2]
    assert "here" in seen.rendered
    assert seen.has_image_tokens


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ '' }}", "renders nothing"),
        ("the cat is here", "leaves out the text of the user"),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "the user"),
        ("{% for m in messages %}{{ m['content'][:3] }}{% endfor %}", "the user"),
        ("{{ raise_exception('Ask\nme later') }}", "cannot render this: Ask me later"),
        ("{{ messages[0].content + 1 }}", "cannot render this"),
        ("{{ messages", "cannot render this"),
    ],
)
def test_a_template_that_fails_is_one_sentence(templated: Any, source: str, said: str) -> None:
    with pytest.raises(PromptError, match=said) as raised:
        ask(templated(source), prompt="the blue cat")
    assert "\n" not in str(raised.value)


def test_a_conversation(templated: Any) -> None:
    answer = {"role": "assistant", "content": "the cat"}
    run = ask(templated(TEXTS), messages=[SYSTEM, QUESTION, answer, QUESTION])
    wanted = "system: the blue cat user: what is here assistant: the cat user: what is here assistant:"
    assert run.prompted.input_ids == run.model.tokenizer(wanted, add_special_tokens=False)["input_ids"]
    assert (run.prompt, run.chat) == ("what is here", True)
    record = nw.locate(run.model, run, target=5, top=1).record
    assert [one["content"] for one in record["messages"]] == [
        "the blue cat",
        "what is here",
        "the cat",
        "what is here",
    ]
    assert record["rendered"] == run.rendered


def test_the_model_goes_on_with_an_answer_that_is_begun(templated: Any) -> None:
    run = ask(templated(TEXTS), messages=[QUESTION, {"role": "assistant", "content": "the cat"}])
    wanted = "user: what is here assistant: the cat"
    assert run.prompted.input_ids == run.model.tokenizer(wanted, add_special_tokens=False)["input_ids"]


def test_options_of_the_template(templated: Any) -> None:
    model = templated(TEXTS)
    plain, thinking = (ask(model, prompt="the cat", template=given) for given in (None, {"thinking": True}))
    assert len(thinking.prompted.input_ids) > len(plain.prompted.input_ids)
    assert nw.locate(model, thinking, target=5, top=1).record["template"] == {"thinking": True}
    for wrong in ({"enable_thinking": False}, {"messages": []}, {"tokenize": True}):
        with pytest.raises(PromptError, match="reads no option"):
            ask(model, prompt="the cat", template=wrong)
    with pytest.raises(PromptError, match="no effect"):
        ask(model, prompt="the cat", template={"thinking": True}, chat=False)


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        (NO_SYSTEM, {"messages": [SYSTEM, QUESTION]}, "System role not supported"),
        (ONLY_LAST, {"messages": [SYSTEM, QUESTION]}, "leaves out the text of the system: 'the blue cat'"),
        (TEXTS, {"messages": [SYSTEM]}, "no question"),
        (TEXTS, {"messages": []}, "no question"),
        (TEXTS, {"messages": [QUESTION], "prompt": "the"}, "not both"),
        (TEXTS, {"messages": [QUESTION], "chat": False}, "chat"),
        (TEXTS, {"messages": [{"role": "user"}]}, "no question"),
        (TEXTS, {"messages": [{"content": "the cat"}]}, "A message is"),
        (TEXTS, {"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "content of a message"),
        (TEXTS, {"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "places for 1 photo"),
    ],
)
def test_conversations_that_cannot_be_asked(templated: Any, source: str, options: Any, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        ask(templated(source), **options)


def test_a_conversation_needs_a_template(model: Any) -> None:
    with pytest.raises(PromptError, match="no chat template"):
        ask(model, messages=[QUESTION])


def test_marks_that_are_doubled_are_noted(templated: Any) -> None:
    model = templated(TEXTS)
    with pytest.warns(UserWarning, match="the chat template writes its own"):
        run = ask(model, prompt="<s> the cat")
    assert "<s>" in nw.locate(model, run, target=5, top=1).record["note"]
    assert ask(model, prompt="the cat").prompted.note is None


def photos(count: int) -> list[Image.Image]:
    chance = np.random.default_rng(0)
    return [Image.fromarray(chance.integers(0, 255, (72, 72, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize(
    "name", ["llava", "gemma3", "idefics3", "internvl", "mistral3", "mplug_owl2", "minigpt4_patches"]
)
def test_each_of_several_photos_is_read_in_its_place(name: str) -> None:
    model, _ = placing(name)
    one, two = photos(2)
    both, twice = (ask(model, given, "what is here", chat=False) for given in ([one, two], [one, one]))
    assert both.prompted.input_ids == twice.prompted.input_ids
    positions = both.image_positions.tolist()
    here, there = (run.rows(positions).dense[2] for run in (both, twice))
    half = len(positions) // 2
    assert here[:half].allclose(there[:half], atol=1e-5)
    assert not here[half:].allclose(there[half:], atol=1e-3)
    assert (both.image, len(both.images)) == (None, 2)
    with pytest.raises(PromptError, match="2 images"):
        nw.heatmap(model, both, [nw.Neuron(0, 0)])
    assert nw.find(model, both, targets=5, method="contribution", top=3).concepts[0].heat is None


def test_photos_in_a_conversation() -> None:
    model, _ = placing("llava")
    model.processor.chat_template = TYPED
    one, two = photos(2)
    message = {"role": "user", "content": [{"type": "text", "text": "what"}, {"type": "image", "image": one}]}
    try:
        placed = ask(model, messages=[message, {"role": "assistant", "content": "is"}, {**message, "role": "user"}])
        given = ask(model, [one, two], messages=[QUESTION])
    finally:
        model.processor.chat_template = None
    assert placed.rendered.count("<image>") == 2
    assert len(placed.images) == 2
    assert len(given.image_positions) == 2 * len(ask(model, one, "what", chat=False).image_positions)


@pytest.mark.parametrize("name", ["blip-2", "instructblip", "kosmos-2"])
def test_a_processor_of_one_photo_says_so(name: str) -> None:
    model, _ = placing(name)
    with pytest.raises(PromptError, match="takes one photo, not 2"):
        ask(model, photos(2), "what is here", chat=False)
    assert BUILDERS[name]
