"""Value vectors of routed experts, changed for a while: their activations pass through no module of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.model.state import uncounted
from neuronwise.model.writers import Writer
from neuronwise.neurons import Neuron


@contextlib.contextmanager
def changed_vectors(
    chosen: Mapping[Writer, list[Neuron]],
    positions: Sequence[int] | None,
    change: Callable[[Tensor, list[Neuron]], Tensor],
) -> Iterator[None]:
    """Change the value vectors (d, k) of routed neurons within the body; they are restored bit for bit."""
    routed = {writer: own for writer, own in chosen.items() if writer.expert is not None}
    if routed and positions is not None:
        first = next(iter(routed.values()))[0]
        raise MethodError(f"{first} is a routed expert's neuron; it can only be changed at all positions.")
    saved: list[tuple[Tensor, Tensor, Tensor]] = []
    try:
        with torch.no_grad(), _restorable(routed):
            for writer, own in routed.items():
                weight, columns = writer.own_weight, writer.columns(own)
                before = weight[:, columns]
                saved.append((weight, columns, before))
                weight[:, columns] = change(before, own)
        yield
    finally:
        with torch.no_grad(), _restorable(routed):
            for weight, columns, before in reversed(saved):
                weight[:, columns] = before


@contextlib.contextmanager
def _restorable(writers: Iterable[Writer]) -> Iterator[None]:
    """The weights of these writers change in the body, and change back later."""
    with contextlib.ExitStack() as stack:
        for module in {id(writer.holder[0]): writer.holder[0] for writer in writers}.values():
            stack.enter_context(uncounted(module))
        yield
