"""Checks of what changes a model: suppression, edits applied, reverted, saved and exported."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuronwise.check.kept import structure_kept
from neuronwise.check.result import Deviation, Measured, NotApplicable, difference, within
from neuronwise.check.subject import Subject, allowed
from neuronwise.edit import Delta, Edit, load_edit
from neuronwise.edit.delta import writer_of
from neuronwise.edit.ledger import column_norms
from neuronwise.edit.storage import first_alike, writes_alone
from neuronwise.edit.trial import acting
from neuronwise.errors import EditError, MethodError
from neuronwise.intervene import suppress
from neuronwise.model.hooks import Hooks, first_tensor
from neuronwise.model.model import Model
from neuronwise.model.state import uncounted
from neuronwise.model.writers import Writer
from neuronwise.neurons import Neuron

EXACT = 1e-2  # of the edit: more than storing its factors in half precision changes
SIZE = 0.3  # of a value vector's norm: how far the edit that is tried moves it


def suppression(subject: Subject) -> Measured:
    """With neurons suppressed the logits are those of the model with their value vectors zeroed by hand."""
    model = subject.model
    neurons = alike(model, subject.neurons)
    before = subject.logits()
    with _zeroed(model, neurons):
        by_hand = subject.logits()
    if difference(by_hand, before) <= 1e-6:
        raise NotApplicable(f"zeroing {len(neurons)} neurons by hand moves no logit")
    try:
        with suppress(model, neurons):
            suppressed = subject.logits()
    except MethodError as error:
        raise NotApplicable(str(error)) from error
    share = difference(suppressed - before, by_hand - before)
    return within("difference", share, 10 * subject.tolerance, f"what {len(neurons)} neurons take from the logits")


def alike(model: Model, neurons: Sequence[Neuron]) -> list[Neuron]:
    """The neurons, and those of other layers that share their value vectors (one block that serves several layers)."""
    found = dict.fromkeys(neurons)
    for writer, members in model.by_writer(neurons).items():
        own, columns = first_alike(model, writer), writer.columns(members).tolist()
        for other in model.writers if writer.expert is None else ():
            if other.expert is None and first_alike(model, other) == own:
                found |= dict.fromkeys(map(other.neuron, columns))
    return list(found)


@contextlib.contextmanager
def _zeroed(model: Model, neurons: Sequence[Neuron]) -> Iterator[None]:
    """Value vectors set to zero in the weights themselves, and put back to the bit.

    Where weights are quantized or offloaded what the neurons write is taken out of the writer's output instead.
    """
    saved: list[tuple[Tensor, Tensor]] = []
    with Hooks() as hooks, torch.no_grad(), uncounted(model.module):
        try:
            for writer, members in model.by_writer(neurons).items():
                units = writer.columns(members)
                if writer.editable:
                    for unit in units.tolist():
                        column = writer.own_weight[:, unit]
                        saved.append((column, column.clone()))
                        column.zero_()
                elif writer.expert is None:
                    _take_out(hooks, model, writer, units)
                else:
                    raise NotApplicable("the experts' weights are quantized or offloaded: there is no column to zero")
            yield
        finally:
            for column, before in reversed(saved):
                column.copy_(before)


def _take_out(hooks: Hooks, model: Model, writer: Writer, units: Tensor) -> None:
    vectors = writer.vectors[:, units].float().clone()
    active = hooks.inside(model.blocks[writer.layer].module)

    def after(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor | None:
        if not active():
            return None
        fired = first_tensor(args, kwargs)[..., units.to(output.device)].float()
        return (output.float() - fired @ vectors.to(output.device).T).to(output.dtype)

    hooks.after(writer.module, after)


def made_edit(subject: Subject) -> Edit:
    """A change by chance of the subject's neurons, each by ``SIZE`` of its value vector's norm."""
    model = subject.model
    generator = torch.Generator().manual_seed(subject.seed)
    deltas = []
    for writer, members in model.by_writer(subject.neurons).items():
        units = writer.columns(members)
        norms = writer.vectors[:, units].float().norm(dim=0).cpu()
        left = torch.randn(model.hidden_size, len(units), generator=generator)
        left = left / left.norm(dim=0) * SIZE * norms
        deltas.append(Delta(writer.layer, writer.path, left.contiguous(), units=units, expert=writer.expert))
    record = {"method": "by chance", "model": model.name, "seed": subject.seed}
    return Edit(tuple(deltas), record, column_norms(model, deltas))


def edit(subject: Subject) -> Measured:
    """An applied edit adds exactly its numbers, changes what the model says, and comes out to the bit."""
    model, made = subject.model, made_edit(subject)
    before = subject.logits()
    owners = [first_alike(model, writer_of(model, delta)) for delta in made.deltas]
    writers = list(dict.fromkeys(owners))
    with _put_back(writers) as originals:
        wanted = {
            writer: _sum(weight, [delta for delta, owner in zip(made.deltas, owners, strict=True) if owner == writer])
            for writer, weight in originals.items()
        }
        made.apply(model)
        after = subject.logits()
        wrong = [writer for writer, weight in wanted.items() if not torch.equal(writer.own_weight, weight)]
        made.revert(model, force=True)  # also where it did not add what it should, which is judged here
        left = [writer for writer, weight in originals.items() if not torch.equal(writer.own_weight, weight)]
        again = subject.logits()
    if wrong:
        raise Deviation(
            f"applied, the weights of layer {wrong[0].layer} are not the old ones plus the change", wrong=1.0
        )
    if left:
        raise Deviation(f"reverted, the weights of layer {left[0].layer} are not what they were", left=float(len(left)))
    moved = difference(after, before)
    if moved <= 1e-6:
        raise Deviation("applied, the edit moves no logit", moved=moved)
    back = difference(again, before)
    what = f"{made.parameters_changed} numbers in {len(writers)} writers moved the logits by {moved:.1e}; reverted"
    return within("difference", back, 1e-6, what, moved=moved, numbers=made.parameters_changed)


@contextlib.contextmanager
def _put_back(writers: Sequence[Writer]) -> Iterator[dict[Writer, Tensor]]:
    """Copies of the writers' weights, where they hold numbers in memory; what the body leaves otherwise is mended."""
    originals = {writer: writer.own_weight.clone() for writer in writers if writer.editable}
    try:
        yield originals
    finally:
        with torch.no_grad():
            for writer, weight in originals.items():
                if not torch.equal(writer.own_weight, weight):
                    writer.own_weight.copy_(weight)


