"""What a model says to prompts, and what its neurons do meanwhile: one prompt, or many in batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

import torch
from PIL import Image
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from neuronwise.errors import ModelError, NeuronwiseError, PromptError, told
from neuronwise.images import ImageLike
from neuronwise.model.activations import Activations
from neuronwise.model.batches import batch, padding, together
from neuronwise.model.halving import BatchSize, in_batches
from neuronwise.model.prompt import Inputs, Prompted, asked_of
from neuronwise.model.record import Recorder, require_complete
from neuronwise.model.stacking import padded
from neuronwise.model.weights import dtype_of
from neuronwise.model.wrapper import Wrapper

Photos: TypeAlias = "ImageLike | Sequence[ImageLike] | None"  # one, several of one prompt, or none
Each: TypeAlias = "str | Sequence[Photos] | Sequence[str | None] | None"  # one of each for every run
Asked = tuple[Prompted, Image.Image | None]  # a prompt, and its photo where it has one
HEAT_SHARE = 0.04  # of the weights' memory: the most that ``heat`` keeps of one run


@dataclass(frozen=True)
class Said:
    """What a model said to one prompt: ``ids`` without the end token; ``steps`` and ``seen`` as of a run.

    ``likeliest``: the token that would come next, where nothing was generated.
    """

    ids: list[int]
    steps: list[Activations]
    seen: Activations | None = None
    likeliest: int | None = None


@dataclass(frozen=True)
class Saying:
    """How prompts are answered: ``length`` tokens at most, 0 for one pass; ``heat`` as of ``Model.run``.

    ``record=False`` keeps no activations.
    """

    length: int
    heat: bool = False
    record: bool = True


class Many(TypedDict, total=False):
    """What ``Model.run_many`` takes by name."""

    images: Sequence[Photos] | None
    prompts: str | Sequence[str | None] | None
    texts: Sequence[str | None] | None
    batch_size: BatchSize
    max_new_tokens: int
    chat: bool | None
    heat: bool
    record: bool
    progress: Callable[[int, int], object] | None


def each(
    images: Sequence[Photos] | None, prompts: str | Sequence[str | None] | None, texts: Sequence[str | None] | None
) -> list[tuple[Photos, str | None, str | None]]:
    """Photos, prompt and text of each run; raises ``PromptError`` for lists of several lengths, or none."""
    given = {"images": images, "prompts": None if isinstance(prompts, str) else prompts, "texts": texts}
    listed = {name: list(one) for name, one in given.items() if one is not None}
    counts = {len(one) for one in listed.values()}
    if len(counts) != 1:
        told = " and ".join(f"{len(one)} {name}" for name, one in listed.items()) or "no list"
        raise PromptError(f"There are {told}; give lists of one length, one entry for each run.")
    count = counts.pop()
    single = prompts if isinstance(prompts, str) else None
    columns = (listed.get("images"), listed.get("prompts", [single] * count), listed.get("texts"))
    return list(zip(*([None] * count if one is None else one for one in columns), strict=True))


def say_all(
    model: Wrapper, prompts: Sequence[Asked], how: Saying, size: BatchSize = "auto"
) -> Iterator[tuple[int, Said | NeuronwiseError]]:
    """What the model says to each prompt, with its index, as batches are finished; of one that fails, the error.

    Prompts are together only where the model gives in a batch what it gives alone. ``size`` as of ``in_batches``.
    """
    rows = [prompted.inputs for prompted, _ in prompts]
    lengths = [row["input_ids"].shape[1] + how.length for row in rows]
    groups = [[index] for index in range(len(rows))]
    if size != 1:
        fitting = [index for index, n in enumerate(lengths) if model.longest is None or n <= model.longest]
        alike = together(model, [rows[index] for index in fitting], "left" if how.length else "passes")
        groups = [[fitting[n] for n in group] for group in alike]
        groups += [[index] for index in sorted({*range(len(rows))} - {*fitting})]  # each ends where positions do

    def work(members: list[int]) -> list[Said]:
        return say(model, [prompts[index] for index in members], how)

    return in_batches(model, groups, lengths, work, size)


@torch.no_grad()
def say(model: Wrapper, prompts: Sequence[Asked], how: Saying) -> list[Said]:
    """What the model says to prompts, in one batch; each gets what it would alone where ``together`` says so.

    At each step the last position's activations are recorded, of a sequence that has ended no more. Raises as
    ``Model.run`` does.
    """
    rows = [prompted.inputs for prompted, _ in prompts]
    whole = padded(rows, "left", padding(model)) if len(rows) > 1 else dict(rows[0])
    opening, counts = _opening(model, prompts) if how.heat else (None, [])
    blocks = model.blocks if how.record else []
    failing = told(ModelError, f"{model.name} cannot read {asked_of([photo for _, photo in prompts])}")
    norm = model.final_norm if how.record else None
    with Recorder(blocks, opening=opening, sequences=len(rows), final_norm=norm) as recorder, failing:
        if how.length:
            likeliest: list[int | None] = [None for _ in rows]
            ids, lengths = _generated(model, whole, how.length)
        else:
            logits = model.forward(model.extend(batch(model, rows).inputs, []), rows=[-1])
            likeliest = logits[:, -1].argmax(-1).tolist()
            ids, lengths = [[] for _ in rows], [1] * len(rows)
    require_complete(recorder.passes, blocks, len(recorder.passes))
    steps: list[list[Activations]] = [[] for _ in rows]
    for step in range(max(lengths)) if blocks else ():
        parts = recorder.passes[step].split([1] * len(rows))
        recorder.passes[step] = Activations()  # each member holds its own part alone
        for own, part, length in zip(steps, parts, lengths, strict=True):
            own += [part] if step < length else []
    seen: list[Activations | None] = [Activations() if how.heat else None for _ in rows]
    if opening is not None:
        seen = [*recorder.opened.split(counts)]
    return [Said(*one) for one in zip(ids, steps, seen, likeliest, strict=True)]


def _generated(model: Wrapper, inputs: Inputs, length: int) -> tuple[list[list[int]], list[int]]:
    """The tokens that follow each sequence, and how many passes they took, the end token's included."""
    settings = model.greedy(length, inputs["input_ids"].shape[1])
    ends = settings.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or ())
    ending = _Ending(ends, model.stop.criteria.get("stopping_criteria", StoppingCriteriaList()))
    made = model.generate(inputs, settings, stopping_criteria=StoppingCriteriaList([ending]))
    lengths = ending.lengths
    if length > max(lengths) == settings.max_new_tokens:
        warnings.warn(f"{model.name} has {model.longest} positions: it ends after {max(lengths)}.", stacklevel=6)
    found: list[list[int]] = []
    for row, own in zip(made[:, made.shape[1] - max(lengths) :].tolist(), lengths, strict=True):
        ids = row[:own]
        while ids and ids[-1] in ends:
            ids.pop()
        found.append(model.stop.before(ids))
    return found, lengths


