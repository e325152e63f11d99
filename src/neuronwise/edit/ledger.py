"""The edits that a model carries: brought in and taken out together, whole or not at all, and to the bit."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from neuronwise.edit.delta import Delta, Recorded, columns, summed, writer_of
from neuronwise.edit.side_memory import SideMemory, beside
from neuronwise.edit.storage import first_alike, stored
from neuronwise.errors import EditError, NonFiniteError
from neuronwise.model.hooks import Args, Kwargs, Removable, first_tensor
from neuronwise.model.model import Model
from neuronwise.model.state import uncounted, unsettle
from neuronwise.model.wrapper import EDITS
from neuronwise.model.writers import Writer

LIKE = 0.03  # relative difference of column norms up to which two models count as the same (half precision allowed for)


WITHIN = "within|"  # begins the names of ⟨W, ΔW⟩ among an edit's norms
ROUNDED = 0.2  # how far rounding may move the share of an edit that weights hold from 1


class Held(NamedTuple):
    """What brings one writer back: its columns as they were before any edit, or the adapter that was put beside it."""

    touched: Tensor
    originals: Tensor
    release: Callable[[], object]
    adapter: Removable | None = None


class Ledger:
    """The edits of one model and, for each writer they change, what it was before any of them.

    It is kept with the weights (``Model.home``): all wrappers of one module share them. A model that carries no edit
    has none.
    """

    def __init__(self) -> None:
        self.edits: tuple[Recorded, ...] = ()
        self.held: dict[Writer, Held] = {}
        self.beside: list[Removable] = []  # the memories, as they act

    @classmethod
    def of(cls, model: Model) -> Ledger:
        """The ledger of a model, an empty one where it carries no edit."""
        return model.home.__dict__.get(EDITS) or cls()

    def holds(self, edit: Recorded) -> bool:
        """Whether an edit is among them, or the same changes with another record."""
        return any(other is edit or other.fingerprint == edit.fingerprint for other in self.edits)

    def apply(self, model: Model, edit: Recorded) -> None:
        """Bring an edit into the model; see ``Edit.apply``."""
        present = {delta.fingerprint for other in self.edits for delta in other.deltas}
        again = any(delta.fingerprint in present for delta in edit.deltas if not delta.empty)
        again |= any(preface in other.prefaces for other in self.edits for preface in edit.prefaces)
        kept = {memory.fingerprint for other in self.edits for memory in other.memories}
        again |= any(memory.fingerprint in kept for memory in edit.memories)
        if again or any(other is edit for other in self.edits):
            raise EditError("This edit is applied already; revert it before applying it again.")
        require_not_within(model, edit)
        require_same_model(model, edit)
        self.change(model, [*self.edits, edit])

    def revert(self, model: Model, edit: Recorded, *, force: bool = False) -> None:
        """Take an edit out of the model; see ``Edit.revert``."""
        alike = [other for other in self.edits if other.fingerprint == edit.fingerprint]
        own = next((other for other in self.edits if other is edit), alike[0] if alike else None)
        if own is None:
            raise EditError("This edit is not applied to this model, so there is nothing to revert.")
        self.change(model, [other for other in self.edits if other is not own], force=force)

    @contextlib.contextmanager
    def applied(self, model: Model, edit: Recorded) -> Iterator[None]:
        """The edit for the duration of the body, also when it raises."""
        with model.lock:
            self.apply(model, edit)
            try:
                yield
            finally:
                if Ledger.of(model).holds(edit):  # unless the body took it out
                    Ledger.of(model).revert(model, edit)

    def change(self, model: Model, edits: Sequence[Recorded], *, force: bool = False) -> None:
        """Bring the weights from the present edits to ``edits``: originals plus the sum of all deltas, in float32.

        Memories act on what the edited weights give, also where those are quantized.

        When anything fails on the way, also by an interrupt, the weights are what they were before the call. Columns
        that somebody else has changed since are refused, unless ``force`` brings them back to what they were.
        """
        unsettle(model)
        with uncounted(model.module):  # the model's state has the edits themselves
            if not force:
                self._require_untouched(model)
            self._change(model, edits)

    def _require_untouched(self, model: Model) -> None:
        present = self._by_writer(model, self.edits)
        for writer, before in self.held.items():
            found = stored(writer) if before.adapter is None else None
            if found is None:
                continue
            exact = before.originals.to(torch.promote_types(torch.float32, before.originals.dtype))
            left = (exact + summed(present[writer], before.touched, exact)).to(before.originals.dtype)
            now = found.weight[:, before.touched.to(found.weight.device)]
            if not torch.equal(now, left.to(now)):
                raise EditError(
                    f"Weights of layer {writer.layer} that an edit changed were changed again while it was in (by "
                    "training, or by hand), and would be lost; revert(model, force=True) brings back what was there "
                    "before the edit."
                )

    def _memories(self, model: Model, edits: Sequence[Recorded]) -> dict[Writer, list[SideMemory]]:
        found: dict[Writer, list[SideMemory]] = {}
        for edit in edits:
            for memory in edit.memories:
                found.setdefault(first_alike(model, writer_of(model, memory)), []).append(memory)
        return found

    def _by_writer(self, model: Model, edits: Sequence[Recorded]) -> dict[Writer, list[Delta]]:
        found: dict[Writer, list[Delta]] = {}
        for edit in edits:
            for delta in edit.deltas:
                found.setdefault(first_alike(model, writer_of(model, delta)), []).append(delta)
        return found

    @torch.no_grad()
    def _change(self, model: Model, edits: Sequence[Recorded]) -> None:
        wanted = self._by_writer(model, edits)
        undo: list[Callable[[], object]] = []
        held: dict[Writer, Held] = {}
        handles: list[Removable] = []
        try:
            for writer in sorted({*self.held, *wanted}, key=str):
                now = self._bring(writer, wanted.get(writer, []), undo)
                if now is not None:
                    held[writer] = now
            for writer, memories in self._memories(model, edits).items():
                handles.append(beside(writer.module, memories))
        except BaseException:
            for handle in handles:
                handle.remove()
            for step in reversed(undo):
                step()
            raise
        if handles or self.beside or any(one.adapter is not None for one in (*held.values(), *self.held.values())):
            forget_compiled()
        for handle in self.beside:
            handle.remove()
        for writer, before in self.held.items():
            if before.adapter is not None:
                before.adapter.remove()
            if writer not in held:
                before.release()
        self.edits, self.held, self.beside = tuple(edits), held, handles
        model.home.__dict__.pop(EDITS, None)
        if edits:
            model.home.__dict__[EDITS] = self

    def _bring(self, writer: Writer, deltas: list[Delta], undo: list[Callable[[], object]]) -> Held | None:
        """Bring one writer to the sum of ``deltas``; what takes it back is appended to ``undo`` first."""
        before = self.held.get(writer)
        found = stored(writer) if before is None or before.adapter is None else None
        if found is None:
            if not deltas:
                return None
            handle = adapter(writer.module, deltas)
            undo.append(handle.remove)
            return Held(torch.zeros(0), torch.zeros(0), _nothing, handle)
        weight, release = found
        if before is None:
            undo.append(release)
        else:
            release = before.release
        touched = columns(deltas, weight.shape[1])
        past = touched[:0] if before is None else before.touched
        both = torch.cat([touched, past]).unique()
        whole = weight[:, both.to(weight.device)]  # a copy
        undo.append(lambda: write(weight, both, whole))
        base = whole.clone()
        if before is not None:
            base[:, torch.searchsorted(both, past).to(base.device)] = before.originals.to(
                base
            )  # the model may be elsewhere by now
        originals = base[:, torch.searchsorted(both, touched).to(base.device)]
        exact = originals.to(torch.promote_types(torch.float32, originals.dtype))
        values = (exact + summed(deltas, touched, exact)).to(weight.dtype)
        if not torch.isfinite(values).all():
            raise NonFiniteError(
                f"With this edit weights of layer {writer.layer} exceed what {weight.dtype} holds; it is refused."
            )
        base[:, torch.searchsorted(both, touched).to(base.device)] = values
        write(weight, both, base)
        return Held(touched, originals, release) if deltas else None


def forget_compiled() -> None:
    """Have ``torch.compile`` look at modules again: code that it made before does not see hooks that came or went."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        dynamo.reset()