def _sum(weight: Tensor, deltas: Sequence[Delta]) -> Tensor:
    """W + ΔW in single precision or better, rounded once to the dtype of W."""
    exact = torch.promote_types(torch.float32, weight.dtype)
    changes: dict[int, Tensor] = {}
    for delta in deltas:
        assert delta.units is not None
        for unit, change in zip(delta.units.tolist(), delta.left.T, strict=True):
            changes[unit] = changes[unit] + change if unit in changes else change
    found = weight.clone()
    for unit, change in changes.items():
        found[:, unit] = (weight[:, unit].to(exact) + change.to(weight.device, exact)).to(weight.dtype)
    return found


def saved(subject: Subject) -> Measured:
    """A saved edit loads as the same numbers and does the same."""
    model, made = subject.model, made_edit(subject)
    with tempfile.TemporaryDirectory() as folder:
        made.save(Path(folder) / "edit")
        loaded = load_edit(Path(folder) / "edit")
        size = sum(file.stat().st_size for file in (Path(folder) / "edit").iterdir())
    for one, other in zip(made.deltas, loaded.deltas, strict=True):
        if one.key != other.key or not torch.equal(one.left, other.left) or not _equal(one.units, other.units):
            raise Deviation(f"the loaded change of layer {one.layer} is not the saved one")
    with made.applied(model):
        wanted = subject.logits()
    with loaded.applied(model):
        found = subject.logits()
    return within("difference", difference(found, wanted), 1e-6, f"{size / 1000:.1f} kB", bytes=size)


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other if one is None or other is None else torch.equal(one, other)


def adapter(subject: Subject) -> Measured:
    """The edit as an adapter, loaded by the peft library, gives the logits of the edited model."""
    model, made = subject.model, made_edit(subject)
    devices = {str(p.device) for p in model.module.parameters()}
    if len(devices) > 1 or "meta" in devices:
        raise NotApplicable("the model is spread over devices or offloaded, and peft would place it anew")
    before = subject.logits()
    # In half precision an edit in the weights is rounded with them and an adapter's is not: beside the weights, then.
    beside = not subject.exact and all(writes_alone(writer_of(model, delta)) for delta in made.deltas)
    with acting(model, made.deltas) if beside else made.applied(model):
        wanted = subject.logits()
    with tempfile.TemporaryDirectory() as folder:
        try:
            made.to_peft(model, Path(folder) / "adapter")
        except EditError as error:
            raise NotApplicable(str(error)) from error
        found = _adapted(subject, made, Path(folder) / "adapter")
    share = difference(found - before, wanted - before)
    return within("difference", share, subject.tolerance * (1 if subject.exact else 5), "what the edit adds")


def _require_same(adapted: nn.Module, model: Model, made: Edit) -> None:
    """Raise ``Deviation`` where what peft would add to a dense matrix is not the edit, in single precision."""
    for layer in adapted.modules():
        if not hasattr(layer, "get_delta_weight"):
            continue
        base = getattr(layer, "get_base_layer")()  # noqa: B009 (peft's, unknown to a type checker)
        own = [d for d in made.deltas if _is_of(writer_of(model, d), base)]
        if not own:  # experts in one parameter, or another writer of the same block
            continue
        added = getattr(layer, "get_delta_weight")("default").float()  # noqa: B009
        added = added.T if hasattr(base, "nx") else added
        wanted = torch.zeros_like(added)
        for delta in own:
            assert delta.units is not None
            wanted.index_add_(1, delta.units.to(added.device), delta.left.to(added))
        share = difference(added, wanted)
        if share > EXACT:
            raise Deviation(
                f"the adapter of layer {own[0].layer} is not the edit: it differs by {share:.1e}", wrong=share
            )


def _is_of(writer: Writer, base: nn.Module) -> bool:
    """Whether the writer writes with the weight of ``base`` and no other: its own, or one that is tied to it."""
    module, parameter = writer.holder
    return writes_alone(writer) and (module is base or getattr(module, parameter) is getattr(base, "weight", None))


def _adapted(subject: Subject, made: Edit, folder: Path) -> Tensor:
    import warnings

    from peft import PeftModel

    model = subject.model
    with uncounted(model.module), structure_kept(model.module), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        adapted = PeftModel.from_pretrained(model.module, str(folder)).eval()
        _require_same(adapted, model, made)
        output = adapted(**model.placed(subject.inputs), use_cache=False)
        return allowed((output.logits if hasattr(output, "logits") else output[0])[0, -1].float().cpu())
