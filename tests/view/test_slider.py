"""The slider in notebooks: what Python sends, and what a browser makes of it."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from traitlets import TraitError

import neuronwise as nw
from edits import random_edit
from neuronwise.errors import NeuronError, NeuronwiseError, PromptError
from neuronwise.intervene import mean_ablate, scale
from neuronwise.view.turned import random_beside
from wired import PLANTED, red_square

NEURON = f"L1.U{next(iter(PLANTED))}"
HOSTILE = "</script><img src=x onerror=alert(1)>"


def kinds(shown: dict[str, Any]) -> list[str]:
    return [one["kind"] for one in shown["answers"]]


def test_turning_it_asks_as_the_interventions_do(speaker: Any, photo_file: Path) -> None:
    widget = nw.slider(speaker, NEURON, photo_file, max_new_tokens=3, seed=4)
    run = speaker.run(photo_file, max_new_tokens=3)
    assert [one.text for one in widget.answers] == [run.text]
    seen: list[dict[str, Any]] = []
    widget.observe(lambda change: seen.append(change["new"]), "shown")
    widget.factor = -3.0
    beside = random_beside(speaker, nw.Neuron.parse(NEURON), 2, 4)
    expected = [run.text]
    for one in (NEURON, *beside):
        with scale(speaker, one, -3.0):
            expected.append(run.again())
    assert [one.text for one in widget.answers] == expected
    assert [one.neuron for one in widget.answers] == [None, nw.Neuron.parse(NEURON), *beside]
    assert kinds(seen[-1]) == ["before", "changed", "random", "random"]
    assert (seen[-1]["factor"], seen[-1]["progress"], seen[-1]["problem"]) == (-3.0, None, "")
    assert "3/3" in {f"{one['progress']['done']}/{one['progress']['total']}" for one in seen[:-1]}
    assert [len(one["answers"]) for one in seen] == sorted(len(one["answers"]) for one in seen)
    widget.mean = True
    with mean_ablate(speaker, NEURON, "self"):
        assert widget.answers[1].text == run.again()
    assert len(repr(widget)) < 300


def test_the_factor_by_which_the_first_answer_is_likelier(speaker: Any, photo_file: Path) -> None:
    import math

    widget = nw.slider(speaker, NEURON, photo_file, max_new_tokens=2)
    widget.factor = 0.5
    run = speaker.run(photo_file, max_new_tokens=2)

    def log_prob() -> float:
        rows = list(range(run.length - 3, run.length - 1))
        logits = speaker.forward(run.forced_inputs(), rows=rows)[0].float().log_softmax(-1).detach()
        return sum(logits[at, token].item() for at, token in enumerate(run.output_ids))

    usual = log_prob()
    with scale(speaker, NEURON, 0.5):
        expected = math.exp(log_prob() - usual)
    assert widget.answers[1].times == pytest.approx(expected, rel=1e-4)


def test_a_text_is_continued_as_it_stands_and_an_edit_is_noticed(speaker: Any) -> None:
    widget = nw.slider(speaker, NEURON, prompt="the dog")
    assert widget.given == "the dog"
    assert widget.photo == ""
    edit = random_edit(speaker, seed=3)
    with edit.applied(speaker):
        widget.factor = 1.0
        widget.factor = 0.0
        assert widget.answers[0].text == speaker.run(prompt="the dog", chat=False, max_new_tokens=16).text


def test_what_fails_is_a_sentence_and_the_next_turn_works(speaker: Any, photo_file: Path, monkeypatch: Any) -> None:
    widget = nw.slider(speaker, NEURON, photo_file, max_new_tokens=2)
    widget.factor = float("nan")
    assert "factor" in widget.shown["problem"]
    assert widget.shown["progress"] is None
    with monkeypatch.context() as patched:
        patched.setattr("neuronwise.view.widget.answers", lambda *_: (_ for _ in ()).throw(MemoryError()))
        widget.factor = 2.0
    assert "Out of memory" in widget.shown["problem"]
    widget.factor = 3.0
    assert widget.shown["problem"] == ""
    assert len(widget.answers) == 4
    with pytest.raises(TraitError):
        setattr(widget, "factor", "3")  # noqa: B010 (a wrong kind)


def test_bad_input_is_refused_in_a_sentence(speaker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NeuronError, match="U9999"):
        nw.slider(speaker, "L1.U9999", prompt="the")
    with pytest.raises(NeuronError, match="one neuron, not 2"):
        nw.slider(speaker, ["L1.U2", "L1.U3"], prompt="the")
    with pytest.raises(PromptError):
        nw.slider(speaker, NEURON)
    monkeypatch.delitem(sys.modules, "neuronwise.view.widget", raising=False)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(NeuronwiseError, match=r"neuronwise\[notebook\]"):
        nw.slider(speaker, NEURON, prompt="the")


# What anywidget gives a view: get, set, save_changes, on, off. `state.sent` is what would go to Python.
HOST = """
  const listeners = {};
  const state = { values: %s, changed: {}, sent: [] };
  const model = {
    get: (name) => state.values[name],
    set: (values) => { Object.assign(state.values, values); Object.assign(state.changed, values); },
    save_changes: () => { state.sent.push(state.changed); state.changed = {}; },
    on: (event, listener) => (listeners[event] ??= []).push(listener),
    off: (event, listener) => { listeners[event] = (listeners[event] ?? []).filter((one) => one !== listener); },
  };
  window.state = state;
  window.arrive = (values) => {
    Object.assign(state.values, values);
    for (const name of Object.keys(values)) for (const listener of listeners[`change:${name}`] ?? []) listener();
  };
  window.listening = () => Object.values(listeners).flat().length;
  const module = await import(%s);
  window.leave = module.default.render({ model, el: document.getElementById("cell") });
  window.ready = true;
