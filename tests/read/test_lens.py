"""The lens against the model's own log p, and against hooks of torch's own with the norm and head called by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import neuronwise as nw
from conformed import tiny
from neuronwise.cli import app
from neuronwise.errors import MethodError
from neuronwise.model import Model, Run
from schema_guard import validated

SAID = [4, 5, 6]


def spoken(name: str) -> Run:
    model, prompted, photo = tiny(name)
    return Run.of(model, prompted, SAID, photo)


@pytest.mark.parametrize(
    "name",
    ["gpt2", "gemma2", "olmo2", "cohere", "granite", "opt", "bloom", "mixtral", "nanochat", "t5", "bart", "llava"],
)
def test_behind_the_last_layer_it_is_the_models_own(name: str) -> None:
    run = spoken(name)
    with torch.no_grad():
        own = run.model.forward(run.forced_inputs())[0].float().log_softmax(-1)
    found = nw.lens(run.model, run, target=29, position=2, positions="all")
    rows = list(found.positions)
    assert rows == list(range(run.length - 1))
    np.testing.assert_allclose(found.log_probs[-1], own[rows, 29].numpy(), rtol=1e-4, atol=1e-4)
    assert found.ranks[-1].tolist() == (1 + (own[rows] > own[rows, 29, None]).sum(1)).tolist()
    assert found.likeliest[-1] == tuple(f"w{int(token)}" for token in own[rows].argmax(-1))


@pytest.mark.parametrize("name", ["llama", "gemma2", "cohere"])
def test_it_reads_every_layer_by_the_final_norm(name: str) -> None:
    run = spoken(name)
    module: Any = run.model.module
    kept: list[Any] = []
    handles = [
        layer.register_forward_hook(lambda m, a, out: kept.append(out if isinstance(out, torch.Tensor) else out[0]))
        for layer in module.model.layers
    ]
    with torch.no_grad():
        run.model.forward(run.forced_inputs())
        for handle in handles:
            handle.remove()
        logits = module.lm_head(module.model.norm(torch.cat(kept)))
    if name == "gemma2":
        logits = 5.0 * torch.tanh(logits / 5.0)
    if name == "cohere":
        logits = logits * 0.25
    expected = logits.log_softmax(-1)[:, :, 29].numpy()
    found = nw.lens(run.model, run, target=29, position=2, positions=[1, 4])
    np.testing.assert_allclose(found.log_probs, expected[:, [1, 4]], rtol=1e-4, atol=1e-4)
    assert np.abs(found.log_probs[0] - found.log_probs[-1]).min() > 1e-3


def test_an_images_tokens_are_read_where_they_are_asked_for() -> None:
    run = spoken("llava")
    image = run.image_positions.tolist()
    text = nw.lens(run.model, run, target=29, position=0)
    assert sorted([*text.positions, *image]) == list(range(run.length - len(SAID)))
    assert list(nw.lens(run.model, run, target=29, position=0, positions="image").positions) == image


def test_evidence_by_lens_reads_behind_a_layer() -> None:
    run = spoken("llava")
    image = [int(row) for row in run.image_positions]
    word, other = (nw.lens(run.model, run, target=t, position=1, positions="image").log_probs for t in (29, 12))
    for layer in (0, 2):
        found = nw.evidence(run.model, run, target=29, position=1, by="lens", contrast=[12], layer=layer)
        np.testing.assert_allclose(found.grid.flatten(), (word - other)[layer], rtol=1e-4, atol=1e-4)
    assert len(image) == found.grid.size
    with pytest.raises(MethodError, match="layer is 3; llava has layers 0 to 2"):
        nw.evidence(run.model, run, target=29, position=1, by="lens", layer=3)


def test_what_cannot_be_read_is_refused() -> None:
    run = spoken("llama")
    with pytest.raises(MethodError, match="positions='nowhere' is unknown"):
        nw.lens(run.model, run, target=29, positions="nowhere")
    with pytest.raises(MethodError, match="Position 99 has no part"):
        nw.lens(run.model, run, target=29, positions=99)
    other = spoken("gpt2")
    with pytest.raises(MethodError, match="model that made it"):
        nw.lens(other.model, run, target=29)


def test_on_the_shell(tiny_folder: Path, tiny_model: Model, tmp_path: Path) -> None:
    ask = ["lens", "--text", "the cat sits on", "--model", str(tiny_folder), "--target", " the"]
    figure, numbers = tmp_path / "lens.svg", tmp_path / "lens.json"
    done = CliRunner().invoke(app, [*ask, "--out", str(figure), "--json"])
    content = json.loads(done.stdout)
    validated(content)
    run = tiny_model.run(prompt="the cat sits on", max_new_tokens=0, chat=False)
    found = nw.lens(tiny_model, run, target=" the")
    np.testing.assert_allclose(content["log_probs"], found.log_probs, rtol=1e-4)
    assert content["ranks"] == found.ranks.tolist()
    assert figure.read_text(encoding="utf-8").startswith("<?xml")
    found.save(numbers)
    validated(json.loads(numbers.read_text(encoding="utf-8")))
    shown = CliRunner().invoke(app, [*ask, "--positions", "1,3"]).stdout
    assert f"{found.log_probs[2, 3]:.2f}" in shown
    for wrong in (["--out", str(tmp_path / "lens.gif")], ["--concept", "cat"], ["--positions", "9"]):
        assert isinstance(CliRunner().invoke(app, [*ask, *wrong]).exception, nw.NeuronwiseError), wrong
