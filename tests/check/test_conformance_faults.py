"""Faults that are planted, and the one check of conformance that is to report each."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

import conformed
from neuronwise import intervene
from neuronwise.check import (
    CHECKS,
    FAILED,
    NAMES,
    changes,
    conform,
    scores,
)
from neuronwise.check.subject import Subject
from neuronwise.edit import Delta, Edit, ledger
from neuronwise.edit.delta import summed
from neuronwise.edit.ledger import Ledger
from neuronwise.model import Model, Run
from neuronwise.model.activations import ExpertActivation
from neuronwise.model.record import Recorder
from neuronwise.model.writers import Writer
from neuronwise.read import extremes
from neuronwise.read.heatmap import Heatmap

contribution_module = importlib.import_module("neuronwise.locate.contribution")  # the room has a function of that name
head_module = importlib.import_module("neuronwise.locate.heads")
wrapper = importlib.import_module("neuronwise.model.wrapper")
gradient_module = importlib.import_module("neuronwise.locate.gradient")


# Planted faults: each is to be reported by the one check that is there for it.


def within(monkeypatch: pytest.MonkeyPatch, name: str, enter: Callable[[], Any]) -> None:
    """The fault is there for the duration of one check alone."""
    title, check = CHECKS[name]

    def checked(subject: Subject) -> Any:
        with enter():
            return check(subject)

    monkeypatch.setitem(CHECKS, name, (title, checked))


def changed(owner: Any, name: str, change: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """What ``owner.name`` returns passes through ``change``, which gets its arguments too."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        own = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given, **more: change(own(*given, **more), *given, **more))

    return plant


def other_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    own = wrapper.only_rows
    patch = mock.patch.object(wrapper, "only_rows", lambda model, rows: own(model, None if rows is None else [-2]))
    within(monkeypatch, "logits", lambda: patch)


def wrong_recording(run: Run, *_: Any, **__: Any) -> Run:
    run.steps[0].dense[1] = run.steps[0].dense[1] + 0.1
    return run


def wrong_shares(found: Any, *_: Any, normalize: bool = False, **__: Any) -> Any:
    if normalize:
        found[0].update({writer: 1.05 * values for writer, values in found[0].items()})
    return found


def wrong_heads(found: Any, *_: Any) -> Any:
    return {one: 1.05 * values for one, values in found.items()}


def wrong_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    own = gradient_module.times_gradients

    def more(parts: Any, gradients: Any) -> Any:
        return own(parts, {site: 1.1 * gradient for site, gradient in gradients.items()})

    monkeypatch.setattr(gradient_module, "times_gradients", more)


def whole_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuronwise.model.relevance.half", lambda left, right: left * right)


def idle_suppression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervene, "_changed", lambda *args: contextlib.nullcontext())


def half_suppression(monkeypatch: pytest.MonkeyPatch) -> None:
    own = intervene.scale
    monkeypatch.setattr(
        intervene, "scale", lambda model, neurons, factor, positions=None: own(model, neurons, 0.5, positions)
    )


def edit_that_adds_less(monkeypatch: pytest.MonkeyPatch) -> None:
    own, calls = Ledger.change, [0]

    def change(self: Ledger, model: Model, edits: Any, *, force: bool = False) -> None:
        calls[0] += 1
        with monkeypatch.context() as first:
            if calls[0] == 1:
                first.setattr(ledger, "summed", lambda *given: 0.999 * summed(*given))
            own(self, model, edits, force=force)

    monkeypatch.setattr(Ledger, "change", change)


def _scaled(edit: Edit, factor: float) -> Edit:
    deltas = tuple(Delta(d.layer, d.path, factor * d.left, d.units, d.right, d.expert) for d in edit.deltas)
    return Edit(deltas, edit.record, edit.norms)


