"""Evidence against plain loops over passes, finite differences, the leaves of circuits, and a wired model."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

import neuronwise as nw
from neuronwise.cli import app
from neuronwise.errors import MethodError, PromptError
from neuronwise.model import Model, Run, Target
from neuronwise.model.photo_tokens import PhotoTokens
from neuronwise.read import EVIDENCE
from neuronwise.read.evidence.maps import evidences
from placing import placing
from processors import BUILDERS
from wired import red_square, wired_llava

SAID = [4, 5, 6]  # generated tokens, words of the prompt; scored are the first and the third


@functools.lru_cache(maxsize=2)
def lively(name: str) -> Run:
    """A tiny model of a family, its attention as it came, that has said something about a photo of noise."""
    with mock.patch("placing._still"):
        model, prompt = placing(name)
    noise = np.random.default_rng(0).integers(0, 255, (6, 15, 3)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
    prompted, photo = model.prepare(Image.fromarray(noise), prompt, chat=False)
    return Run.of(model, prompted, SAID, photo)


def targets(run: Run) -> list[Target]:
    return [run.target(target=SAID[position], position=position) for position in (0, 2)]


def reading(run: Run, change: Callable[[Tensor], Tensor]) -> Tensor:
    """log p (2,) of the targets when what the decoder reads of the photo, (rows, d), is changed."""
    tokens = PhotoTokens.of(run)

    def first(module: Any, args: Any, kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        changed = change(hidden[0])[None]
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

    def across(module: Any, args: Any, kwargs: Any) -> Any:
        states = kwargs["cross_attention_states"]
        changed = change(states.reshape(-1, states.shape[-1])).reshape(states.shape)
        return args, {**kwargs, "cross_attention_states": changed}

    hook = across if tokens.readers else first
    handles = [
        module.register_forward_pre_hook(hook, with_kwargs=True)
        for module in tokens.readers or (run.model.blocks[0].module,)
    ]
    with torch.no_grad():
        logits = run.model.module(**run.model.placed(run.forced_inputs()), use_cache=False).logits[0].float()
    for handle in handles:
        handle.remove()
    rows = logits[[-len(SAID) - 1, -len(SAID) + 1]].log_softmax(-1)
    return torch.stack([rows[0, SAID[0]], rows[1, SAID[2]]])


def looked_at(run: Run) -> list[int]:
    """Which of the photo's tokens a test looks at: all where they have no place, else a few."""
    grid = PhotoTokens.of(run).grid
    count = len(grid.positions)
    return list(range(count)) if grid.mixing is not None else [0, 1, count // 2, count - 1]


def agrees(run: Run, found: nw.Evidence, values: Tensor, rtol: float, atol: float) -> None:
    """Numbers of these tokens are on the map: each in its cell or, where tokens have no place, where it looked."""
    grid = PhotoTokens.of(run).grid
    cells = found.grid.reshape(-1)
    assert found.grid.shape == (grid.height, grid.width)
    there = cells[looked_at(run)] if grid.mixing is None else cells
    expected = values.numpy() if grid.mixing is None else (grid.mixing @ values).numpy()
    np.testing.assert_allclose(there, expected, rtol=rtol, atol=atol * max(1e-3, float(np.abs(cells).max())))


@pytest.mark.parametrize("name", list(BUILDERS))
def test_occlusion_is_a_plain_loop_over_passes(name: str) -> None:
    run = lively(name)
    rows = PhotoTokens.of(run).grid.positions
    before = reading(run, lambda read: read)
    falls = []
    for row in rows[looked_at(run)].tolist():

        def occluded(read: Tensor, row: int = row) -> Tensor:
            changed = read.clone()
            changed[row] = read[rows].mean(0)
            return changed

        falls.append(before - reading(run, occluded))
    found = evidences(run.model, run, targets(run), by="occlusion")
    for own, values in zip(found, torch.stack(falls, 1), strict=True):
        agrees(run, own, values, 2e-3, 2e-3)
    if name != "kosmos-2":  # whose queries are all alike before it is trained
        assert float(np.abs(found[0].grid).max()) > 1e-3
    assert found[0].note == PhotoTokens.of(run).grid.note


def test_a_window_takes_its_neighbors_away() -> None:
    run = lively("llava, padded")
    grid = PhotoTokens.of(run).grid
    before = reading(run, lambda read: read)
    found = evidences(run.model, run, targets(run), window=3)[1]
    for row, column in ((0, 0), (2, 3), (3, 7)):
        near = [
            y * grid.width + x
            for y in range(grid.height)
            for x in range(grid.width)
            if abs(y - row) <= 1 and abs(x - column) <= 1
        ]

        def occluded(read: Tensor, near: list[int] = near) -> Tensor:
            changed = read.clone()
            changed[grid.positions[near]] = read[grid.positions].mean(0)
            return changed

        assert found.grid[row, column] == pytest.approx(float((before - reading(run, occluded))[1]), abs=2e-4)


def test_windows_are_read_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    run = lively("llava")
    passes: list[int] = []
    forward = Model.forward
    monkeypatch.setattr(Model, "forward", lambda *given, **more: passes.append(1) or forward(*given, **more))
    evidences(run.model, run, targets(run))
    assert len(passes) <= 4  # of 64 tokens


@pytest.mark.parametrize("name", list(BUILDERS))
def test_gradient_is_a_finite_difference(name: str) -> None:
    """Scaling one token by 1 ± ε changes log p by 2 ε · input · gradient."""
    run = lively(name)
    rows, step = PhotoTokens.of(run).grid.positions, 2e-2
    changes = []
    for row in rows[looked_at(run)].tolist():

        def scaled(read: Tensor, row: int, factor: float) -> Tensor:
            changed = read.clone()
            changed[row] = factor * changed[row]
            return changed

        up, down = (reading(run, functools.partial(scaled, row=row, factor=1 + sign * step)) for sign in (1, -1))
        changes.append((up - down) / (2 * step))
    found = evidences(run.model, run, targets(run), by="gradient")
    for own, values in zip(found, torch.stack(changes, 1), strict=True):
        agrees(run, own, values, 2e-2, 2e-2)


@pytest.mark.parametrize("name", [name for name in BUILDERS if name not in ("mllama", "qwen3_vl_moe")])
def test_relevance_at_the_photo_is_what_a_circuits_leaves_pass_on(name: str) -> None:
    run = lively(name)
    target = targets(run)[1]
    found = nw.evidence(run.model, run, target=target.token_id, position=2, by="relp", contrast=None)
    circuit = nw.circuit(run.model, run, target=target.token_id, position=2, nodes=6)
    rows = PhotoTokens.of(run).grid.positions[looked_at(run)].tolist()
    leaves = torch.tensor([sum(edge.weight for edge in circuit.out_of(f"@{row}")) for row in rows])
    agrees(run, found, leaves, 2e-3, 2e-3)
    assert np.abs(found.grid).max() > 1e-3


def test_relevance_reaches_states_that_are_read_by_cross_attention() -> None:
    """All the states' relevance is the change when the whole of them is scaled, as the rules make it linear in them."""
    run = lively("mllama")
    target = targets(run)[0]
    found = nw.evidence(run.model, run, target=target.token_id, position=0, by="relp", contrast=[12])
    assert np.abs(found.grid).max() > 1e-4


@pytest.mark.parametrize("name", [name for name in BUILDERS if name != "mllama"])
def test_lens_is_the_word_read_at_each_token(name: str) -> None:
    run = lively(name)
    with torch.no_grad():
        logits = run.model.module(**run.model.placed(run.forced_inputs()), use_cache=False).logits[0].float()
    rows = PhotoTokens.of(run).grid.positions[looked_at(run)]
    found = evidences(run.model, run, targets(run), by="lens", contrast=3)
    for own, target, row in zip(found, targets(run), (-len(SAID) - 1, -len(SAID) + 1), strict=True):
        order = logits[row].argsort(descending=True).tolist()
        others = [token for token in order if token != target.token_id][:3]
        read = logits[rows].log_softmax(-1)
        values = read[:, target.token_id] - read[:, others].mean(1)
        agrees(run, own, values, 2e-3, 2e-3)


@pytest.mark.parametrize("by", EVIDENCE)
def test_what_it_is_and_what_it_takes(by: str) -> None:
    run = lively("llava")
    method = EVIDENCE[by]
    assert method.name == by
    assert method.meaning.count("{token}") == 1
    assert method.unit in ("nats", "logits")
    found = nw.evidence(run.model, run, target=5, position=0, by=by)
    assert (found.by, found.target.token_id, found.unit) == (by, 5, method.unit)
    np.testing.assert_allclose(found.to_dict()["grid"], found.grid, rtol=1e-5)
    with pytest.raises(MethodError, match=rf"^{by} has no option tremble; it takes"):
        nw.evidence(run.model, run, target=5, by=by, tremble=1)
    before = hooks_of(run.model)
    nw.evidence(run.model, run, target=5, position=0, by=by)
    assert hooks_of(run.model) == before


def hooks_of(model: Model) -> list[tuple[int, int]]:
    return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.module.modules()]


