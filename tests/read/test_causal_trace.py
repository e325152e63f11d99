"""Causal traces against plain loops over passes with torch's own hooks, and at their two ends."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import neuronwise as nw
from conformed import tiny
from neuronwise.cli import app
from neuronwise.errors import MethodError, TargetError
from neuronwise.model import Model, Run
from schema_guard import validated

SAID = [4, 5, 6]
TOKEN = 29


def spoken(name: str, said: Sequence[int] = SAID) -> Run:
    model, prompted, photo = tiny(name)
    return Run.of(model, prompted, said, photo)


def first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


@contextlib.contextmanager
def hooked(
    pairs: Sequence[tuple[nn.Module, Callable[[Tensor], Tensor]]], noisy: nn.Module, noise: Callable[..., Any]
) -> Iterator[None]:
    handles = [noisy.register_forward_pre_hook(noise, with_kwargs=True)]
    for module, change in pairs:

        def after(module: nn.Module, args: Any, output: Any, change: Callable[[Tensor], Tensor] = change) -> Any:
            new = change(first(output).clone())
            return new if isinstance(output, Tensor) else (new, *output[1:])

        handles.append(module.register_forward_hook(after))
    yield
    for handle in handles:
        handle.remove()


class ByHand:
    """One pass at a time: noise on some rows of what enters the first layer, and modules' rows put back."""

    def __init__(
        self, run: Run, layers: Any, modules: Sequence[nn.Module], rows: list[int], alike: list[int], noise: Tensor
    ) -> None:
        self.run, self.layers, self.rows, self.alike = run, layers, rows, alike
        self.inputs = run.forced_inputs(2)
        self.kept: dict[nn.Module, Tensor] = {}
        pairs = [(m, lambda out, m=m: self.kept.setdefault(m, out.clone())) for m in modules]
        self.read: list[Tensor] = []
        self.clean = self.ask(pairs, None)
        self.noise = 3.0 * self.read[0][0, alike].std() * noise

    def ask(self, pairs: Any, noise: Tensor | None) -> float:
        def add(module: Any, args: Any, kwargs: Any) -> Any:
            hidden = (args[0] if args else kwargs["hidden_states"]).clone()
            self.read.append(hidden)
            if noise is not None:
                hidden[0, self.rows] += noise
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

        with torch.no_grad(), hooked(pairs, self.layers[0], add):
            logits = self.run.model.module(**self.inputs, use_cache=False).logits
        return float(logits[0, -1].softmax(-1)[TOKEN])

    def restored(self, modules: Sequence[nn.Module], rows: list[int]) -> float:
        def put(out: Tensor, module: nn.Module) -> Tensor:
            out[0, rows] = self.kept[module][0, rows]
            return out

        pairs = [(m, lambda out, m=m: put(out, m)) for m in modules]
        return float(np.mean([self.ask(pairs, noise) for noise in self.noise]))


def parts(name: str, module: Any) -> dict[str, list[nn.Module]]:
    if name == "gpt2":
        layers = module.transformer.h
        return {"states": [*layers], "feed-forward": [x.mlp.c_proj for x in layers],
                "attention": [x.attn.c_proj for x in layers]}  # fmt: skip
    layers = module.model.language_model.layers if name == "llava" else module.model.layers
    return {"states": [*layers], "feed-forward": [x.mlp.down_proj for x in layers],
            "attention": [x.self_attn.o_proj for x in layers]}  # fmt: skip


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "llava"])
@pytest.mark.parametrize("restore", ["states", "feed-forward", "attention"])
def test_it_is_a_plain_loop_over_passes(name: str, restore: str) -> None:
    run = spoken(name)
    places = parts(name, run.model.module)
    length = run.length - 1
    image = run.image_positions.tolist() if name == "llava" else []
    rows = image or [2, 3]
    noise = torch.randn(2, len(rows), 32, generator=torch.Generator().manual_seed(7))
    by_hand = ByHand(run, places["states"], places[restore], rows, image or list(range(length)), noise)
    columns = [[1], [4, 5], [length - 1]]
    found = nw.causal_trace(
        run.model, run, target=TOKEN, position=2, subject=None if image else rows, restore=restore, samples=2, seed=7,
        window=2, positions=[1, [4, 5], length - 1],
    )  # fmt: skip
    assert found.columns == tuple(map(tuple, columns))
    assert found.clean == pytest.approx(by_hand.clean, rel=1e-3)
    assert found.corrupted == pytest.approx(by_hand.restored([], []), rel=1e-3)
    expected = [
        [
            by_hand.restored(
                places[restore][
                    slice(layer, layer + 1) if restore == "states" else slice(max(0, layer - 1), layer + 1)
                ],
                column,
            )
            for column in columns
        ]
        for layer in range(3)
    ]  # a window of two layers is the one below and the layer itself
    np.testing.assert_allclose(found.restored, expected, rtol=2e-3, atol=1e-7)
    np.testing.assert_allclose(found.effects, np.array(expected) - found.corrupted, rtol=2e-2, atol=1e-6)
    assert np.abs(found.effects).max() > 1e-4


