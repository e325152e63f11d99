"""What is found while the viewer runs: findings and circuits, each with a page of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from neuronwise.errors import NeuronwiseError
from neuronwise.view.asked import Found, Traced
from neuronwise.view.finding_page import found_page, traced_page
from neuronwise.view.live import Live
from neuronwise.view.viewer import Shown, Viewer
from neuronwise.view.worker import Event, Job

if TYPE_CHECKING:
    pass

NEURONS, NODES = 50, 60


def found_of(viewer: Viewer, live: Live, job: Job, asked: Found) -> Event:
    """Find the neurons behind the words of a caption, or behind what follows a text; the address of the page."""
    from neuronwise.locate import Baseline
    from neuronwise.read import find

    model, run = live.model(job), live.run(job, asked)
    job.tell("measuring what neurons usually do (once for a model)")
    Baseline.gather(model, "self")
    words, targets = None, []
    if asked.word:
        words, targets = ([asked.word], []) if asked.word.strip().lower() in run.text.lower() else ([], [asked.word])
    elif run.image is None:
        words, targets = [], [run.answer]
    job.tell("scoring the neurons")
    found = find(model, run, words, targets, top=NEURONS, evidence="relp" if run.image is not None else None)
    number = viewer.show(Shown(found_page(found), found))
    kept = viewer.shown[number]
    viewer.shown[number] = replace(kept, page=found_page(found, number))
    return {"href": f"/found/{number}"}


def traced_of(viewer: Viewer, live: Live, job: Job, asked: Traced) -> Event:
    """Trace the circuit behind a word of a finding of this session; the address of its page."""
    from neuronwise.locate import circuit
    from neuronwise.read import Finding

    found = viewer.found(asked.found).found
    if not isinstance(found, Finding) or asked.concept >= len(found.concepts):
        raise NeuronwiseError("There is no such word; find it again.")
    target = found.concepts[asked.concept].target
    job.tell("tracing the circuit")
    traced = circuit(live.model(job), found.run, target=target.token_id, nodes=NODES)
    return {"href": f"/found/{viewer.show(Shown(traced_page(traced), traced))}"}