def write(weight: Tensor, at: Tensor, values: Tensor) -> None:
    """weight[:, at] ← values, in place."""
    weight[:, at.to(weight.device)] = values


def adapter(module: nn.Module, deltas: Sequence[Delta]) -> Removable:
    """Let a writer whose weights cannot be written add left · right · input to its output, in float32."""

    return module.register_forward_hook(functools.partial(_added, deltas), with_kwargs=True)


def _added(deltas: Sequence[Delta], module: nn.Module, args: Args, kwargs: Kwargs, output: Tensor) -> Tensor:
    inputs = first_tensor(args, kwargs)
    added = sum((delta.written(inputs) for delta in deltas[1:]), deltas[0].written(inputs))
    return (output.float() + added.to(output.device)).to(output.dtype)


def column_norms(model: Model, deltas: Iterable[Delta], memories: Iterable[SideMemory] = ()) -> dict[str, Tensor]:
    """What tells the weights that deltas are made for from others, those of another model or with the deltas in them.

    The norms of the first 64 value vectors of each writer, and ⟨W, ΔW⟩ of each delta. Those of the model itself:
    edits that it carries do not count.
    """
    norms: dict[str, Tensor] = {}
    for part in (*deltas, *memories):
        vectors = _unedited(model, writer_of(model, part))
        norms["|".join(map(str, part.key))] = vectors[:, :64].float().norm(dim=0).cpu()
        if isinstance(part, Delta):
            norms[f"{WITHIN}{part.fingerprint}"] = torch.tensor([part.within(vectors)], dtype=torch.float64)
    return norms


