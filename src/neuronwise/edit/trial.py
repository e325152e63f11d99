"""Passes in which a change is tried: it acts in what writers write, no weight is touched, and only the layers from the
lowest changed one upwards are computed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from neuronwise.edit.delta import Delta, writer_of
from neuronwise.edit.storage import writes_alone
from neuronwise.errors import NonFiniteError
from neuronwise.model.hooks import Args, Hooks, Kwargs, first_tensor
from neuronwise.model.model import Model
from neuronwise.model.passes import Rows, frozen_parameters, returning, stop_after
from neuronwise.model.products import ChangedProducts, Product
from neuronwise.model.prompt import Inputs
from neuronwise.model.writers import Experts, Writer

# (writer, its activations (…, f), what it writes for them (…, d)) → what it should write instead, None for the same
Change = Callable[[Writer, Tensor, Tensor], Tensor | None]


@contextlib.contextmanager
def changed(writers: Iterable[Writer], change: Change) -> Iterator[None]:
    """What each of the writers writes passes through ``change`` in every pass of the body."""
    fused: dict[Experts, dict[int, Writer]] = {}
    with Hooks() as hooks:
        for writer in dict.fromkeys(writers):
            if writes_alone(writer):

                def after(
                    module: nn.Module, args: Args, kwargs: Kwargs, output: Tensor, writer: Writer = writer
                ) -> Tensor | None:
                    return change(writer, first_tensor(args, kwargs), output)

                hooks.after(writer.module, after)
            elif writer.experts is not None and writer.expert is not None:
                fused.setdefault(writer.experts, {})[writer.expert - writer.experts.first] = writer
        for experts, members in fused.items():
            hooks.hold(ChangedProducts(experts, _of_members(members, change)))
        yield


def _of_members(members: dict[int, Writer], change: Change) -> Product:
    def product(expert: int, inputs: Tensor, output: Tensor) -> Tensor | None:
        return change(members[expert], inputs, output) if expert in members else None

    return product


@contextlib.contextmanager
def acting(model: Model, deltas: Iterable[Delta]) -> Iterator[None]:
    """Deltas act in every pass of the body as if they were in the weights."""
    by_writer: dict[Writer, list[Delta]] = {}
    for delta in deltas:
        by_writer.setdefault(writer_of(model, delta), []).append(delta)

    def add(writer: Writer, inputs: Tensor, output: Tensor) -> Tensor:
        for delta in by_writer[writer]:
            output = output + delta.written(inputs).to(output.dtype)
        return output

    with changed(by_writer, add):
        yield


def require_finite(values: Tensor, which: str) -> None:
    """Raise ``NonFiniteError`` for NaN or infinity in ``values``; ``which`` begins the sentence: "The loss is"."""
    if not bool(torch.isfinite(values).all()):
        raise NonFiniteError(f"{which} not finite; load the model with dtype=torch.float32.")


def lowest_layer(model: Model, writers: Iterable[Writer]) -> int:
    """The first layer that any of the writers serves: some models use one block in several layers."""
    listed = list(writers)
    modules = {id(writer.module) for writer in listed if writer.expert is None}
    shared = (layer for layer, block in enumerate(model.blocks) if any(id(w.module) in modules for w in block.dense))
    return min([*(writer.layer for writer in listed), next(shared, model.num_layers)])


class Forward(Protocol):
    """Logits (batch, rows, V) of a pass whose lower layers are not computed again.

    ``rows`` are those that pass the output head; ``of`` names sequences of the batch, each as often as it is named;
    None is all of them.
    """

    def __call__(self, rows: Rows | None = None, of: Sequence[int] | None = None) -> Tensor: ...


@contextlib.contextmanager
def recomputed_from(model: Model, lowest: int, inputs: Inputs) -> Iterator[Forward]:
    """Within the body the ``Forward`` gives the logits of ``inputs``, with gradients but none of parameters.

    Layers below ``lowest`` return what they returned in one recorded pass; hooks that the body sets on the others
    act.
    """
    below = [block.module for block in model.blocks[:lowest]]
    outputs = _outputs(model, below, inputs)
    size = next((len(value) for value in inputs.values()), 1)
    chosen: list[Tensor | None] = [None]

    def forward(rows: Rows | None = None, of: Sequence[int] | None = None) -> Tensor:
        whole = of is None or list(of) == list(range(size))
        chosen[0] = None if of is None or whole else torch.tensor(list(of))
        return model.forward({name: _of_batch(value, chosen[0], size) for name, value in inputs.items()}, rows)

    def result(key: int) -> Callable[[], object]:
        return lambda: _chosen(outputs[key], chosen[0], size)

    results = {module: result(id(module)) for module in below}
    with frozen_parameters(model.module), returning(results):
        yield forward


def _outputs(model: Model, modules: Sequence[nn.Module], inputs: Inputs) -> dict[int, object]:
    """What each of the modules returns in one pass over ``inputs``, by the module's id."""
    outputs: dict[int, object] = {}

    def keep(module: nn.Module, args: Args, kwargs: Kwargs, output: object) -> None:
        outputs[id(module)] = output

    if modules:
        with Hooks() as hooks, torch.no_grad():
            for module in modules:
                hooks.after(module, keep)
            with stop_after(modules[-1]):
                model.forward(inputs, rows=[-1])
    return outputs


def _chosen(value: object, sequences: Tensor | None, size: int) -> object:
    """The chosen sequences of whatever a layer takes or returns: a tensor of the whole batch, or several."""
    if isinstance(value, Tensor):
        return _of_batch(value, sequences, size)
    if isinstance(value, tuple | list):
        return type(value)(_chosen(part, sequences, size) for part in value)
    return value


def _of_batch(value: Tensor, sequences: Tensor | None, size: int) -> Tensor:
    if sequences is None or not value.dim() or len(value) != size:
        return value
    return value[sequences.to(value.device)]