@pytest.mark.parametrize("name", ["bloom", "falcon", "mixtral", "gemma2", "phi", "qwen2_vl", "qwen3_vl", "mllama"])
def test_all_that_is_restored_is_clean(name: str) -> None:
    run = spoken(name)
    everything = list(range(run.length - 1))
    reads = run.image is not None
    rows = None if reads else [1, 2]
    found = nw.causal_trace(
        run.model, run, target=TOKEN, position=2, subject=rows, samples=3, positions=[everything, 0]
    )
    with torch.no_grad():
        own = run.model.forward(run.forced_inputs(2), rows=[-1])[0, -1].float().softmax(-1)[TOKEN]
    assert found.clean == pytest.approx(float(own), rel=1e-3)
    np.testing.assert_allclose(found.restored[:, 0], found.clean, rtol=1e-2)
    assert abs(found.corrupted / found.clean - 1) > 1e-4
    if not reads:  # before the subject nothing is corrupted
        np.testing.assert_array_equal(found.restored[:, 1], np.float32(found.corrupted))
    quiet = nw.causal_trace(
        run.model, run, target=TOKEN, position=2, subject=rows, samples=1, noise=1e-6, positions="predicting"
    )
    assert quiet.corrupted == pytest.approx(quiet.clean, rel=1e-3)


def test_side_by_side_is_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    run = spoken("llama")
    ask = {"target": TOKEN, "position": 2, "subject": [1, 2], "samples": 3}
    together = nw.causal_trace(run.model, run, **ask)
    monkeypatch.setattr("neuronwise.read.corruption.Corruption._side_by_side", lambda self: 1)
    np.testing.assert_allclose(nw.causal_trace(run.model, run, **ask).restored, together.restored, rtol=1e-4)


def test_a_photo_is_one_column_among_the_texts_tokens() -> None:
    run = spoken("llava")
    image = tuple(run.image_positions.tolist())
    found = nw.causal_trace(run.model, run, target=TOKEN, position=0, samples=1, layers=[1])
    assert image in found.columns
    assert found.tokens[found.columns.index(image)] == "photo"
    assert sorted(row for column in found.columns for row in column) == list(range(run.length - len(SAID)))
    assert (found.layers, found.subject) == ((1,), image)


def test_what_cannot_be_traced_is_refused() -> None:
    run = spoken("llama")
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, "Name the subject"),
        ({"subject": [99]}, r"The subject's positions are \[99\]"),
        ({"subject": "Atlantis"}, "does not have the subject 'Atlantis'"),
        ({"subject": [1], "restore": "dreams"}, "restore='dreams' is unknown; choose one of states"),
        ({"subject": [1], "layers": [3]}, "has layers 0 to 2"),
        ({"subject": [1], "samples": 0}, "1 or more"),
        ({"subject": [1], "noise": -1.0}, "noise is -1"),
        ({"subject": [1], "noise": 0.0}, "noise is 0; give a number of standard deviations above 0"),
        ({"subject": [1], "positions": [[99]]}, "Position 99 has no part"),
    )
    for wrong, sentence in cases:
        with pytest.raises((MethodError, TargetError), match=sentence):
            nw.causal_trace(run.model, run, target=TOKEN, **wrong)
    other = spoken("t5")
    with pytest.raises(MethodError, match="An encoder of t5 reads the prompt"):
        nw.causal_trace(other.model, other, target=TOKEN, subject=[1])


def test_on_the_shell(tiny_folder: Path, tiny_model: Model, tmp_path: Path) -> None:
    ask = ["trace", "--text", "a dog sits on", "--model", str(tiny_folder), "--target", " the", "--samples", "2"]
    figure = tmp_path / "trace.png"
    done = CliRunner().invoke(app, [*ask, "--subject", "dog", "--out", str(figure), "--json"])
    content = json.loads(done.stdout)
    validated(content)
    run = tiny_model.run(prompt="a dog sits on", max_new_tokens=0, chat=False)
    found = nw.causal_trace(tiny_model, run, target=" the", subject="dog", samples=2)
    assert content["subject"] == [1]
    assert [run.tokens[row] for row in found.subject] == [" dog"]
    np.testing.assert_allclose(content["restored"], found.restored, rtol=1e-4)
    assert figure.stat().st_size > 1000
    for wrong in ([], ["--subject", "dog", "--window", "3"], ["--subject", "dog", "--out", "trace.gif"]):
        assert isinstance(CliRunner().invoke(app, [*ask, *wrong]).exception, nw.NeuronwiseError), wrong
