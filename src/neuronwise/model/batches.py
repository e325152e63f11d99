"""Many prompts in one pass, padded, where the architecture gives what each of them gives alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronwise.errors import NeuronwiseError
from neuronwise.model.model import Model
from neuronwise.model.prompt import Inputs
from neuronwise.model.weights import dtype_of

TOKENS = 4096  # of one padded batch, at most
CLOSE = {torch.float32: 1e-3, torch.float64: 1e-6}  # difference of log probabilities that rounding explains
COARSE = 0.25  # the same in half precision
SHORT, LONG = "The", "The capital of the old kingdom in the north is"


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


def batching(model: Model) -> Batching:
    """Found by trying once, not from a list of architectures: two prompts together against each alone.

    Remembered for the model, whatever its weights.
    """

    def found() -> Batching:
        right, left = _last_rows(model, "right"), _last_rows(model, "left")
        return Batching(_agrees(model, right), _agrees(model, left), _agrees(model, lambda rows: _steps(model, rows)))

    return model.memo("batching", found)


def text_inputs(model: Model, prompt: str) -> Inputs:
    """Inputs of a text as it is, without a chat template; raises ``PromptError`` for one that cannot be read."""
    return model.prepare(None, prompt, chat=False)[0].inputs


def batch(model: Model, rows: Sequence[Inputs], side: str = "left") -> Batch:
    """Inputs of single prompts (1, n) as one batch, with the position ids that ``generate`` gives such a batch.

    A single prompt keeps its inputs as they are, whatever they hold.
    """
    lengths = tuple(row["input_ids"].shape[1] for row in rows)
    longest = max(lengths)
    starts = tuple(longest - length if side == "left" else 0 for length in lengths)
    if len(rows) == 1:
        return Batch(dict(rows[0]), lengths, starts)
    pad = model.greedy(1).pad_token_id if hasattr(model.module, "generation_config") else None
    inputs = padded(rows, side, pad or 0)
    if side == "left" and min(lengths) < longest:
        inputs |= _positions(model, inputs)
    return Batch(inputs, lengths, starts)


def batches(model: Model, rows: Sequence[Inputs], tokens: int = TOKENS) -> Iterator[tuple[list[int], Batch]]:
    """Prompts in batches of similar length, each with the indices of its members; one by one where the architecture
    does not give in a batch what a prompt gives alone, or for prompts with an image."""
    known = batching(model) if len(rows) > 1 and stackable(rows) else None
    if known is None or not (known.passes or known.right):
        yield from (([index], batch(model, [row])) for index, row in enumerate(rows))
        return
    for group in grouped([row["input_ids"].shape[1] for row in rows], tokens):
        yield group, batch(model, [rows[index] for index in group], "left" if known.passes else "right")


def generating(
    model: Model, rows: Sequence[Inputs], lengths: Sequence[int], tokens: int = TOKENS
) -> Iterator[tuple[list[int], Inputs]]:
    """As ``batches``, for prompts that ``generate`` goes on with by ``lengths`` tokens; it counts positions itself."""
    together = len(rows) > 1 and stackable(rows) and batching(model).left
    sizes = [row["input_ids"].shape[1] + length for row, length in zip(rows, lengths, strict=True)]
    for group in grouped(sizes, tokens) if together else [[index] for index in range(len(rows))]:
        members = [rows[index] for index in group]
        yield group, padded(members, "left", model.greedy(1).pad_token_id or 0) if together else members[0]


def padded(rows: Sequence[Inputs], side: str, pad: int = 0) -> Inputs:
    """Inputs of single prompts (1, n) as one batch (batch, longest); padding is masked out."""
    longest = max(row["input_ids"].shape[1] for row in rows)
    rows = [{"attention_mask": torch.ones_like(row["input_ids"]), **row} for row in rows]
    return {
        name: torch.cat([_fill(row[name], longest, side, pad if name == "input_ids" else 0) for row in rows])
        for name in rows[0]
    }


def grouped(lengths: Sequence[int], tokens: int = TOKENS) -> list[list[int]]:
    """Indices in batches of similar length, each of at most ``tokens`` with its padding."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not groups or (len(groups[-1]) + 1) * lengths[index] > tokens:
            groups.append([])
        groups[-1].append(index)
    return groups


def stackable(rows: Sequence[Inputs]) -> bool:
    """Whether these inputs hold nothing but one number a token (an image has more)."""
    return all(value.shape == row["input_ids"].shape for row in rows for value in row.values()) and all(
        row.keys() == rows[0].keys() for row in rows
    )


def _fill(value: Tensor, longest: int, side: str, number: int) -> Tensor:
    missing = longest - value.shape[1]
    return torch.nn.functional.pad(value, (missing, 0) if side == "left" else (0, missing), value=number)


def _positions(model: Model, inputs: Inputs) -> Inputs:
    """As the model's own ``generate`` makes them; none for an architecture that takes none."""
    module = model.reader(inputs)
    if "position_ids" not in inspect.signature(module.forward).parameters:
        return {}
    return {"position_ids": module._prepare_position_ids_for_generation(inputs["input_ids"], dict(inputs))}


def _agrees(model: Model, read: Callable[[Sequence[Inputs]], Tensor]) -> bool:
    if model.is_encoder_decoder:
        return False
    try:
        alone = [text_inputs(model, prompt) for prompt in (SHORT, LONG)]
        if not stackable(alone):
            return False
        with torch.no_grad():
            together = read(alone)
            singly = torch.cat([read([row]) for row in alone])
    except (NeuronwiseError, RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError):
        return False
    return bool((together - singly).abs().max() <= CLOSE.get(dtype_of(model.module), COARSE))


def _last_rows(model: Model, side: str) -> Callable[[Sequence[Inputs]], Tensor]:
    def read(rows: Sequence[Inputs]) -> Tensor:
        together = batch(model, rows, side)
        logits = model.forward(together.inputs, rows=[[together.row(n, -1)] for n in range(len(rows))])
        return logits[0].float().log_softmax(-1)

    return read


def _steps(model: Model, rows: Sequence[Inputs]) -> Tensor:
    settings = model.greedy(2)
    settings.update(min_new_tokens=2, min_length=None, return_dict_in_generate=True, output_logits=True)
    inputs = padded(rows, "left", settings.pad_token_id or 0)
    made = model.generate(inputs, settings)
    return torch.stack(made.logits, 1).float().log_softmax(-1)
