"""The hot spot falls on the red patch, for each family's own processor and code, for photos of any shape."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import neuronwise as nw
from neuronwise.model.model import Model
from neuronwise.model.run import Run
from neuronwise.read import Heatmap
from placement_table import PAGE, row
from placing import look_at_red, placing
from processors import BUILDERS

SPOTS = {  # photos' width and height → of the way that the spot can go, across and down
    (72, 72): [(0.0, 0.0), (0.7, 0.8)],
    (150, 60): [(1.0, 0.35), (0.4, 1.0)],
    (50, 130): [(0.0, 1.0), (0.8, 0.2)],
}
BY_ATTENTION = ("blip-2", "instructblip", "idefics2", "idefics2, whole", "mllama", "aria", "kosmos-2", "mplug_owl2")


def photo(width: int, height: int, spot: tuple[int, int, int, int] | None = None) -> Image.Image:
    pixels = np.full((height, width, 3), 100, dtype=np.uint8)
    if spot is not None:
        left, top, right, bottom = spot
        pixels[top:bottom, left:right] = (255, 0, 0)
    return Image.fromarray(pixels)


def seen(name: str, width: int, height: int) -> tuple[float, float, float, float]:
    """What reaches the model: all, but for the middle that a cropping processor leaves."""
    if name not in ("llava, cropped", "chameleon"):
        return 0, 0, width, height
    side = min(width, height)
    return (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2


def spot_in(part: tuple[float, ...], size: int, across: float, down: float) -> tuple[int, int, int, int]:
    left, top, right, bottom = part
    x, y = round(left + across * (right - left - size)), round(top + down * (bottom - top - size))
    return x, y, x + size, y + size


def run_on(model: Model, picture: Image.Image, prompt: str) -> Run:
    prompted, opened = model.prepare(picture, prompt, chat=False)
    return Run(model, prompted, [], [], opened)


@functools.lru_cache(maxsize=2)
def wired(name: str, layer: int = 2) -> tuple[Model, str, str]:
    """The model, the prompt and a neuron that fires at what is red, known from a photo that is red all over."""
    model, prompt = placing(name)
    plain, patch, red = (
        run_on(model, photo(72, 72, spot), prompt) for spot in (None, (10, 10, 34, 34), (0, 0, 72, 72))
    )
    if name in BY_ATTENTION:
        look_at_red(model, plain.prompted.inputs, patch.prompted.inputs)
    acts, before = fired(red, layer), fired(plain, layer)
    nothing = torch.zeros(1)
    if name in BY_ATTENTION:  # at every query, which all look at what is red
        neuron = max(acts, key=lambda name: min(float(acts[name].min()), rise(acts[name], before.get(name, nothing))))
    else:
        neuron = max(acts, key=lambda name: float(acts[name].median() - before.get(name, nothing).max()))
    return model, prompt, neuron


def rise(after: torch.Tensor, before: torch.Tensor) -> float:
    return float(after.median() - before.median())


def image_rows(run: Run) -> list[int]:
    """Rows that the photo can move, whatever the grid says."""
    first = int(run.image_positions[0])
    return list(range(first, run.length)) if len(run.image_positions) == 1 else run.image_positions.tolist()


def fired(run: Run, layer: int) -> dict[str, torch.Tensor]:
    """The activations of each neuron of a layer at the photo's tokens."""
    acts = run.model.record(run.prompted.inputs, rows=image_rows(run))
    if layer in acts.dense:
        return {f"L{layer}.U{unit}": values for unit, values in enumerate(acts.dense[layer].T)}
    rows = acts.routed[layer]
    found: dict[str, torch.Tensor] = {}
    for number, routed in enumerate(rows):
        for expert, record in routed.items():
            for unit, value in enumerate(record.weight * record.activation):
                found.setdefault(f"L{layer}.E{expert}.U{unit}", torch.zeros(len(rows)))[number] = value
    return found


def hottest(heat: Heatmap) -> tuple[Any, Any]:
    """The columns and rows of the pixels that are hottest; there are several where a cell ends at the photo's edge."""
    rows, columns = np.nonzero(heat.image() >= np.nanmax(heat.image()) - 1e-6)
    return columns + 0.5, rows + 0.5


@pytest.mark.parametrize("name", list(BUILDERS))
def test_the_hot_spot_falls_on_the_red_patch(name: str) -> None:
    model, prompt, neuron = wired(name)
    for (width, height), spots in SPOTS.items():
        for across, down in spots:
            spot = spot_in(seen(name, width, height), 16, across, down)
            run = run_on(model, photo(width, height, spot), prompt)
            heat = nw.heatmap(model, run, neuron)
            x, y = hottest(heat)
            cell_width = (heat.box[2] - heat.box[0]) / heat.grid.shape[1]
            cell_height = (heat.box[3] - heat.box[1]) / heat.grid.shape[0]
            near_x = (x >= spot[0] - cell_width / 2) & (x <= spot[2] + cell_width / 2)
            near_y = (y >= spot[1] - cell_height / 2) & (y <= spot[3] + cell_height / 2)
            assert (near_x & near_y).any(), (width, height, spot, (x.mean(), y.mean()), heat.box)


@pytest.mark.parametrize("name", ["llava_next", "internvl", "idefics3", "gemma3, pan and scan", "idefics2"])
def test_the_overview_alone_finds_it_too(name: str) -> None:
    model, prompt, neuron = wired(name)
    spot = spot_in((0, 0, 150, 60), 24, 0.8, 0.2)
    run = run_on(model, photo(150, 60, spot), prompt)
    fine, coarse = nw.heatmap(model, run, neuron), nw.heatmap(model, run, neuron, whole=True)
    assert coarse.grid.size < fine.grid.size
    assert "overview of the whole photo; its tiles are left out" in str(coarse.note)
    x, y = hottest(coarse)
    width, height = ((coarse.box[2 + i] - coarse.box[i]) / coarse.grid.shape[1 - i] for i in (0, 1))
    assert ((x >= spot[0] - width / 2) & (x <= spot[2] + width / 2)).any()
    assert ((y >= spot[1] - height / 2) & (y <= spot[3] + height / 2)).any()


@pytest.mark.parametrize("name", list(BUILDERS))
def test_the_documented_table_is_what_comes_out(name: str) -> None:
    assert row(name) in PAGE.read_text(encoding="utf-8").splitlines()


def test_photos_of_one_size_are_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from neuronwise.model.grid import traced

    model, prompt = placing("llava, cropped")
    asked: list[tuple[int, int]] = []
    processed = traced._processed
    monkeypatch.setattr(traced, "_processed", lambda run, one: asked.append(one.size) or processed(run, one))
    first = traced.trace(run_on(model, photo(150, 60), prompt))
    again = traced.trace(run_on(model, photo(150, 60, (0, 0, 20, 20)), prompt))
    assert first is again
    assert asked == [(150, 60)] * 4
    model.processor.image_processor.do_center_crop = False
    model.processor.image_processor.size = {"height": 28, "width": 28}
    whole = traced.trace(run_on(model, photo(150, 60), prompt))
    assert asked == [(150, 60)] * 8
    assert first is not None
    assert whole is not None
    assert whole.tiles() != first.tiles()