"""


@pytest.fixture
def notebook(browser: Any) -> Iterator[Any]:
    """``notebook(widget) -> page``: its module in a page, with a stand-in for the notebook; nothing may complain."""
    complaints: list[str] = []
    contexts = []

    def opened(widget: Any, **options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda one: one.url.startswith(("data:", "about:")) or complaints.append(one.url))
        values = {name: getattr(widget, name) for name in ("neuron", "given", "photo", "factor", "mean", "shown")}
        module = f"data:text/javascript;base64,{base64.b64encode(widget._esm.encode()).decode()}"
        data = json.dumps(values).replace("<", "\\u003c")
        page.set_content(
            f'<!doctype html><style>{widget._css}</style><body><div id="cell"></div>'
            f'<script type="module">{HOST % (data, json.dumps(module))}</script>'
        )
        page.wait_for_function("() => window.ready")
        return page

    yield opened
    for one in contexts:
        one.close()
    assert complaints == []


def move(page: Any, to: float) -> None:
    page.locator("input[type=range]").fill(str(to))


def answer(page: Any, widget: Any) -> list[Any]:
    """What the page has sent goes to Python; the end of its answer comes back."""
    sent = page.evaluate("() => state.sent.splice(0)")
    for changes in sent:
        widget.set_state(changes)
    page.evaluate("(shown) => arrive({ shown })", widget.shown)
    return sent


@pytest.mark.browser
def test_the_knob_in_a_browser_asks_python(speaker: Any, photo_file: Path, notebook: Any) -> None:
    widget = nw.slider(speaker, NEURON, photo_file, max_new_tokens=2)
    page = notebook(widget)
    assert page.locator(".said-list li").count() == 1
    assert page.locator("img").evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 28
    move(page, -3)
    assert page.locator("[role=status]").text_content() == "asking the model …"
    move(page, -5)  # while it is asked: waits
    move(page, 2)
    assert answer(page, widget) == [{"factor": -3, "mean": False}]
    assert page.locator(".changed .who").text_content() == f"{NEURON} × −3"
    texts = [one.text for one in widget.answers]
    assert answer(page, widget) == [{"factor": 2, "mean": False}]
    assert page.locator(".answer").all_text_contents() == [one.text for one in widget.answers]
    assert widget.answers[0].text == texts[0]
    assert page.locator(".said-list .random").count() == 2
    assert page.locator("[role=status]").text_content() == ""
    page.locator("input[type=checkbox]").check()
    assert answer(page, widget) == [{"factor": 2, "mean": True}]
    assert page.locator("input[type=range]").is_disabled()
    page.evaluate("() => arrive({ factor: -1.5, mean: false })")  # set in Python
    assert page.locator("output").text_content() == "−1.5"
    assert page.locator("input[type=range]").input_value() == "-1.5"
    assert page.evaluate("() => state.sent") == []
    page.evaluate("() => leave()")
    assert page.evaluate("() => listening()") == 0


@pytest.mark.browser
@pytest.mark.parametrize("width", [340, 1000])
def test_strings_stay_text_and_it_fits(speaker: Any, notebook: Any, width: int) -> None:
    widget = nw.slider(speaker, NEURON, red_square(7, 7)[0], max_new_tokens=2)
    rows = [
        {"kind": kind, "text": HOSTILE, "neuron": HOSTILE, "times": 0.5} for kind in ("before", "changed", "random")
    ]
    widget.shown = {**widget.shown, "answers": rows, "problem": HOSTILE}
    page = notebook(widget, viewport={"width": width, "height": 700})
    assert page.locator("#cell img").count() == 1
    assert page.locator("[role=alert]").text_content() == HOSTILE
    progress = {"stage": "asking", "done": 1, "total": 4, "left": 100.0}
    page.evaluate("(progress) => arrive({ shown: { ...state.values.shown, progress } })", progress)
    assert page.locator("[role=status]").text_content() == "asking 1/4, about 2 min left"
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
