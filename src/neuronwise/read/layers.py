"""The words of a finding read layer by layer, beside their neurons."""

from __future__ import annotations

from dataclasses import replace

from neuronwise.errors import MethodError
from neuronwise.read.finding import Finding
from neuronwise.read.lens import lens
from neuronwise.registry.arguments import checked


@checked
def with_lens(finding: Finding) -> Finding:
    """The finding with each word read in the stream behind every layer, see ``lens``: one pass a word.

    Where an architecture's streams cannot be read, the finding's note says so.
    """
    run, targets = finding.run, [concept.target for concept in finding.concepts]
    try:
        read = [lens(run.model, run, target=one.token_id, position=one.position) for one in targets]
    except MethodError as error:
        return replace(finding, note="; ".join(filter(None, (finding.note, f"there is no lens: {error}"))))
    concepts = (replace(concept, lens=own) for concept, own in zip(finding.concepts, read, strict=True))
    return replace(finding, concepts=tuple(concepts))
