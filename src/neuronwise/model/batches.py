"""Many prompts in one pass, padded, where the architecture gives what each of them gives alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from neuronwise.errors import NeuronwiseError, is_out_of_memory
from neuronwise.model.activations import Activations
from neuronwise.model.prompt import Inputs
from neuronwise.model.record import Recorder
from neuronwise.model.stacking import TOKENS, grouped, layout, padded, stackable
from neuronwise.model.state import counts_rows, state_of
from neuronwise.model.weights import dtype_of
from neuronwise.model.wrapper import Wrapper

CLOSE = {torch.float32: 1e-3, torch.float64: 1e-6}  # difference of log probabilities that rounding explains
COARSE = 0.25  # the same in half precision
SHORT, LONG = "The", "The capital of the old kingdom in the north is"
WORTH = 4  # prompts with photos for which it is worth trying whether a batch gives the same

Kind = Literal["passes", "left"]  # of batches padded on the left: single passes, or generation


@dataclass(frozen=True)
class Batch:
    """Token sequences side by side, padded to one length.

    ``inputs`` are what the model takes, (sequences, longest); ``lengths`` counts the real tokens of each, ``starts``
    the rows of padding before them.
    """

    inputs: Inputs
    lengths: tuple[int, ...]
    starts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, sequence: int, token: int) -> int:
        """The row of token number ``token`` of a sequence, which counts from its end when negative."""
        return self.starts[sequence] + (token if token >= 0 else self.lengths[sequence] + token)

    @property
    def mask(self) -> Tensor:
        """(sequences, longest) bool: which rows are real."""
        rows = torch.arange(max(s + n for s, n in zip(self.starts, self.lengths, strict=True)))
        starts, lengths = torch.tensor(self.starts)[:, None], torch.tensor(self.lengths)[:, None]
        return (rows >= starts) & (rows < starts + lengths)


@dataclass(frozen=True)
class Batching:
    """Under which padding every prompt gives what it gives alone: in a pass on the right, on the left, and in
    generation (on the left)."""

    right: bool
    passes: bool
    left: bool


def batching(model: Wrapper) -> Batching:
    """Found by trying once, not from a list of architectures: two prompts together against each alone.

    Remembered for the model, whatever its weights.
    """

    def found() -> Batching:
        try:
            texts = [text_inputs(model, prompt) for prompt in (SHORT, LONG)]
        except NeuronwiseError:
            return Batching(False, False, False)
        if not stackable(texts):
            return Batching(False, False, False)
        return Batching(*(_agrees(model, texts, read) for read in (_right, _last_rows, _steps)))

    return model.memo("batching", found)


def text_inputs(model: Wrapper, prompt: str) -> Inputs:
    """Inputs of a text as it is, without a chat template; raises ``PromptError`` for one that cannot be read."""
    return model.prepare(None, prompt, chat=False)[0].inputs


def batch(model: Wrapper, rows: Sequence[Inputs], side: str = "left") -> Batch:
    """Inputs of single prompts (1, n) as one batch, with the position ids that ``generate`` gives such a batch.

    A single prompt keeps its inputs as they are, whatever they hold.
    """
    lengths = tuple(row["input_ids"].shape[1] for row in rows)
    longest = max(lengths)
    starts = tuple(longest - length if side == "left" else 0 for length in lengths)
    if len(rows) == 1:
        return Batch(dict(rows[0]), lengths, starts)
    inputs = padded(rows, side, padding(model))
    if side == "left" and min(lengths) < longest:
        inputs |= _positions(model, inputs)
    return Batch(inputs, lengths, starts)


def padding(model: Wrapper) -> int:
    """The token that fills up sequences."""
    settings = getattr(model.module, "generation_config", None)
    return 0 if settings is None else model.greedy(1).pad_token_id or 0


def batches(model: Wrapper, rows: Sequence[Inputs], tokens: int = TOKENS) -> Iterator[tuple[list[int], Batch]]:
    """Prompts in batches of similar length, each with the indices of its members; one by one where the architecture
    does not give in a batch what a prompt gives alone."""
    texts = len(rows) > 1 and stackable(rows) and not counts_rows(model)
    side = "right" if texts and batching(model).right and not batching(model).passes else "left"
    for alike in [list(range(len(rows)))] if side == "right" else together(model, rows, "passes"):
        for group in grouped([rows[index]["input_ids"].shape[1] for index in alike], tokens):
            yield [alike[n] for n in group], batch(model, [rows[alike[n]] for n in group], side)


def generating(
    model: Wrapper, rows: Sequence[Inputs], lengths: Sequence[int], tokens: int = TOKENS
) -> Iterator[tuple[list[int], Inputs]]:
    """As ``batches``, for prompts that ``generate`` goes on with by ``lengths`` tokens; it counts positions itself."""
    sizes = [row["input_ids"].shape[1] + length for row, length in zip(rows, lengths, strict=True)]
    for alike in together(model, rows, "left"):
        for group in grouped([sizes[index] for index in alike], tokens):
            members = [rows[alike[n]] for n in group]
            yield [alike[n] for n in group], padded(members, "left", padding(model)) if len(group) > 1 else members[0]


def together(model: Wrapper, rows: Sequence[Inputs], kind: Kind) -> list[list[int]]:
    """Indices of prompts in groups whose members may be in one batch: each then gives what it gives alone.

    Tensors of other shapes are never together. Where padding changes something (a recurrent state, interventions at
    counted rows), prompts of one length are; whether that holds is found by trying, once for a model and a kind of
    inputs.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, row in enumerate(rows):
        kept = None if model.is_encoder_decoder else layout(row)
        groups.setdefault(index if kept is None else kept, []).append(index)
    return [part for group in groups.values() for part in _parts(model, rows, group, kind)]