def _unedited(model: Model, writer: Writer) -> Tensor:
    """(d, width) value vectors without the edits that the model carries."""
    past = Ledger.of(model).held.get(first_alike(model, writer))
    if past is None or past.adapter is not None:
        return writer.vectors
    vectors = writer.vectors.clone()
    vectors[:, past.touched.to(vectors.device)] = past.originals.to(vectors)
    return vectors


def require_not_within(model: Model, edit: Recorded) -> None:
    """Raise ``EditError`` when the weights hold all changes of an edit without having been edited here, as those of a
    merged checkpoint do."""
    shares = []
    for delta in edit.deltas:
        before, square = edit.norms.get(f"{WITHIN}{delta.fingerprint}"), delta.square
        if before is None or before.numel() != 1 or not square:
            return
        shares.append((delta.within(_unedited(model, writer_of(model, delta))) - float(before)) / square)
    if shares and all(abs(share - 1) < ROUNDED for share in shares):
        raise EditError(f"The weights of {model.name} hold this edit already: it was merged into them.")


def require_same_model(model: Model, edit: Recorded) -> None:
    """Raise ``EditError`` when an edit does not fit the model, or was made for another."""
    for name, now in column_norms(model, edit.deltas, edit.memories).items():
        before = None if name.startswith(WITHIN) else edit.norms.get(name)
        if before is None or (now.shape == before.shape and torch.allclose(now, before, rtol=LIKE, atol=1e-6)):
            continue
        made_for = edit.record.get("model", "another model")
        raise EditError(f"The weights of {model.name} are not those that this edit was made for ({made_for}).")


def _nothing() -> None:
    return None
