"""Attention heads beside the neurons of a finding: what each adds to the word, and which tokens it raises here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate.contribution import SHARP
from neuronwise.locate.heads import contribution
from neuronwise.model.direct_map import DirectMap
from neuronwise.model.heads import Attention, attention_of, mixed
from neuronwise.model.lengths import centered
from neuronwise.model.run import Run, Target
from neuronwise.neurons import Head, HeadSet
from neuronwise.read.decode import Effect, token_strings
from neuronwise.read.extremes import extreme_tokens
from neuronwise.read.finding import Finding
from neuronwise.registry.arguments import checked


@checked
def with_heads(finding: Finding, top: int) -> Finding:
    """The finding with the ``top`` attention heads of each word, by their exact share of its logit.

    Against the finding's own contrast, or the ten likeliest other tokens. Where the architecture has no heads that can
    be told apart, the finding's note says so.
    """
    run, targets = finding.run, [concept.target for concept in finding.concepts]
    contrast = finding.options.get("contrast", SHARP["contrast"])
    try:
        scored = contribution(run.model, run, targets, contrast=contrast)  # pyright: ignore[reportArgumentType]
    except MethodError as error:
        return replace(finding, note="; ".join(filter(None, (finding.note, f"there are no heads: {error}"))))
    ranked = [HeadSet(scores.top(top).members, {"contrast": contrast}) for scores in scored]
    effects = [head_effects(run, target, own.heads) for target, own in zip(targets, ranked, strict=True)]
    concepts = (
        replace(concept, heads=own, head_effects=tuple(read))
        for concept, own, read in zip(finding.concepts, ranked, effects, strict=True)
    )
    return replace(finding, concepts=tuple(concepts))


def head_effects(run: Run, target: Target, heads: Sequence[Head], k: int = 10) -> list[Effect]:
    """The ``k`` tokens that each head raises and lowers most by what it writes where the target is predicted.

    By the cosine with the centered unembedding, as ``effects`` reads neurons.
    """
    model = run.model
    read = mixed(model, run.forced_inputs(), [run.row(target.position)])
    through = DirectMap(model)
    vectors = [
        through(own.site, _written(own, head, read[own][0])[None])[0]
        for head, own in ((head, attention_of(model, head)) for head in heads)
    ]
    if not vectors:
        return []
    ends = extreme_tokens(torch.stack(vectors), model.unembedding, k, centered=centered(model))
    words = token_strings(model, [token for end in ends for ids in end for token in ids])
    raises, lowers = ([[words[token] for token in ids] for ids in end] for end in ends)
    return [Effect(*pair) for pair in zip(raises, lowers, strict=True)]


def _written(own: Attention, head: Head, read: Tensor) -> Tensor:
    """(d,) float32: what one head writes, W_o[:, h] · z_h."""
    columns = own.columns(head)
    vectors = own.writer.vectors[:, columns].float()
    return vectors @ read[columns].to(vectors.device).float()
