"""A local language model writes labels of neurons, and judges what they are worth."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from neuronwise.answers.forced import read_forced
from neuronwise.answers.request import target_ids
from neuronwise.index.cases import Case, Cases
from neuronwise.index.labels import Detection
from neuronwise.measure.bootstrap import Mean, interval_of_groups
from neuronwise.measure.judged import auroc
from neuronwise.model import Model

SHOTS = """\
- A red apple in a bowl
- Two bananas on a table
- She eats a ripe pear
In common: fruit

- He was born in March 1952
- The war ended in 1945
- On 4 July they met again
In common: dates

"""
LENGTH = 8  # tokens of a label
TOLD = 8  # raised tokens that the explainer is told
Numbers = NDArray[np.float64]


def write(explainer: Model, cases: Cases, raises: Sequence[str]) -> str:
    """A label from the shown texts: of several drafts the one that tells them best from the shown others.

    Drafts are what the model says that all shown texts have in common, that each half of them has, and that all of them
    have with the tokens that the neuron raises. Of equal ones the first is taken; "" where none has a word.
    """
    own = cases.shown
    lists = [own, own[::2], own[1::2]]
    if raises:
        lists.append([*own, Case("", " ".join(token.strip() for token in raises[:TOLD]))])
    prompts = [f"{SHOTS}{''.join(f'- {one.marked}{chr(10)}' for one in some)}In common:" for some in lists]
    runs = explainer.run_many(prompts=prompts, chat=False, max_new_tokens=LENGTH, record=False)
    drafts = list(dict.fromkeys(filter(None, (_label(run.text) for run in runs))))
    if not drafts:
        return ""
    texts = [one.text for one in (*own, *cases.shown_others)]
    truth = np.arange(len(texts)) < len(own)
    worth = [auroc(truth, fits(explainer, draft, texts)) for draft in drafts]
    return drafts[int(np.argmax(worth))]


def detect(explainer: Model, label: str, cases: Cases) -> Detection:
    """How well a label tells the held-out texts; the threshold is halfway between the means of the shown ones."""
    groups = (cases.shown, cases.shown_others, cases.held, cases.held_others)
    fit = fits(explainer, label, [one.text for group in groups for one in group])
    shown, shown_others, *held = np.split(fit, np.cumsum([len(group) for group in groups])[:-1])
    values = np.concatenate(held)
    truth = np.arange(len(values)) < len(held[0])
    right = (values > (shown.mean() + shown_others.mean()) / 2) == truth
    return Detection(
        _interval(lambda rows: auroc(truth[rows], values[rows]), len(values)),
        _interval(lambda rows: _balanced(truth[rows], right[rows]), len(values)),
        len(cases.held), len(cases.held_others),
    )  # fmt: skip


def fits(explainer: Model, label: str, texts: Sequence[str]) -> Numbers:
    """(n,) How well a label fits each text: the mean log p of the label's tokens behind "TEXT. This is about"."""
    asked = []
    for text in texts:
        prompt = f"{text.rstrip(' .')}. This is about"
        asked.append((explainer.prepare(None, prompt, False)[0].inputs, target_ids(explainer, label, prompt)))
    return np.array([one.log_prob for one in read_forced(explainer, asked)])


def _label(said: str) -> str:
    """The first line of what was said, without marks around it; "" where it has no word."""
    line = said.strip().partition("\n")[0]
    text = line.replace("<<", " ").replace(">>", " ").strip(" \t\"'“”-–—.,:;*")
    return " ".join(text.split()) if re.search(r"\w", text) else ""


def _balanced(truth: NDArray[np.bool_], right: NDArray[np.bool_]) -> float:
    return float(right[truth].mean() + right[~truth].mean()) / 2 if 0 < truth.sum() < len(truth) else np.nan


def _interval(figure: Callable[[NDArray[np.intp]], float], count: int) -> Mean:
    return interval_of_groups(figure, np.arange(count))