def test_a_red_square_is_what_the_word_depends_on(tiny_tokenizer: Any, tmp_path: Path) -> None:
    model = wired_llava(tiny_tokenizer)
    for left, top in ((0, 0), (14, 7), (7, 14)):
        photo, mask = red_square(left, top)
        run = model.run(photo, "the", max_new_tokens=1)
        found = nw.evidence(model, run, "dog", by="relp")
        hottest = np.unravel_index(int(np.argmax(found.image())), mask.shape)
        assert mask[hottest], (left, top)
    found.save(tmp_path / "dog.png")
    assert Image.open(tmp_path / "dog.png").size == photo.size


def test_what_has_no_evidence_says_so() -> None:
    run = lively("llava")
    with pytest.raises(MethodError, match="no kind of evidence 'magic'; the kinds of evidence are occlusion, relp"):
        nw.evidence(run.model, run, target=5, by="magic")
    for window in (0, 2):
        with pytest.raises(MethodError, match=f"window is {window}; give an odd number"):
            nw.evidence(run.model, run, target=5, window=window)
    other = lively("blip-2")
    with pytest.raises(MethodError, match="no neighbors on the photo"):
        nw.evidence(other.model, other, target=5, window=3)
    with pytest.raises(MethodError, match="model that made it"):
        nw.evidence(other.model, run, target=5)
    crossing = lively("mllama")
    with pytest.raises(MethodError, match="reads the photo by cross-attention"):
        nw.evidence(crossing.model, crossing, target=5, by="lens")
    blind = Run.of(run.model, run.prompted, SAID)
    with pytest.raises(PromptError, match="no image"):
        nw.evidence(run.model, blind, target=5)


