"""Heat lies where it should: one bright patch lights one neuron, through resizing, cropping and padding."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import neuronwise as nw
from neuronwise.errors import MethodError, PromptError
from neuronwise.model.model import Model
from neuronwise.model.prompt import Prompted
from neuronwise.model.run import Run
from neuronwise.read import Heatmap

SIDE, PATCH, IMAGE = 56, 7, 60  # an 8 × 8 grid; the image token's id


@pytest.fixture(scope="module")
def model() -> Model:
    """A tiny LLaVA in which no position sees another, so that a patch alone decides what fires at its token."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    text = LlamaConfig(
        hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        vocab_size=64, initializer_range=0.3,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE,
        patch_size=PATCH, initializer_range=0.3,
    )  # fmt: skip
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, vision_feature_layer=-1)
    module = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith(("o_proj.weight", "out_proj.weight", "out_proj.bias", "position_embedding.weight")):
                parameter.zero_()
    return Model(module, name="tiny llava")


def run_on(model: Model, photo: Image.Image, **processing: Any) -> Run:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    settings: dict[str, Any] = {"size": {"height": SIDE, "width": SIDE}, "do_center_crop": False, **processing}
    processor = CLIPImageProcessorPil(**settings)
    pixels = processor(photo, return_tensors="pt")["pixel_values"]
    model.processor = SimpleNamespace(image_processor=processor)
    ids = torch.tensor([[1, 2, *[IMAGE] * (SIDE // PATCH) ** 2, 3, 4]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    return Run(model, Prompted("", False, inputs), [], [], photo)


def spotted(width: int, height: int, left: int, top: int, size: int) -> Image.Image:
    photo = np.full((height, width, 3), 30, dtype=np.uint8)
    photo[top : top + size, left : left + size] = (250, 240, 20)
    return Image.fromarray(photo)


def hottest(heat: Heatmap) -> tuple[float, float]:
    """The center (x, y) of what is hotter than half, in photo pixels."""
    values = np.abs(heat.image() - np.nanmedian(heat.image()))
    rows, columns = np.nonzero(np.nan_to_num(values) >= 0.5 * np.nanmax(values))
    return float(columns.mean()), float(rows.mean())


def lit(model: Model, run: Run) -> str:
    """The neuron of layer 1 that the spot changes most."""
    acts = model.record(run.prompted.inputs, rows=run.image_positions.tolist()).dense[1]
    return f"L1.U{int((acts - acts.median(0).values).abs().amax(0).argmax())}"


SQUASHED: dict[str, Any] = {}
CROPPED: dict[str, Any] = {
    "size": {"shortest_edge": SIDE}, "do_center_crop": True, "crop_size": {"height": SIDE, "width": SIDE}
}  # fmt: skip


@pytest.mark.parametrize(("width", "height"), [(112, 112), (224, 112), (96, 240)])
@pytest.mark.parametrize(("across", "down"), [(0.2, 0.3), (0.8, 0.75), (0.5, 0.1)])
def test_the_hot_spot_falls_on_the_bright_patch(
    model: Model, width: int, height: int, across: float, down: float
) -> None:
    size = min(width, height) // 8
    left, top = int(across * (width - size)), int(down * (height - size))
    run = run_on(model, spotted(width, height, left, top, size))
    x, y = hottest(nw.heatmap(model, run, [lit(model, run)]))
    assert abs(x - left - size / 2) <= 0.75 * width / 8
    assert abs(y - top - size / 2) <= 0.75 * height / 8


@pytest.mark.parametrize(("width", "height"), [(224, 112), (100, 160)])
def test_a_cropped_photo_has_heat_where_the_model_looked(model: Model, width: int, height: int) -> None:
    size = min(width, height) // 4  # two by two patches of the crop, on their borders
    left, top = width // 2 + size, height // 2 - size
    run = run_on(model, spotted(width, height, left, top, size), **CROPPED)
    heat = nw.heatmap(model, run, [lit(model, run)])
    side = min(width, height)
    expected = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    assert heat.box == pytest.approx(expected, abs=1.0)  # the processor cuts at whole pixels of the resized photo
    x, y = hottest(heat)
    assert abs(x - left - size / 2) <= 0.75 * side / 8
    assert abs(y - top - size / 2) <= 0.75 * side / 8
    assert np.isnan(heat.image()).mean() == pytest.approx(1 - side * side / (width * height), abs=0.02)


def test_the_grid_is_the_recorded_activations(model: Model) -> None:
    run = run_on(model, spotted(100, 80, 20, 20, 20))
    acts = model.record(run.forced_inputs()).dense
    heat = nw.heatmap(model, run, ["L0.U3", "L1.U7"])
    expected = np.stack([acts[0][2:66, 3].reshape(8, 8).numpy(), acts[1][2:66, 7].reshape(8, 8).numpy()])
    assert np.allclose(heat.each, expected, atol=1e-6)
    assert np.allclose(heat.grid, expected.mean(0), atol=1e-6)


def test_the_mask_is_the_hottest_twentieth(model: Model) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    heat = nw.heatmap(model, run_on(model, Image.fromarray(noise)), ["L1.U0"])
    assert heat.mask().shape == (120, 160)
    assert heat.mask().mean() == pytest.approx(0.05, abs=0.01)
    assert heat.image()[heat.mask()].min() >= heat.image()[~heat.mask()].max()
    with pytest.raises(MethodError, match="percentile"):
        heat.mask(100)


def test_save(model: Model, tmp_path: Any) -> None:
    photo = spotted(160, 120, 20, 20, 20)
    heat = nw.heatmap(model, run_on(model, photo), ["L1.U0"])
    heat.save(tmp_path / "heat.png")
    assert Image.open(tmp_path / "heat.png").size == photo.size
    with pytest.raises(nw.NeuronwiseError, match="cannot be written"):
        heat.save(tmp_path / "none" / "heat.png")


def test_what_has_no_heat_says_so(model: Model) -> None:
    run = run_on(model, spotted(100, 80, 20, 20, 20))
    with pytest.raises(MethodError, match="one neuron or more"):
        nw.heatmap(model, run, [])
    run.image = None
    with pytest.raises(PromptError, match="no image"):
        nw.heatmap(model, run, ["L0.U0"])


def test_nothing_is_left_behind(model: Model) -> None:
    run = run_on(model, spotted(100, 80, 20, 20, 20))
    model.forward(run.prompted.inputs)  # transformers sets hooks of its own at the first pass
    before = hooks_of(model)
    nw.heatmap(model, run, ["L0.U0"])
    assert hooks_of(model) == before


def hooks_of(model: Model) -> list[tuple[int, int]]:
    return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.module.modules()]
