"""Free generation: greedy or sampled continuations, and whether one begins with an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from neuronwise.data.scripts import whole_word
from neuronwise.errors import ModelError
from neuronwise.model.batches import generating
from neuronwise.model.model import Model
from neuronwise.model.prompt import Inputs
from neuronwise.model.sample import seeded

if TYPE_CHECKING:
    from transformers import GenerationConfig


def begins_with(text: str, answer: str) -> bool:
    """Whether ``text`` starts with ``answer`` as whole words; spaces before either do not count."""
    answer, text = answer.strip(), text.lstrip()
    return text.startswith(answer) and re.match(whole_word(re.escape(answer)), text) is not None


@torch.no_grad()
def continued(
    model: Model, prompts: Sequence[Inputs], lengths: Sequence[int], least: bool = False, top_k: int | None = None
) -> list[list[int]]:
    """Greedy continuations, each of at most its length and without the end token, in batches where that is equal.

    ``least``: the end token may not come before the length is reached. ``top_k``: drawn among so many likeliest tokens
    at each step in place of the likeliest, the end token like any other. Raises ``ModelError`` for a model that does
    not generate.
    """
    if getattr(model.module, "generation_config", None) is None:
        raise ModelError(f"{model.name} does not generate; measure it with free=False.")
    found: dict[int, list[int]] = {}
    for group, batch in generating(model, prompts, lengths):
        made = continuations(model, batch, max(lengths[index] for index in group), least, top_k)
        found |= {index: ids[: lengths[index]] for index, ids in zip(group, made, strict=True)}
    return [found[index] for index in range(len(prompts))]


@torch.no_grad()
def sampled(model: Model, prompts: Sequence[Inputs], total: int, top_k: int, seed: int) -> list[list[int]]:
    """Each prompt's tokens with what follows, ``total`` together, drawn among the ``top_k`` likeliest at each step.

    The end token is a token like any other, as in the released code of [ROME] (``generate_fast``). A longer prompt
    stays as it is.
    """
    read = [one["input_ids"][0].tolist() for one in prompts]
    shorter = [place for place, ids in enumerate(read) if len(ids) < total]
    with seeded(model, seed):
        said = continued(
            model, [prompts[place] for place in shorter], [total - len(read[place]) for place in shorter], top_k=top_k
        )
    for place, ids in zip(shorter, said, strict=True):
        read[place] += ids
    return read


def continuations(
    model: Model, inputs: Inputs, length: int, least: bool = False, top_k: int | None = None
) -> list[list[int]]:
    """What follows each row of ``inputs`` greedily, up to the end token; with ``top_k`` see ``continued``."""
    settings = _settings(model, length, least, top_k, inputs["input_ids"].shape[1])
    ending = {} if least or top_k else model.stop.criteria
    made = model.generate(inputs, settings, **ending)
    ends = settings.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or ())
    # What was read comes first in the sequence, except where an encoder reads it or embeddings are fed.
    given = inputs["input_ids"].shape[1]
    echoes = (
        not model.is_encoder_decoder
        and made.shape[1] > given
        and bool((made[:, :given].cpu() == inputs["input_ids"]).all())
    )
    rows = made[:, given:] if echoes else made[:, 1:] if model.is_encoder_decoder else made
    found = [_until(row, ends) for row in rows.tolist()]
    return [model.stop.before(ids) for ids in found] if ending else found


def _settings(model: Model, length: int, least: bool, top_k: int | None, after: int) -> GenerationConfig:
    settings = model.greedy(length, after)
    if least:
        settings.update(min_new_tokens=settings.max_new_tokens, min_length=None)
    if top_k is not None:
        settings.update(do_sample=True, temperature=1.0, top_p=1.0, top_k=top_k, min_length=None)
        settings.update(eos_token_id=model.vocabulary_size)  # none: generate would put the model's own in its place
    return settings


def _until(ids: list[int], ends: Sequence[int]) -> list[int]:
    return ids[: next((place for place, token in enumerate(ids) if token in ends), len(ids))]
