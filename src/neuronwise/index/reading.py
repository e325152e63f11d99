"""Reading photos and texts in batches, with what all neurons did at all of their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronwise.data.photos import Captioned
from neuronwise.errors import DataError, IndexingError, NeuronwiseError
from neuronwise.index.watch import Seen, watched
from neuronwise.model import Model, Run
from neuronwise.model.batches import batch, together
from neuronwise.model.halving import in_batches
from neuronwise.model.many import Asked, Saying, say
from neuronwise.model.prompt import Prompted

CAPTIONS = ("generated", "given")
Read = tuple[Run, Seen]


@dataclass(frozen=True)
class Reading:
    """How photos and texts are read.

    ``captions``: "generated" by the model, or "given": the first reference caption of each photo, forced. ``prompt``
    and ``max_new_tokens`` as ``model.run`` takes them. A text longer than ``length`` tokens is read in windows.
    ``batch`` photos or texts are read together, where the model gives in a batch what it gives alone.
    """

    captions: str = "generated"
    prompt: str | None = None
    max_new_tokens: int = 50
    length: int = 512
    batch: int = 8

    def __post_init__(self) -> None:
        if self.captions not in CAPTIONS:
            raise IndexingError(f"captions is {self.captions!r}; choose {' or '.join(CAPTIONS)}.")
        if self.length < 2 or self.max_new_tokens < 0 or self.batch < 1:
            raise IndexingError("length counts tokens from 2 on, max_new_tokens from 0 on, batch photos from 1 on.")


def read_photos(
    model: Model, photos: Sequence[Captioned], reading: Reading
) -> Iterator[tuple[int, Read | NeuronwiseError]]:
    """Each photo with its caption, as batches are read, by its index; the error of one that cannot be read."""
    asked: dict[int, Asked] = {}
    runs: dict[int, Run] = {}
    for index, photo in enumerate(photos):
        try:
            if reading.captions == "given":
                if not photo.captions:
                    raise DataError("It has no caption.")
                runs[index] = model.run(photo.path, reading.prompt, text=photo.captions[0])
            else:
                asked[index] = model.prepare(photo.path, reading.prompt)
        except NeuronwiseError as error:
            yield index, error
    yield from _numbered(list(runs), read_runs(model, list(runs.values()), reading.batch))
    yield from _numbered(list(asked), _captioned(model, list(asked.values()), reading))


def read_runs(model: Model, runs: Sequence[Run], size: int) -> Iterator[tuple[int, Read | NeuronwiseError]]:
    """Runs whose tokens are known, each by its index, in passes over their whole sequences."""
    inputs = [run.forced_inputs() for run in runs]

    def work(members: list[int]) -> list[Read]:
        whole = batch(model, [inputs[index] for index in members])
        with watched(model, len(members)) as seen, torch.no_grad():
            model.forward(whole.inputs, rows=[-1])
        if seen.rows != max(runs[index].length for index in members):  # of several, each is tried alone then
            raise IndexingError(f"The layers of {model.name} do not all read each token once, so it cannot be indexed.")
        return [(runs[index], Seen(seen, place, whole.starts[place])) for place, index in enumerate(members)]

    groups = [[index] for index in range(len(runs))]
    if _batched(model, size):
        groups = _pieces(together(model, inputs, "passes"), size)
    yield from in_batches(model, groups, [run.length for run in runs], work)


def windows(model: Model, text: str, length: int) -> Iterator[Run]:
    """A text as it stands, at most ``length`` tokens at a time."""
    prompted = model.prepare(None, text, chat=False, whole=False)[0]
    length = min(length, model.longest or length)
    ids = prompted.input_ids
    if len(ids) <= length or model.is_encoder_decoder:
        yield Run.of(model, prompted)
        return
    for start in range(0, len(ids), length):
        part = slice(start, start + length)
        inputs = {name: _cut(value, part, len(ids)) for name, value in prompted.inputs.items()}
        yield Run.of(model, Prompted(model.decode_ids(ids[part]), False, inputs))


def _captioned(model: Model, asked: Sequence[Asked], reading: Reading) -> Iterator[tuple[int, Read | NeuronwiseError]]:
    """The captions that the model writes: every row but the last token's is read while it does."""
    inputs = [prompted.inputs for prompted, _ in asked]
    lengths = [one["input_ids"].shape[1] for one in inputs]
    how = Saying(reading.max_new_tokens, record=False)

    def work(members: list[int]) -> list[Read]:
        with watched(model, len(members)) as seen:
            said = say(model, [asked[index] for index in members], how)
        longest = max(lengths[index] for index in members)
        found: list[Read] = []
        for place, (index, one) in enumerate(zip(members, said, strict=True)):
            run = Run.of(model, *asked[index][:1], one.ids, asked[index][1], max_new_tokens=how.length)
            start = longest - lengths[index] if len(members) > 1 else 0
            whole = seen.rows >= start + run.length - bool(run.output_ids)
            found.append((run, Seen(seen, place, start)) if whole else _alone(model, run))
        return found

    groups = [[index] for index in range(len(asked))]
    if _batched(model, reading.batch):
        groups = _pieces(together(model, inputs, "left" if how.length else "passes"), reading.batch)
    yield from in_batches(model, groups, [length + how.length for length in lengths], work)


def _alone(model: Model, run: Run) -> Read:
    """A run of a model that generates otherwise, in one more pass."""
    read = next(read_runs(model, [run], 1))[1]
    if isinstance(read, NeuronwiseError):
        raise read
    return read


def _batched(model: Model, size: int) -> bool:
    """Whether sequences are read together; of experts each row is recorded by itself, which gains nothing."""
    return size > 1 and not any(block.experts for block in model.blocks)


def _pieces(groups: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    return [list(group[start : start + size]) for group in groups for start in range(0, len(group), size)]


def _numbered(
    indices: Sequence[int], found: Iterator[tuple[int, Read | NeuronwiseError]]
) -> Iterator[tuple[int, Read | NeuronwiseError]]:
    return ((indices[place], one) for place, one in found)


def _cut(value: Tensor, part: slice, length: int) -> Tensor:
    return value[:, part] if value.dim() == 2 and value.shape[1] == length else value
