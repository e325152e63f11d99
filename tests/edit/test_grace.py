"""GRACE against its published adapter written again: the same keys, radii and values; and how codebooks are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator
from torch import Tensor, nn

import families
import neuronwise as nw
from neuronwise.answers.request import forced
from neuronwise.data.facts import Fact
from neuronwise.edit import EDITORS, Edit, grace, load_edit, lora
from neuronwise.edit.export.hub import card
from neuronwise.edit.side_memory import SideMemory
from neuronwise.errors import EditError, MethodError, NonFiniteError
from neuronwise.model.model import Model

FACTS = (Fact("the capital of {} is", "France", "cat house"), Fact("{} sits on the", "cat", "red"))
LAYER = 1


@pytest.fixture(params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, tiny_tokenizer: Any) -> Model:
    return opened(request.param, tiny_tokenizer)


def opened(family: str, tokenizer: Any) -> Model:
    return Model(families.tiny(family)[0], tokenizer, name=family)


class Adapter(nn.Module):
    """The published layer, as its paper's code has it: told where the prompt ends, and replacing there alone."""

    def __init__(self, layer: nn.Module, radius: float) -> None:
        super().__init__()
        self.layer, self.radius = layer, radius
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.radii: list[float] = []
        self.targets: list[list[int]] = []
        self.place, self.fresh, self.target = 0, False, list[int]()

    def forward(self, inputs: Tensor) -> Tensor:
        output = self.layer(inputs)
        query = inputs[0, self.place].detach()
        distances = [float((key - query).norm()) for key in self.keys]
        if self.fresh:
            self.fresh = False
            best = min(range(len(distances)), key=distances.__getitem__, default=None)
            if best is None or distances[best] > self.radius + self.radii[best]:
                self.add(query, output, self.radius)
            elif self.targets[best] != self.target:
                self.radii[best] = distances[best] / 2 - 1e-5
                self.add(query, output, distances[best] / 2)
            elif distances[best] > self.radii[best]:
                self.radii[best] = distances[best]
            distances = [float((key - query).norm()) for key in self.keys]
        best = min(range(len(distances)), key=distances.__getitem__)
        if distances[best] <= self.radii[best] * (1 + 1e-6):
            row = torch.arange(output.shape[1])[None, :, None] == self.place
            output = torch.where(row, self.values[best], output)
        return output

    def add(self, query: Tensor, output: Tensor, radius: float) -> None:
        self.keys.append(query)
        self.values.append(output[0, self.place].detach().clone().requires_grad_(True))
        self.radii.append(radius)
        self.targets.append(self.target)


def published(family: str, facts: list[tuple[Tensor, list[int]]], radius: float, steps: int, rate: float) -> Adapter:
    module: Any = families.tiny(family)[0]
    module.requires_grad_(False)
    layers = module.model.layers if family == "llama" else module.transformer.h
    name = "down_proj" if family == "llama" else "c_proj"
    adapter = Adapter(getattr(layers[LAYER].mlp, name), radius)
    setattr(layers[LAYER].mlp, name, adapter)
    for ids, target in facts:
        both = torch.cat([ids, torch.tensor([target])], 1)
        labels = torch.cat([torch.full_like(ids, -100), torch.tensor([target])], 1)
        adapter.place, adapter.fresh, adapter.target = ids.shape[1] - 1, True, target
        optimizer = None
        for _ in range(steps):
            loss = module(input_ids=both, labels=labels).loss
            optimizer = optimizer or torch.optim.Adam(adapter.values, lr=rate)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return adapter


def apart(model: Model) -> float:
    """How far the activations at the ends of the two prompts are from each other."""
    keys = [grace(model, fact, layer=LAYER, steps=1).memories[0].tensors["keys"][0] for fact in FACTS]
    return float((keys[0] - keys[1]).norm())


@pytest.mark.parametrize("case", ["far", "split", "grown"])
def test_keys_radii_and_values_are_those_of_the_published_adapter(model: Model, case: str) -> None:
    """Far apart each has ε; too close with another target they share the way; for the same target the radius grows."""
    distance = apart(model)
    facts = FACTS if case != "grown" else (FACTS[0], Fact("{} sits on the", "cat", "cat house"))
    radius = distance * {"far": 0.01, "split": 0.6, "grown": 0.6}[case]
    runs = [forced(model, fact) for fact in facts]
    asked = [(run.prompted.inputs["input_ids"], run.output_ids) for run in runs]
    theirs = published(model.name, asked, radius, steps=4, rate=0.05)
    settings: dict[str, Any] = {"start": "warm", "enough": 0.0, "layer": LAYER, "steps": 4, "rate": 0.05}
    (memory,) = grace(model, facts, radius=radius, **settings).memories
    ours = memory.tensors
    assert len(ours["keys"]) == (1 if case == "grown" else 2)
    torch.testing.assert_close(ours["keys"], torch.stack(theirs.keys))
    torch.testing.assert_close(ours["radii"], torch.tensor(theirs.radii))
    if case == "far":  # otherwise other positions are within reach too, which the published adapter does not look up
        torch.testing.assert_close(ours["values"].detach(), torch.stack(theirs.values).detach(), atol=1e-5, rtol=1e-4)
    if case == "split":
        assert float(ours["radii"].sum()) == pytest.approx(distance - 1e-5, rel=1e-4)
    if case == "grown":
        assert float(ours["radii"][0]) == pytest.approx(distance, rel=1e-4)


