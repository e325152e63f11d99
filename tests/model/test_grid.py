"""The grid of image tokens on many kinds of models, and the way through a Q-Former."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import families
import neuronwise as nw
from neuronwise.errors import PromptError
from neuronwise.model.grid import image_grid
from neuronwise.model.model import Model
from neuronwise.model.prompt import Prompted
from neuronwise.model.run import Run

PLAIN = ["llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "idefics3", "paligemma"]
TILED = ["llava_next", "llava_onevision"]
QFORMER = ["blip_2", "instructblip"]


def run_of(name: str) -> Run:
    module, inputs = families.tiny(name)
    return Run(Model(module, check=False), Prompted("", False, inputs), [], [], Image.new("RGB", (120, 80)))


@pytest.mark.parametrize("name", PLAIN + TILED)
def test_the_grid_lies_on_the_image_tokens(name: str) -> None:
    run = run_of(name)
    grid = image_grid(run)
    tokens = [i for i, token in enumerate(run.prompted.input_ids) if token == run.model.image_token_id]
    assert grid.height * grid.width == len(grid.positions)
    assert set(grid.positions.tolist()) <= set(tokens)
    assert (len(grid.positions) == len(tokens)) is (name in PLAIN)
    assert (grid.note is not None) is (name in TILED)
    assert grid.box == (0.0, 0.0, 120.0, 80.0)


@pytest.mark.parametrize("name", QFORMER)
def test_query_tokens_are_spread_by_their_attention_to_patches(name: str) -> None:
    run = run_of(name)
    grid = image_grid(run)
    assert grid.note is not None
    assert "Q-Former" in grid.note
    assert grid.mixing is not None
    # Every query spreads at most 1 over the patches; the rest went to the encoder's class token.
    totals = grid.mixing.sum(0)
    assert (totals > 0).all()
    assert (totals <= 1 + 1e-5).all()
    heat = nw.heatmap(run.model, run, ["L0.U1", "L1.U2"])
    acts = run.model.record(run.prompted.inputs, rows=run.image_positions.tolist()).dense
    expected = grid.mixing @ torch.stack([acts[0][:, 1], acts[1][:, 2]]).mean(0)
    assert np.allclose(heat.grid.ravel(), expected.numpy(), atol=1e-5)
    assert run.model.module.qformer.config._attn_implementation != "eager"


def test_a_model_with_cross_attention_has_no_heatmap() -> None:
    with pytest.raises(PromptError, match="cross-attention"):
        image_grid(run_of("mllama"))
