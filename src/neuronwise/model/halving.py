"""Work in batches that fit into memory: one that does not is halved, and later ones begin with what fitted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from neuronwise.errors import ModelError, NeuronwiseError, is_out_of_memory
from neuronwise.model.stacking import grouped
from neuronwise.model.wrapper import Wrapper

T = TypeVar("T")
BatchSize = int | Literal["auto"]
MEMBERS_ON_CPU, MEMBERS = 16, 64  # of an automatic batch at most: more gain little
ROOM = 32768  # tokens of an automatic batch with its padding, until memory runs out


@dataclass
class _Room:
    """Tokens that fit into memory in one batch, as far as is known."""

    tokens: int = ROOM


def in_batches(
    model: Wrapper,
    together: Sequence[Sequence[int]],
    lengths: Sequence[int],
    work: Callable[[list[int]], Sequence[T]],
    size: BatchSize = "auto",
) -> Iterator[tuple[int, T | NeuronwiseError]]:
    """What ``work`` gives for each member of a batch, with its index, or the error that it raises for it alone.

    ``together``: groups of indices that may be in one batch; ``lengths``: tokens of each member. ``size``: members at
    most; "auto" begins with 16 (64 on an accelerator), halves a batch that runs out of memory, and begins with what
    fitted from then on. Raises ``ModelError`` where a given size does not fit.
    """
    room = model.memo("room of a batch", _Room)
    most = most_members(model, size)
    for alike in together:
        tokens = room.tokens if size == "auto" else most * max(lengths[index] for index in alike)
        groups = grouped([lengths[index] for index in alike], tokens, most)
        waiting = deque([alike[n] for n in group] for group in groups)
        while waiting:
            members = waiting.popleft()
            found = _tried(work, members)
            half = len(members) // 2
            if not isinstance(found, Exception):
                yield from zip(members, found, strict=True)
            elif not half:
                yield members[0], _ours(found)
            elif not is_out_of_memory(found):  # one of them is to blame
                waiting.extendleft([index] for index in reversed(members))
            elif size == "auto":
                room.tokens = min(room.tokens, half * max(lengths[index] for index in members))
                waiting.extendleft((members[half:], members[:half]))
            else:
                raise ModelError(
                    f"{len(members)} prompts do not fit into memory together; give a smaller batch_size, or 'auto'."
                ) from found


def most_members(model: Wrapper, size: BatchSize) -> int:
    """How many members a batch has at most."""
    return size if size != "auto" else MEMBERS_ON_CPU if model.device.type == "cpu" else MEMBERS


def require_size(size: BatchSize) -> None:
    """Raise ``ModelError`` for what is no size of a batch."""
    if size != "auto" and size < 1:
        raise ModelError(f"batch_size is {size}; it counts prompts, so 1 or more, or 'auto'.")


def _tried(work: Callable[[list[int]], Sequence[T]], members: list[int]) -> Sequence[T] | Exception:
    try:
        return work(members)
    except Exception as error:  # of one of several members, or for want of memory
        return error.with_traceback(None)  # which would keep the batch in memory


def _ours(error: Exception) -> NeuronwiseError:
    """Raises what is no error of ours."""
    if not isinstance(error, NeuronwiseError):
        raise error
    return error
