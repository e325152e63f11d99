"""The grid of image tokens on many kinds of models: shapes, tiles, and the ways through attention."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import families
import neuronwise as nw
from neuronwise.errors import PromptError
from neuronwise.model.grid import ImageGrid, image_grid
from neuronwise.model.grid.layout import Shape, View, joined, shape_of, within
from neuronwise.model.model import Model
from neuronwise.model.prompt import Prompted
from neuronwise.model.run import Run
from placing import placing

PLAIN = ["llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "idefics3", "paligemma"]
TILED = ["llava_next", "llava_onevision"]
QFORMER = ["blip_2", "instructblip"]
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 150, 3), dtype=np.uint8))


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


@pytest.mark.parametrize(
    ("tokens", "height", "width", "shape"),
    [
        (576, 336, 336, Shape(24, 24)),
        (577, 336, 336, Shape(24, 24, first=1)),  # a class token
        (90 * 91, 720, 720, Shape(90, 90, ends=1)),  # Emu3: a token at the end of each row
        (3 * 5, 42, 70, Shape(3, 5)),
        (1, 28, 28, Shape(1, 1)),
        (7, 56, 56, None),
    ],
)
def test_how_tokens_lie_over_a_view(tokens: int, height: int, width: int, shape: Shape | None) -> None:
    assert shape_of(tokens, height, width) == shape


def test_rows_that_end_with_a_token_leave_it_out() -> None:
    assert Shape(2, 2, ends=1).index(torch.arange(6)).tolist() == [0, 1, 3, 4]
    assert Shape(2, 2, first=1).index(torch.arange(5)).tolist() == [1, 2, 3, 4]


def view(start: int, *box: float) -> View:
    return View(torch.arange(start, start + 4), 2, 2, box)  # type: ignore[arg-type]


def test_tiles_are_joined_where_they_lie_whatever_their_order() -> None:
    right, left, overview = view(0, 50, 0, 100, 40), view(4, 0, 0, 50, 40), view(8, 0, 0, 100, 40)
    for order in ([right, left, overview], [overview, right, left], [right, overview, left]):
        laid = joined(order)
        assert laid is not None
        assert laid[0].index.tolist() == [4, 5, 0, 1, 6, 7, 2, 3]
        assert (laid[0].rows, laid[0].columns, laid[0].box) == (2, 4, (0, 0, 100, 40))
        assert "1 × 2 tiles" in str(laid[1])
        whole = joined(order, whole=True)
        assert whole is not None
        assert whole[0] is overview
    alone = joined([left, right])
    assert alone is not None
    assert alone[0].index.tolist() == [4, 5, 0, 1, 6, 7, 2, 3]


def test_tiles_that_overlap_are_left_out() -> None:
    tiles = [view(0, 0, 0, 60, 40), view(4, 40, 0, 100, 40)]
    laid = joined([*tiles, view(8, 0, 0, 100, 40)])
    assert laid is not None
    assert laid[0].index.tolist() == [8, 9, 10, 11]
    assert "overlap" in str(laid[1])
    assert joined(tiles) is None


def test_cells_beside_the_photo_are_dropped() -> None:
    grid = ImageGrid(torch.arange(16), 4, 4, (0.0, -20.0, 80.0, 60.0))  # cells of 20 on a photo of 80 × 30
    kept = within(grid, 80, 30)
    assert kept.positions.tolist() == list(range(4, 12))
    assert (kept.height, kept.width, kept.box) == (2, 4, (0.0, 0.0, 80.0, 40.0))
    spread = ImageGrid(torch.arange(3), 4, 4, grid.box, mixing=torch.rand(16, 3))
    assert spread.mixing is not None
    values = torch.rand(3)
    assert torch.equal(within(spread, 80, 30).spread(values), spread.spread(values)[1:3])
    assert within(kept, 80, 30) is kept


def placed(name: str, tokens: int = 0) -> Run:
    model, prompt = placing(name)
    return model.run(PHOTO, prompt, chat=False, max_new_tokens=tokens)


def test_through_cross_attention_each_layer_sees_what_was_read_below_it() -> None:
    run = placed("mllama", tokens=3)
    grid = image_grid(run)
    start = int(run.image_positions[0])
    assert grid.positions.tolist() == list(range(start, run.length))
    assert run.length == len(run.prompted.input_ids) + len(run.output_ids)
    heat = nw.heatmap(run.model, run, ["L0.U1", "L1.U2", "L2.U3"])
    assert not heat.each[0].any()  # the cross-attention is in layer 1
    acts = run.model.record(run.forced_inputs()).dense
    assert grid.mixing is not None
    for number, (layer, unit) in enumerate([(1, 2), (2, 3)], 1):
        expected = grid.mixing @ acts[layer][start:, unit]
        assert np.allclose(heat.each[number].ravel(), expected.numpy(), atol=1e-5)
    assert "neurons below layer 1 have seen no image" in str(heat.note)
    assert run.model.config.get_text_config()._attn_implementation != "eager"


def test_pixels_that_fill_no_patch_are_not_covered() -> None:
    model, prompt = placing("idefics2, whole")
    run = model.run(PHOTO.resize((150, 90)), prompt, chat=False, max_new_tokens=0)
    assert run.prompted.inputs["pixel_values"].shape[-2:] == (19, 32)  # four rows of patches and three pixels more
    assert image_grid(run).box == pytest.approx((0.0, 0.0, 150.0, 90.0 * 16 / 19))


def test_a_processor_that_does_not_repeat_itself_gives_no_places() -> None:
    run = placed("internvl")
    run.model.processor = SimpleNamespace(image_processor=lambda picture, **kwargs: {"pixel_values": torch.ones(1)})
    with pytest.raises(PromptError, match="where the 4 views of the photo are"):
        image_grid(run)


def test_tokens_that_reach_into_the_next_row_have_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    run = placed("minigpt4_patches")
    assert (image_grid(run).height, image_grid(run).width) == (8, 2)
    monkeypatch.setattr(type(run.model.config), "image_token_grid", None)
    with pytest.raises(PromptError, match="from one row of patches into the next"):
        image_grid(run)


def test_without_a_processor_tiles_have_no_place() -> None:
    with pytest.raises(PromptError, match="only the model's own processor knows"):
        image_grid(run_of("mllama"))


def test_what_a_run_kept_is_what_a_pass_would_find(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuronwise.model.many.HEAT_SHARE", 10.0)
    model, prompt = placing("internvl")
    kept = model.run(PHOTO, prompt, chat=False, max_new_tokens=1, heat=True)
    assert kept.seen is not None
    again = model.run(PHOTO, prompt, chat=False, max_new_tokens=1)
    neurons = ["L0.U3", "L2.U5"]
    assert np.allclose(nw.heatmap(model, kept, neurons).each, nw.heatmap(model, again, neurons).each, atol=1e-6)


def test_what_a_processor_adds_for_training_is_left_out() -> None:
    run = placed("paligemma")  # its processor answers with labels too, for which the model would want every logit
    assert "labels" not in run.prompted.inputs
    assert (image_grid(run).height, image_grid(run).width) == (8, 8)


@pytest.mark.parametrize("name", ["blip-2", "mllama", "idefics2"])
def test_a_pass_that_fails_leaves_the_model_as_it_was(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = placed(name)
    before = state_of(run.model)
    image_grid(run)
    assert state_of(run.model) == before

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(run.model.head, "forward", broken)
    vision = [
        m for n, m in run.model.module.named_modules() if n.rpartition(".")[2] in ("vision_model", "vision_tower")
    ]
    monkeypatch.setattr(vision[0], "forward", broken)
    with pytest.raises(MemoryError):
        image_grid(run)
    assert state_of(run.model) == before


def state_of(model: Model) -> list[Any]:
    return [
        (
            len(m._forward_hooks),
            len(m._forward_pre_hooks),
            getattr(getattr(m, "config", None), "_attn_implementation", 0),
        )
        for m in model.module.modules()
    ]
