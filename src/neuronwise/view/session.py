"""What is found while the viewer runs: findings and circuits, each with a page of its own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from neuronwise.errors import ModelError, NeuronwiseError, TargetError
from neuronwise.view.asked import Found, Traced
from neuronwise.view.finding_page import found_page, traced_page
from neuronwise.view.live import Live, passes
from neuronwise.view.turned import MEASURING
from neuronwise.view.viewer import Shown, Viewer
from neuronwise.view.worker import Event, Job

if TYPE_CHECKING:
    from neuronwise.model import Model, Run
    from neuronwise.model.run import Target

NEURONS, NODES = 50, 60


def found_of(viewer: Viewer, live: Live, job: Job, asked: Found) -> Event:
    """Find the neurons behind the words of a caption, or behind what follows a text; the address of the page."""
    from neuronwise.locate import Baseline
    from neuronwise.read import find

    model, run = live.model(job), live.run(job, asked)
    with passes(job, model, MEASURING), contextlib.suppress(ModelError):  # one that does not generate has no baseline
        Baseline.gather(model, "self")
    words, targets = _wanted(run, asked.word)
    with passes(job, model, "scoring the neurons"):
        found = find(model, run, words, targets, top=NEURONS, evidence="relp" if run.image is not None else None)
    number = viewer.show(lambda number: Shown(found_page(found, number), found))
    return {"href": f"/found/{number}"}


def _wanted(run: Run, word: str | None) -> tuple[list[str] | None, list[str | int]]:
    """The words and targets to look for: a word of the text, or any token; without one all nouns, or the answer."""
    if not word:
        return (None, []) if run.image is not None else ([], [run.answer])
    try:
        return [run.concept(word).word], []
    except TargetError:
        return [], [word]


def traced_of(viewer: Viewer, live: Live, job: Job, asked: Traced) -> Event:
    """Trace the circuit behind a word of a finding of this session; the address of its page."""
    from neuronwise.locate import circuit

    run, target = _word(viewer, asked)
    model: Model = live.model(job)
    with passes(job, model, "tracing the circuit"):
        traced = circuit(model, run, target=target.token_id, position=target.position, nodes=NODES)
    return {"href": f"/found/{viewer.show(lambda number: Shown(traced_page(traced), traced))}"}


def lens_of(viewer: Viewer, live: Live, job: Job, asked: Traced) -> Event:
    """Read a word of a finding of this session layer by layer."""
    from neuronwise.read import lens

    run, target = _word(viewer, asked)
    model: Model = live.model(job)
    with passes(job, model, "reading the layers"):
        return {"lens": lens(model, run, target=target.token_id, position=target.position).cells()}


def _word(viewer: Viewer, asked: Traced) -> tuple[Run, Target]:
    from neuronwise.read import Finding

    found = viewer.found(asked.found).found
    if not isinstance(found, Finding) or asked.concept >= len(found.concepts):
        raise NeuronwiseError("There is no such word; find it again.")
    return found.run, found.concepts[asked.concept].target