class _Ending(StoppingCriteria):
    """Ends each sequence at an end token or a stopping text, and knows after how many tokens it did."""

    def __init__(self, ends: Sequence[int], texts: StoppingCriteriaList) -> None:
        self._ends, self._texts = torch.tensor(ends, dtype=torch.long), texts
        self._steps = 0
        self._ended: Tensor | None = None

    def __call__(self, input_ids: Any, scores: Any, **more: Any) -> Any:
        self._steps += 1
        done = torch.isin(input_ids[:, -1], self._ends.to(input_ids.device))
        if self._texts:
            done = done | self._texts(input_ids, scores)
        before = torch.zeros_like(input_ids[:, -1]) if self._ended is None else self._ended
        self._ended = torch.where((before == 0) & done, self._steps, before)
        return done

    @property
    def lengths(self) -> list[int]:
        """How many tokens each sequence has, its end token included."""
        return [length or self._steps for length in ([] if self._ended is None else self._ended.tolist())]


def _opening(model: Wrapper, prompts: Sequence[Asked]) -> tuple[Tensor | None, list[int]]:
    """Rows of the image's tokens in a batch whose rows are one after another, and how many each prompt has.

    None of a prompt with several photos, or where all their activations are not small beside the weights.
    """
    rows = [prompted.inputs["input_ids"] for prompted, _ in prompts]
    longest = max(row.shape[1] for row in rows)
    weights = sum(p.numel() * p.element_size() for p in model.module.parameters())
    able = not model.is_encoder_decoder and not any(block.experts for block in model.blocks)
    found: list[Tensor] = []
    for row, (_, photo) in zip(rows, prompts, strict=True):
        places = torch.nonzero(row[0] == (model.image_token_id or -1)).flatten()
        size = len(places) * model.num_neurons * dtype_of(model.module).itemsize
        fits = able and photo is not None and size <= HEAT_SHARE * weights
        found.append((places if fits else places[:0]) + (len(found) + 1) * longest - row.shape[1])
    counts = [len(places) for places in found]
    return (torch.cat(found) if any(counts) else None), counts