def test_the_shell_refuses_before_a_model_is_opened(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (8, 8)).save(photo)
    for given in (
        ["evidence", str(photo)],
        ["evidence", str(photo), "--concept", "dog", "--target", " dog"],
        ["evidence", str(photo), "--concept", "dog", "--by", "magic"],
        ["evidence", str(photo), "--concept", "dog", "--set", "tremble=1"],
        ["evidence", str(tmp_path / "none.png"), "--concept", "dog"],
        ["find", str(photo), "--evidence", "magic"],
        ["find", "--text", "The capital of France is", "--evidence", "relp"],
    ):
        done = CliRunner().invoke(app, given)
        assert isinstance(done.exception, nw.NeuronwiseError), given


@pytest.mark.builtin
def test_the_shell_saves_the_map_and_a_finding_has_one(builtin: Model, chelsea: Path, tmp_path: Path) -> None:
    with mock.patch("neuronwise.model.load", return_value=builtin):
        made = tmp_path / "cat.png"
        done = CliRunner().invoke(
            app, ["evidence", str(chelsea), "--concept", "cat", "--by", "lens", "--out", str(made), "--json"]
        )
        content = json.loads(done.stdout)
        assert (content["schema"], content["word"], content["by"]) == ("neuronwise.evidence/1", "cat", "lens")
        assert Image.open(made).size == Image.open(chelsea).size
    run = builtin.run(image=chelsea)
    found = nw.find(builtin, run, "cat", top=2, heat=False, evidence="lens", method="contribution").to_dict()
    np.testing.assert_allclose(found["concepts"][0]["evidence"]["grid"], content["grid"], rtol=1e-3)
    text = builtin.run(prompt="The cat", max_new_tokens=0, chat=False)
    without = nw.find(builtin, text, [], " sat", top=2, method="contribution", evidence="lens")
    assert without.concepts[0].evidence is None
