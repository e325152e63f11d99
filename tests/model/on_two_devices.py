"""Whole chains on a model that lies on two devices, run by ``test_devices.py`` in a process of its own.

Each test does the same on the CPU and on the two devices of ``pretend``, which refuse tensors that do not meet on one
of them, and compares the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import families
import neuronwise as nw
import pretend
from neuronwise import edit as editing
from neuronwise import intervene, read
from neuronwise.data.facts import Fact
from neuronwise.edit import EDITORS
from neuronwise.locate.methods import methods
from wired import red_square, wired_llava

pretend.use()

FIRST, SECOND = "pretend:0", "pretend:1"
STACKS = {"gpt2": "transformer.h", "gptj": "transformer.h", "llava": "model.language_model.layers"}
PROMPT, TARGET = "the capital of France is", " Paris"
FACT = Fact("the capital of {} is", "France", "house")
QUICK: dict[str, dict[str, Any]] = {
    "decoupled": {"steps": 2, "freeze_last": 1},
    "fine": {"steps": 3, "freeze_last": 1},
    "fine_specific": {"steps": 2, "texts": 4, "text_tokens": 8},
    "fine_tune": {"steps": 2, "rate": 1e-2, "norm_constraint": None},
    "knowledge_neurons": {"steps": 2},
}
SEARCHED = {"v_num_grad_steps": 3, "context_template_length_params": ((3, 2),)}


def spread(module: Any, stack: str, tied: bool = False) -> Any:
    """The module with its last layer, and the norm and head behind it, on the second device, all else on the first.

    ``tied``: the head is the embeddings', so it stays with them.
    """
    import accelerate

    last = len(module.get_submodule(stack)) - 1
    placement: dict[str, Any] = {f"{stack}.{layer}": SECOND if layer == last else FIRST for layer in range(last + 1)}
    inside = (f"{stack}.", *(f"{name}." for name in placement))
    for name, child in module.named_modules():
        holds = bool([*child.parameters(recurse=False), *child.buffers(recurse=False)])
        if holds and not name.startswith(inside):
            norm = name.rpartition(".")[2] in ("norm", "ln_f") and "vision" not in name
            behind = name == "lm_head" or norm
            placement[name] = SECOND if behind and not (tied and name == "lm_head") else FIRST
    return accelerate.dispatch_model(module, placement, main_device=FIRST, force_hooks=True)  # type: ignore[arg-type]


def twice(name: str, tokenizer: Any, dtype: torch.dtype = torch.float32) -> tuple[nw.Model, nw.Model]:
    """The same tiny model on the CPU and on two devices."""
    plain: Any = families.tiny(name, dtype)[0]
    module: Any = families.tiny(name, dtype)[0]
    if name == "mixtral":
        module.set_experts_implementation("eager")  # what counts tokens for grouped products takes other numbers here
    module = spread(module, STACKS.get(name, "model.layers"), tied=name == "gpt2")
    return nw.Model(plain, tokenizer, name=name), nw.Model(module, tokenizer, name=name)


@pytest.fixture(autouse=True)
def _nothing_met() -> Any:
    """Also what our own code would catch and go around (a cache that cannot be used) counts."""
    pretend.met.clear()
    yield
    assert pretend.met == []


def compare(models: tuple[nw.Model, nw.Model], make: Callable[[nw.Model], nw.NeuronSet]) -> nw.NeuronSet:
    plain, apart = make(models[0]), make(models[1])
    assert apart.neurons == plain.neurons
    assert [m.score for m in apart] == pytest.approx([m.score for m in plain], rel=1e-3, abs=1e-5)
    return plain


def logits(model: nw.Model, run: nw.Run | None = None) -> Tensor:
    run = run or model.run(prompt=PROMPT, max_new_tokens=0, chat=False)
    with torch.no_grad():
        return model.forward(run.forced_inputs(), rows=[-1])[0, 0].float().cpu()


def close(plain: Tensor, apart: Tensor) -> bool:
    return bool(torch.allclose(apart.cpu(), plain, rtol=1e-3, atol=1e-4))


def everything(model: nw.Model) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.module.state_dict().items()}


def test_tensors_of_two_devices_do_not_meet() -> None:
    """What the other tests rest on."""
    ones = torch.ones(2, 3)
    here, there = ones.to(FIRST), ones.to(SECOND)
    for wrong in (
        lambda: here + there, lambda: here @ there.T, lambda: here + ones, lambda: torch.cat([here, ones]),
        lambda: nn.functional.linear(here, there), lambda: here.index_select(0, torch.tensor([1])),
        lambda: here.index_add_(0, torch.tensor([1], device=SECOND), here[:1]),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="same device"):
            wrong()
    pretend.met.clear()
    assert (here[torch.tensor([1])] * torch.tensor(2.0)).device == torch.device(FIRST)
    assert torch.equal(here.to(SECOND).cpu(), ones)
    assert there.copy_(here * 3).sum().item() == 18


ASKED = [
    *(("llama", method) for method in (*methods("run"), "normalized", "gate")),
    *(("gpt2", method) for method in ("contribution", "normalized", "log_prob_increase")),
    ("gptj", "normalized"),
    ("mixtral", "contribution"),
]


@pytest.mark.parametrize(("name", "method"), ASKED)
def test_neurons_are_found(name: str, method: str, tiny_tokenizer: Any) -> None:
    models = twice(name, tiny_tokenizer)
    assert {str(p.device) for p in models[1].module.parameters()} == {FIRST, SECOND}
    options = {"normalized": {"normalize": True}, "gate": {"activation": "gate"}}.get(method, {"method": method})

    def found(model: nw.Model) -> nw.NeuronSet:
        run = model.run(prompt=PROMPT, max_new_tokens=3, chat=False)
        return nw.locate(model, run, target=TARGET, position=0, top=20, **options)  # type: ignore[arg-type]

    chosen = compare(models, found)
    assert [nw.decode(models[1], n, k=3) for n in chosen.neurons[:5]] == [
        nw.decode(models[0], n, k=3) for n in chosen.neurons[:5]
    ]
    if method == "contribution":

        def verified(model: nw.Model) -> nw.NeuronSet:
            run = model.run(prompt=PROMPT, max_new_tokens=0, chat=False)
            return nw.locate(model, run, target=TARGET, method="causal_effect", among=chosen, top=5)

        compare(models, verified)


@pytest.mark.parametrize("name", ["llama"])
def test_interventions_do_the_same(name: str, tiny_tokenizer: Any) -> None:
    models = twice(name, tiny_tokenizer)
    runs = [model.run(prompt=PROMPT, max_new_tokens=0, chat=False) for model in models]
    neurons = nw.locate(models[0], runs[0], target=TARGET, top=10)
    others = [model.run(prompt="the dog runs in the house", max_new_tokens=0, chat=False) for model in models]
    means = intervene.mean_activations(models[0], neurons, others[:1])
    assert intervene.mean_activations(models[1], neurons, others[1:]) == pytest.approx(means, abs=1e-5)
    changes: list[Callable[[nw.Model, nw.Run], Any]] = [
        lambda model, other: intervene.suppress(model, neurons),
        lambda model, other: intervene.scale(model, neurons, 3.0, positions=[4]),
        lambda model, other: intervene.mean_ablate(model, neurons, means),
        lambda model, other: intervene.perturb(model, neurons, 0.5),
        lambda model, other: intervene.patch(model, neurons, other, positions=[2, 4]),
    ]
    before = logits(models[0], runs[0])
    for change in changes:
        seen = []
        for model, run, other in zip(models, runs, others, strict=True):
            with change(model, other):
                seen.append(logits(model, run))
        assert close(*seen)
        assert not torch.allclose(seen[0], before)


@pytest.mark.parametrize(
    ("name", "editor"),
    [*(("llama", editor) for editor in EDITORS), ("gpt2", "fine"), ("gpt2", "rome"), ("mixtral", "knowledge_neurons")],
)
def test_edits_are_the_same_and_come_out(editor: str, name: str, tiny_tokenizer: Any, tmp_path: Path) -> None:
    models = twice(name, tiny_tokenizer)
    known = {field.name for field in fields(EDITORS[editor].settings)}
    changes = QUICK.get(editor, SEARCHED if "v_lr" in known else {})
    before = [everything(model) for model in models]
    edits = [EDITORS[editor].function(model, FACT, **changes) for model in models]
    for left, right in zip(edits[0].deltas, edits[1].deltas, strict=True):
        assert left.key == right.key
        assert left.units is None or torch.equal(left.units, right.units)  # type: ignore[arg-type]
        assert torch.allclose(left.left, right.left, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(logits(models[0]), _edited(models[0], edits[0]))
    assert close(_edited(models[0], edits[0]), _edited(models[1], edits[0]))
    for model, was in zip(models, before, strict=True):
        now = everything(model)
        assert all(torch.equal(now[name], value) for name, value in was.items())
    edits[1].save(tmp_path / "edit")
    assert close(_edited(models[0], edits[1]), _edited(models[1], nw.load_edit(tmp_path / "edit")))


def _edited(model: nw.Model, edit: nw.Edit) -> Tensor:
    with edit.applied(model):
        return logits(model)


def test_key_statistics_are_the_same(tiny_tokenizer: Any, tmp_path: Path) -> None:
    texts = ["the cat sits on the mat", "the capital of France is Paris", "a dog runs in the red house"]
    models = twice("llama", tiny_tokenizer)
    plain, apart = (
        editing.gather_statistics(model, texts, [1, 2], tmp_path / str(number)) for number, model in enumerate(models)
    )
    for layer in (1, 2):
        assert torch.allclose(plain.second_moment(layer), apart.second_moment(layer), rtol=1e-4, atol=1e-5)
    editing.memit(models[1], FACT, statistics=plain, layers=(1, 2), **SEARCHED)  # they fit the model wherever it lies


def wired_twice(tokenizer: Any) -> tuple[nw.Model, nw.Model]:
    plain, other = wired_llava(tokenizer), wired_llava(tokenizer)
    apart = spread(other.module, "model.language_model.layers")
    return plain, nw.Model(apart, other.processor, name=plain.name)


def test_a_photo_from_finding_to_reverting(tiny_tokenizer: Any) -> None:
    """find → heatmap → suppress → swap → apply → revert, the image encoder on one device, the words on the other."""
    models = wired_twice(tiny_tokenizer)
    photo, _ = red_square(7, 7)
    seen = []
    for model in models:
        before = everything(model)
        run = model.run(image=photo, max_new_tokens=2, heat=True)
        finding = read.find(model, run, top=10)
        found = finding.concepts[0].neurons
        heat = nw.heatmap(model, run, found[:3])
        with nw.suppress(model, nw.locate(model, run, "dog", top=10)):  # what writes it always, too
            silent = model.run(image=photo, max_new_tokens=2).text
        with intervene.shuffle_image_tokens(model, run, seed=1):
            shuffled = logits(model, run)
        edit = nw.swap(model, run, "dog", "cat", neurons=found)
        gone = editing.suppress(model, run, "dog", top=5)
        with edit.applied(model):
            after = model.run(image=photo, max_new_tokens=2).text
        now = everything(model)
        assert all(torch.equal(now[name], value) for name, value in before.items())
        seen.append((run.text, found, heat.grid, silent, shuffled, edit, after, gone))
    plain, apart = seen
    assert "dog" in plain[0]
    assert "dog" not in plain[3]
    assert (apart[0], apart[3], apart[6]) == (plain[0], plain[3], plain[6])
    assert apart[1].neurons == plain[1].neurons
    assert apart[2] == pytest.approx(plain[2], abs=1e-4)
    assert close(plain[4], apart[4])
    for number in (5, 7):
        for left, right in zip(plain[number].deltas, apart[number].deltas, strict=True):
            assert torch.allclose(left.left, right.left, rtol=1e-3, atol=1e-4)


def test_half_precision_keeps_its_dtype_and_places(tiny_tokenizer: Any) -> None:
    _, model = twice("llama", tiny_tokenizer, torch.bfloat16)
    before, places = everything(model), {n: str(p.device) for n, p in model.module.named_parameters()}
    edit = nw.fine(model, FACT, **QUICK["fine"])
    with edit.applied(model):
        assert {n: str(p.device) for n, p in model.module.named_parameters()} == places
        assert {p.dtype for p in model.module.parameters()} == {torch.bfloat16}
    now = everything(model)
    assert all(torch.equal(now[name], value) for name, value in before.items())
