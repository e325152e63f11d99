"""What a study of single words looks at: words that captions say, and answers of facts that the model knows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from neuronwise.data.facts import FactCase, load_facts
from neuronwise.data.photos import Captioned
from neuronwise.errors import StudyError
from neuronwise.model.prompt import target_tokens
from neuronwise.model.run import Run, Target
from neuronwise.study.concept_photos import ConceptPhotos
from neuronwise.study.workspace import Workspace


def words_said(workspace: Workspace[Any], masked: bool) -> list[tuple[ConceptPhotos, Captioned]]:
    """All words of captions that name a concept, in an order drawn by the seed; ``masked``: of photos with its mask."""
    found = [
        (shown, photo) for shown in workspace.concepts.values() for photo in (shown.masked if masked else shown.photos)
    ]
    workspace.random("words").shuffle(found)
    return found


def facts_known(workspace: Workspace[Any], name: str, wanted: int) -> list[tuple[str, str]]:
    """Prompts and answers of up to ``wanted`` facts whose answer's first token the model gives by itself.

    ``name`` is a file of facts, or "shipped"; the seed draws their order. Raises ``StudyError`` when it knows none.
    """
    return [
        (prompt, answer) for prompt, answer in workspace.kept("facts", "known", lambda: _known(workspace, name, wanted))
    ]


def _known(workspace: Workspace[Any], name: str, wanted: int) -> list[list[str]]:
    listed: Sequence[FactCase] = load_facts(name).cases
    shuffled = workspace.random("facts").sample(list(listed), len(listed))
    found: list[list[str]] = []
    for number, case in enumerate(shuffled, 1):
        if len(found) == wanted:
            break
        fact = case.fact
        if fact.target_true and fact.image is None:
            run, target = asked(workspace, fact.text, fact.target_true)
            with torch.no_grad():
                first = int(workspace.model.forward(run.forced_inputs(), rows=[-1])[0, -1].argmax())
            if first == target.token_id and [fact.text, fact.target_true] not in found:
                found.append([fact.text, fact.target_true])
        workspace.tell("known answers", number, len(shuffled))
    if not found:
        raise StudyError(f"The model knows none of the {len(listed)} facts of {name!r}; give others, or facts: 0.")
    return found


def asked(workspace: Workspace[Any], prompt: str, answer: str) -> tuple[Run, Target]:
    """A fact's prompt without a template, and the first token of its answer."""
    model = workspace.model
    prompted, _ = model.prepare(None, prompt, chat=False)
    run = Run.of(model, prompted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an answer of several tokens is meant to be scored at the first
        tokens = target_tokens(model.tokenizer, model.vocabulary_size, f" {answer.strip()}")
    return run, Target(tokens.token_id, 0, tokens.text, tokens.note)