def test_the_moving_average_moves_the_key_half_of_the_way(model: Model) -> None:
    distance = apart(model)
    facts = (FACTS[0], Fact("{} sits on the", "cat", "cat house"))
    one, both = (
        grace(model, given, layer=LAYER, radius=0.6 * distance, steps=1, expand="moving_average").memories[0].tensors
        for given in (FACTS[0], facts)
    )
    assert float((one["keys"][0] - both["keys"][0]).norm()) == pytest.approx(distance / 2, rel=1e-4)


def test_within_the_radius_the_value_is_written_and_nowhere_else(model: Model) -> None:
    edit = grace(model, FACTS[0], layer=LAYER, steps=2, radius=1e-4)
    run = forced(model, FACTS[0])
    inputs, end = run.forced_inputs(), run.prompted.inputs["input_ids"].shape[1] - 1
    seen: list[Tensor] = []
    module = model.blocks[LAYER].dense[0].module
    before = model.forward(inputs).detach()
    with edit.applied(model):
        handle = module.register_forward_hook(lambda module, args, output: seen.append(output.detach()))
        after = model.forward(inputs).detach()
        handle.remove()
    model.forward(inputs)
    (hidden,) = seen
    assert torch.equal(hidden[0, end], edit.memories[0].tensors["values"][0])
    assert torch.equal(before[0, :end], after[0, :end])
    assert not torch.equal(before[0, end], after[0, end])


def test_of_several_codebooks_the_nearest_key_counts_in_any_order(model: Model) -> None:
    one, two = (grace(model, fact, layer=LAYER, steps=2, radius=1e3, seed=seed) for seed, fact in enumerate(FACTS))
    runs = [forced(model, fact).prompted.inputs for fact in FACTS]

    def said() -> list[Tensor]:
        return [model.forward(inputs, rows=[-1]).detach() for inputs in runs]

    alone = said()
    with (one + two).applied(model):
        together = said()
    for first, second in ((one, two), (two, one)):
        with first.applied(model), second.applied(model):
            assert all(map(torch.equal, said(), together))
            with pytest.raises(EditError, match="applied already"):
                (one + two).apply(model)
    one.apply(model)
    two.apply(model)
    one.revert(model)
    two.revert(model)
    assert all(map(torch.equal, said(), alone))
    assert not any(module._forward_hooks for module in model.module.modules())


def test_the_value_is_written_whatever_was_edited_before_or_after(model: Model) -> None:
    kept, changed = grace(model, FACTS[0], layer=LAYER, steps=2, radius=1e3), lora(model, FACTS[1], steps=2)
    inputs = forced(model, FACTS[0]).prompted.inputs
    found = []
    for edits in ((kept, changed), (changed, kept)):
        with edits[0].applied(model), edits[1].applied(model):
            found.append(model.forward(inputs, rows=[-1]).detach())
    assert torch.equal(*found)


def test_one_that_is_learned_is_said(tiny_tokenizer: Any) -> None:
    model = opened("llama", tiny_tokenizer)
    edit = grace(model, FACTS[1], steps=200, radius=1e-4, enough=0.5)
    (row,) = edit.record["verdict"]["targets"]
    assert row["holds"]
    assert edit.record["steps"][0] < 200


def test_a_damaged_memory_and_that_of_another_model_are_refused(model: Model, tmp_path: Path) -> None:
    edit = grace(model, FACTS[0], layer=LAYER, steps=1)
    edit.save(tmp_path / "edit")
    assert load_edit(tmp_path / "edit").fingerprint == edit.fingerprint
    about = tmp_path / "edit" / "edit.json"
    schema = nw.schemas()["neuronwise.edit/1"]
    Draft202012Validator(schema).validate(json.loads(about.read_text(encoding="utf-8")))
    assert "beside W_down of the layers 1;" in card(edit, "me/x")
    about.write_text(about.read_text(encoding="utf-8").replace('"codebook"', '"notebook"'), encoding="utf-8")
    with pytest.raises(EditError, match="damaged"):
        load_edit(tmp_path / "edit")
    tensors = dict(edit.memories[0].tensors)
    path = edit.memories[0].path
    with pytest.raises(EditError, match="no 'codebook'"):
        SideMemory(LAYER, path, "codebook", {**tensors, "radii": tensors["radii"][:0]})
    with pytest.raises(NonFiniteError):
        SideMemory(LAYER, path, "codebook", {**tensors, "radii": tensors["radii"] / 0})
    narrow = SideMemory(LAYER, path, "codebook", {**tensors, "keys": tensors["keys"][:, :-1]})
    with pytest.raises(EditError, match="does not fit"):
        Edit((), memories=(narrow,)).apply(model)
    with torch.no_grad():
        model.blocks[LAYER].dense[0].own_weight.mul_(2)
    with pytest.raises(EditError, match="not those"):
        edit.apply(model)


def test_presets_are_the_published_ones_and_bad_settings_are_said(model: Model) -> None:
    presets = {name: preset.settings for name, preset in EDITORS["grace"].presets.items()}
    assert [presets[name].layer for name in ("gpt2-xl", "gptj", "llama-2", "qwen2")] == [35, 25, 27, 18]
    assert {presets[name].rate for name in presets if name not in ("default", "small")} == {1.0}
    for changes, words in (({"start": "hot"}, "start"), ({"expand": "no"}, "expand"), ({"layer": 7}, "Layer 7")):
        with pytest.raises(MethodError, match=words):
            grace(model, FACTS[0], **changes)  # type: ignore[arg-type]