def _parts(model: Wrapper, rows: Sequence[Inputs], group: list[int], kind: Kind) -> list[list[int]]:
    by_length: dict[int, list[int]] = {}
    for index in sorted(group, key=lambda index: rows[index]["input_ids"].shape[1]):
        by_length.setdefault(rows[index]["input_ids"].shape[1], []).append(index)
    if len(group) > 1 and not counts_rows(model):
        text = stackable([rows[index] for index in group])
        if text and getattr(batching(model), kind):
            return [group]
        ends = [rows[by_length[length][0]] for length in (min(by_length), max(by_length))]
        if not text and len(by_length) > 1 and _same(model, ends, kind, len(group)):
            return [group]
    parts: list[list[int]] = []
    for alike in by_length.values():
        pair = [rows[index] for index in alike[:2]]
        whole = len(alike) > 1 and _same(model, pair, kind, len(alike))
        parts += [alike] if whole else [[index] for index in alike]
    return parts


def _same(model: Wrapper, pair: Sequence[Inputs], kind: Kind, members: int) -> bool:
    """Whether two prompts give together what they give alone; not tried for a few with photos, which costs as much."""
    even = pair[0]["input_ids"].shape == pair[1]["input_ids"].shape
    key = "together", kind, frozenset(pair[0]), even, state_of(model).hooks
    if members < WORTH and not stackable(pair) and not model.remembers(key):
        return False
    try:
        return model.memo(key, lambda: _agrees(model, pair, _READ[kind]))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False


def _positions(model: Wrapper, inputs: Inputs) -> Inputs:
    """As the model's own ``generate`` makes them; none for an architecture that takes none."""
    module = model.reader(inputs)
    if "position_ids" not in inspect.signature(module.forward).parameters:
        return {}
    return {"position_ids": module._prepare_position_ids_for_generation(inputs["input_ids"], dict(inputs))}


Read = Callable[[Wrapper, Sequence[Inputs]], list[Tensor]]  # log probabilities, then activations: a row a prompt


def _agrees(model: Wrapper, alone: Sequence[Inputs], read: Read) -> bool:
    """Whether ``read`` gives the same of all together as of each alone."""
    if model.is_encoder_decoder:
        return False
    try:
        with torch.no_grad():
            whole = read(model, alone)
            singly = [torch.cat(parts) for parts in zip(*(read(model, [row]) for row in alone), strict=True)]
    except (NeuronwiseError, RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        return False
    close = CLOSE.get(dtype_of(model.module), COARSE)
    scales = [1.0, *(max(1.0, float(one.abs().max())) for one in singly[1:])]
    return all(
        one.shape == other.shape and bool((one - other).abs().max() <= close * scale)
        for one, other, scale in zip(whole, singly, scales, strict=True)
    )


def _right(model: Wrapper, rows: Sequence[Inputs]) -> list[Tensor]:
    return _last_rows(model, rows, "right")


def _last_rows(model: Wrapper, rows: Sequence[Inputs], side: str = "left") -> list[Tensor]:
    whole = batch(model, rows, side)
    last = [[whole.row(number, -1)] for number in range(len(rows))]
    with Recorder(model.blocks, last) as recorder:
        logits = model.forward(whole.inputs, rows=last)
    return [logits[0].float().log_softmax(-1), *_fired(recorder.activations(0))]


def _steps(model: Wrapper, rows: Sequence[Inputs]) -> list[Tensor]:
    settings = model.greedy(2)
    settings.update(min_new_tokens=2, min_length=None, return_dict_in_generate=True, output_logits=True)
    with Recorder(model.blocks, sequences=len(rows)) as recorder:
        made = model.generate(padded(rows, "left", padding(model)), settings)
    logits = torch.stack(made.logits, 1).float().log_softmax(-1)
    return [logits, *(fired for step in recorder.passes for fired in _fired(step))]


_READ: dict[Kind, Read] = {"passes": _last_rows, "left": _steps}


def _fired(step: Activations) -> Iterator[Tensor]:
    """(rows, n) of each layer; of routed experts those that the router chose, in their order."""
    yield from (rows.float() for rows in step.dense.values())
    for rows in step.routed.values():
        yield torch.stack([torch.cat([row[expert].written for expert in sorted(row)]) for row in rows])
