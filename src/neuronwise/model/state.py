"""Which model this is, and in which state its weights are."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, fields
from threading import RLock
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from neuronwise.model.blocks import Block
from neuronwise.model.weights import is_plain, plain_weight

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M", bound="HasWeights")

LIKE = 0.03  # relative difference of embedding norms up to which two models count as the same


# Numbers of each W_down, and of the head, that are looked at, for changes that torch does not count (.data).
SAMPLE = 64
LIBRARIES = ("neuronwise", "transformers", "accelerate", "peft", "torch")  # whose own hooks change nothing for good
_ACTING = "_neuronwise_interventions"  # where ``home`` keeps what acts on it now
_SETTLED = "_neuronwise_state"  # where ``home`` keeps the state while it is settled
# Parameter → how many of its counted changes are the ledger's, or taken back.
_RESTORED: MutableMapping[Tensor, int] = WeakIdKeyDictionary()


class HasWeights(Protocol):
    """A model, as far as its weights and what is in them go."""

    module: Any
    blocks: list[Block]
    head: nn.Module

    @property
    def edits(self) -> tuple[object, ...]:
        """The edits that are applied now."""
        ...

    @property
    def home(self) -> nn.Module:
        """Where what belongs to the weights is kept."""
        ...

    @property
    def lock(self) -> RLock:
        """Held while the model is changed."""
        ...


class HasMemory(HasWeights, Protocol):
    """One that remembers."""

    def memo(self, key: Hashable, make: Callable[[], str]) -> str:
        """What ``make`` gave the first time."""
        ...


@dataclass(frozen=True)
class State:
    """What a model computes depends on: cheap to take, and equal as long as nothing has changed.

    An edit that was applied and reverted leaves the state as it was; so does an intervention that is over.
    """

    edits: tuple[str, ...]
    interventions: tuple[Hashable, ...]
    hooks: frozenset[int]
    weights: int

    def difference(self, other: State) -> str | None:
        """In what another state differs from this one, in words; None where it does not."""
        first = next((f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)), None)
        return None if first is None else _DIFFERENCES[first]


@dataclass(frozen=True)
class Opened:
    """How a model was opened by its name: the options of ``load``, and its state then."""

    options: Mapping[str, object]
    state: State


_DIFFERENCES = {
    "edits": "an edit has been applied or reverted since",
    "interventions": "another intervention, or none, was in force",
    "hooks": "hooks have been set or removed since",
    "weights": "its weights have been changed since",
}


def settled(function: Callable[Concatenate[M, P], T]) -> Callable[Concatenate[M, P], T]:
    """A function of a model that takes its state once: nothing but an intervention or an edit changes it, after which
    it is taken anew, and other threads wait."""

    @functools.wraps(function)
    def call(model: M, *args: P.args, **kwargs: P.kwargs) -> T:
        with model.lock:
            before = _settle(model, state_of(model))
            try:
                return function(model, *args, **kwargs)
            finally:
                _settle(model, before)

    return call


def unsettle(model: HasWeights) -> None:
    """The state is about to change: from now on it is taken anew."""
    _settle(model, None)


def _settle(model: HasWeights, state: State | None) -> State | None:
    """What the state is taken for from now on (None: taken anew, and ``home`` is as it was); what it was until now."""
    before: State | None = model.home.__dict__.pop(_SETTLED, None)
    if state is not None:
        model.home.__dict__[_SETTLED] = state
    return before


def state_of(model: HasWeights) -> State:
    """The state of a model as it is now; no pass and no reading of all weights."""
    known: State | None = model.home.__dict__.get(_SETTLED)
    if known is not None:
        return known
    module: nn.Module = model.module
    edits = tuple(sorted(getattr(edit, "fingerprint", "") for edit in model.edits))
    acting = tuple(what for what, _ in model.home.__dict__.get(_ACTING, {}).values())
    parts = _parts(module)
    return State(edits, acting, _foreign_hooks(parts), hash((_counted(parts), _sampled(model) if not edits else ())))


@contextlib.contextmanager
def acting(model: HasWeights, *what: Hashable, places: Sequence[int] | None = None) -> Iterator[None]:
    """Within the body an intervention, known by ``what`` it does, is part of the model's state; other threads wait.

    ``places``: the rows of a sequence at which alone it does it.
    """
    at = None if places is None else tuple(places)
    with model.lock:
        present: dict[object, tuple[Hashable, bool]] = model.home.__dict__.setdefault(_ACTING, {})
        entry, known = object(), _settle(model, None)
        present[entry] = (*what, at), at is not None
        try:
            yield
        finally:
            del present[entry]
            if known is not None:
                model.home.__dict__.setdefault(_SETTLED, known)  # unless it changed meanwhile


def counts_rows(model: HasWeights) -> bool:
    """Whether an intervention at some rows of a sequence is in force: padding would move them."""
    return any(placed for _, placed in model.home.__dict__.get(_ACTING, {}).values())


@contextlib.contextmanager
def uncounted(module: nn.Module) -> Iterator[None]:
    """Changes of the weights in the body are not changes of the state: they are recorded elsewhere, or taken back."""
    before = [(parameter, _version(parameter)) for parameter in module.parameters()]
    try:
        yield
    finally:
        for parameter, version in before:
            if _version(parameter) != version:
                _RESTORED[parameter] = _RESTORED.get(parameter, 0) + _version(parameter) - version


def _version(parameter: Tensor) -> int:
    return 0 if parameter.is_inference() else parameter._version


def _parts(module: nn.Module) -> list[nn.Module]:
    """``module.modules()``, in an order of its own and in a tenth of the time: a state is taken often."""
    found, left = {id(module): module}, [module]
    while left:
        for child in vars(left.pop())["_modules"].values():
            if child is not None and id(child) not in found:
                found[id(child)] = child
                left.append(child)
    return list(found.values())


def _counted(parts: Sequence[nn.Module]) -> tuple[tuple[int, int], ...]:
    tables: list[dict[str, nn.Parameter | None]] = [vars(part)["_parameters"] for part in parts]
    parameters = {id(p): p for table in tables for p in table.values() if p is not None}
    restored = {id(p): count for p, count in _RESTORED.items()}
    return tuple(
        (p.data_ptr() if is_plain(p) else 0, _version(p) - restored.get(number, 0)) for number, p in parameters.items()
    )


def _sampled(model: HasWeights) -> tuple[bytes, ...]:
    weights = [getattr(*writer.holder, None) for block in model.blocks for writer in block.dense]
    return tuple(
        weight.detach().reshape(-1)[:: max(1, weight.numel() // SAMPLE)].float().cpu().numpy().tobytes()
        for weight in [*weights, getattr(model.head, "weight", None)]
        if isinstance(weight, Tensor) and is_plain(weight)
    )


def _foreign_hooks(parts: Sequence[nn.Module]) -> frozenset[int]:
    """Hooks that somebody else has set, such as a steering vector's."""
    return frozenset(
        number
        for part in parts
        for table in ("_forward_hooks", "_forward_pre_hooks")
        for number, hook in vars(part)[table].items()
        if (getattr(getattr(hook, "func", hook), "__module__", None) or "").partition(".")[0] not in LIBRARIES
    )


def likeness(model: HasWeights) -> Tensor:
    """(≤ 64 + 1,) norms of the first input embeddings, and f: what edits of W_down leave as it is."""
    rows = plain_weight(model.module.get_input_embeddings())[:64].float().norm(dim=1).cpu()
    return torch.cat([rows, torch.tensor([float(max(block.width for block in model.blocks))])])


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether two ``likeness`` vectors are of the same model."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=LIKE, atol=1e-6)


def weights_hash(model: HasMemory) -> str | None:
    """SHA-256 over all parameters as they are, edits included; None where some are offloaded or quantized.

    About one second for each gigabyte. It is computed anew only when a parameter was replaced or changed in place.
    """
    parameters = list(model.module.named_parameters())
    if not all(is_plain(parameter) for _, parameter in parameters):
        return None
    state = tuple((parameter.data_ptr(), parameter._version) for _, parameter in parameters)

    def computed() -> str:
        digest = hashlib.sha256()
        for name, parameter in parameters:
            digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
            digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    return model.memo(("weights hash", state), computed)