def edit_that_does_not_come_out(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Edit.revert
    calls = [0]

    def revert(self: Edit, model: Model, *, force: bool = False) -> None:
        own(self, model, force=force)
        calls[0] += 1
        if calls[0] == 1:
            changed = model.module.model.language_model.layers[1].mlp.down_proj.weight.data
            changed[0, 0] = changed[0, 0] * (1 + 2**-23)  # the last bit of one number

    monkeypatch.setattr(Edit, "revert", revert)


def wrong_span(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Run.image_positions.func  # type: ignore[attr-defined]
    monkeypatch.setattr(Run, "image_positions", property(lambda self: own(self) + 1))


def wrong_image_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The place of the photo is taken for a word's."""
    own = Run.image_positions.func  # type: ignore[attr-defined]

    @contextlib.contextmanager
    def enter() -> Iterator[None]:
        with (
            mock.patch.object(Model, "image_token_id", property(lambda self: 11)),
            mock.patch.object(Run, "image_positions", property(own)),
        ):
            yield

    within(monkeypatch, "span", enter)


def heat_beside_the_photo(found: Any, *_: Any) -> Any:
    found[:, : found.shape[1] // 2] = np.nan
    return found


def after_reading(change: Callable[[Model], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    return changed(scores, "decode_all", lambda found, model, *_, **__: (change(model), found)[1])


def one_bit(model: Model) -> None:
    weight = model.module.get_input_embeddings().weight.data
    weight[3, 4] = weight[3, 4] * (1 + 2**-23)


def wrong_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Recorder.__exit__

    def leave(self: Recorder, *exception: object) -> None:
        own(self, *exception)
        for recorded in self.passes:
            recorded.dense = {layer: rows.double() for layer, rows in recorded.dense.items()}

    monkeypatch.setattr(Recorder, "__exit__", leave)


FAULTS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "rows that were not asked for": ("logits", other_rows),
    "wrong value vectors": ("activations", changed(Writer, "written", lambda found, *_: 1.01 * found)),
    "another activation recorded": ("generation", changed(Model, "run_prompted", wrong_recording)),
    "shares that are too large": ("shares", changed(scores, "score_all", wrong_shares)),
    "heads that are too large": ("heads", changed(head_module, "mixed", wrong_heads)),
    "a wrong unembedding": (
        "contribution",
        changed(contribution_module, "_by_unembedding", lambda found, *_: lambda writer: 1.01 * found(writer)),
    ),
    "a wrong gradient": ("gradient", wrong_gradient),
    "products that pass all to both factors": ("relevance", whole_products),
    "suppression that does nothing": ("suppression", idle_suppression),
    "suppression by half": ("suppression", half_suppression),
    "an edit that adds too little": ("edit", edit_that_adds_less),
    "an edit that leaves a bit": ("edit", edit_that_does_not_come_out),
    "another edit in the folder": ("saved", changed(changes, "load_edit", lambda edit, *_: _scaled(edit, 1.0001))),
    "a wrong adapter": ("adapter", changed(Delta, "factors", lambda pair, *_: tuple(1.05 * one for one in pair))),
    "tokens from the wrong end": ("decoding", changed(extremes, "_extremes", lambda ends, *_: ends[::-1])),
    "a span beside the photo": ("span", wrong_span),
    "a word taken for the photo": ("span", wrong_image_token),
    "heat of another shape": ("heat", changed(Heatmap, "image", lambda found, *_: found[:-1])),
    "heat on half of the photo": ("heat", changed(Heatmap, "image", heat_beside_the_photo)),
    "a hook that is left": ("untouched", after_reading(lambda m: m.head.register_forward_hook(lambda *call: None))),
    "a flag that is changed": ("untouched", after_reading(lambda m: m.head.weight.requires_grad_(False))),
    "a bit of the embeddings": ("untouched", after_reading(one_bit)),
    "a model set to train": ("untouched", after_reading(lambda m: m.module.train())),
    "activations of another dtype": ("placement", wrong_dtype),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_reported_by_its_check_alone(
    fault: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, plant = FAULTS[fault]
    about = conformed.tiny("llava", dtype)
    plant(monkeypatch)
    report = conform(*about)
    assert [one.name for one in report.results if one.outcome == FAILED] == [name]
    assert report[name].detail
    assert not report.passed


def test_every_check_has_a_fault_that_it_finds() -> None:
    assert {name for name, _ in FAULTS.values()} == set(NAMES)


@pytest.mark.parametrize("fault", ["experts", "columns"])
def test_faults_of_experts_are_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    about = conformed.tiny("mixtral")
    if fault == "experts":
        more = property(lambda self: 1.01 * self.weight * self.activation.float())
        within(monkeypatch, "activations", lambda: mock.patch.object(ExpertActivation, "written", more))
    else:
        monkeypatch.setattr(intervene, "changed_vectors", lambda *args: contextlib.nullcontext())
    found = [one.name for one in conform(*about).results if one.outcome == FAILED]
    assert found == ["activations" if fault == "experts" else "suppression"]


def test_a_check_that_raises_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(subject: Subject) -> Any:
        raise ZeroDivisionError("on purpose\nand more")

    monkeypatch.setitem(CHECKS, "shares", ("exact shares", broken))
    report = conformed.conformed("llama")
    assert report["shares"].detail == "raised ZeroDivisionError: on purpose"
    assert [one.name for one in report.results if one.outcome == FAILED] == ["shares"]
    assert len(report.results) == len(NAMES)
