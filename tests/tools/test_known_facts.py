"""What counts as known: the teacher-forced answer against the model's own greedy generation, on a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import neuronwise as nw
from neuronwise.answers.request import target_ids
from scripts import scripts_of


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    with scripts_of("tools") as load:
        yield load("known_facts")


def test_what_the_model_says_is_known_and_anything_else_is_not(script: Any, tiny_folder: Path) -> None:
    model = nw.load(tiny_folder)
    prompts = [
        "the capital of France is",
        "a cat sits on the mat in",
        "the dog",
        "the capital of Paris is",
        "a red dog",
    ]
    said = {prompt: model.run(prompt=prompt, max_new_tokens=2, chat=False) for prompt in prompts}
    words = {p: run.text for p, run in said.items() if run.text and target_ids(model, run.text) == run.output_ids}
    assert len(words) >= 2, "this tiny model says plain words behind several of the prompts"
    right = list(words.items())
    wrong = [(prompt, "house in") for prompt in words if not words[prompt].startswith("house")]
    found = script.forced(model, [*right, *wrong], batch=2)
    assert [found[question] for question in right] == [True] * len(right)
    assert [found[question] for question in wrong] == [False] * len(wrong)
    assert wrong
    for prompt, text in right:
        assert script.says(model, prompt, text)[0]
        assert not script.says(model, prompt, text[:-1])[0], "half a word is no answer"
