"""Inpainting: only the mask is touched, results are kept by content, backends are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from neuronwise.errors import ImageError
from neuronwise.images.inpaint import Inpainter
from neuronwise.images.masks import box_mask


def photo() -> Image.Image:
    """A gray ramp with a red square in it."""
    ramp = np.tile(np.linspace(60, 200, 60, dtype=np.uint8), (50, 1))
    pixels = np.stack([ramp] * 3, -1)
    pixels[20:30, 20:35] = (255, 0, 0)
    return Image.fromarray(pixels)


MASK = box_mask((18, 18, 19, 14), 60, 50)


@pytest.mark.parametrize("backend", ["telea", "ns"])
def test_the_object_is_gone_and_the_rest_as_it_was(backend: str) -> None:
    before, after = np.asarray(photo()), np.asarray(Inpainter(backend)(photo(), MASK))
    assert np.array_equal(after[~MASK], before[~MASK])
    ramp = np.linspace(60, 200, 60)
    assert np.abs(after[25, 20:35].astype(float) - ramp[20:35, None]).max() < 40


def test_results_are_kept_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inpainter = Inpainter(cache=tmp_path)
    first = inpainter(photo(), MASK)
    assert [p.suffix for p in tmp_path.iterdir()] == [".png"]
    monkeypatch.setattr(inpainter, "_fill", lambda *_: 1 / 0)  # from here on nothing can be computed
    assert np.array_equal(np.asarray(inpainter(photo(), MASK)), np.asarray(first))
    for other in ((photo().rotate(180), MASK), (photo(), box_mask((0, 0, 5, 5), 60, 50))):
        with pytest.raises(ZeroDivisionError):
            inpainter(*other)
    assert Inpainter("ns").digest(photo(), MASK) != inpainter.digest(photo(), MASK)


class Blue(torch.nn.Module):
    """Stands for LaMa: blue under the mask; refuses sides that are no multiples of 8."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert image.shape[2] % 8 == 0
        assert image.shape[3] % 8 == 0
        blue = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
        return image * (1 - mask) + blue * mask


def test_a_torchscript_model(tmp_path: Path) -> None:
    torch.jit.script(Blue()).save(str(tmp_path / "lama.pt"))
    after = np.asarray(Inpainter(f"lama:{tmp_path / 'lama.pt'}")(photo(), MASK))
    assert (after[MASK] == (0, 0, 255)).all()
    assert np.array_equal(after[~MASK], np.asarray(photo())[~MASK])


def test_ready_images(tmp_path: Path) -> None:
    Image.new("RGB", (60, 50), "green").save(tmp_path / "dog.png")
    inpainter = Inpainter(f"folder:{tmp_path}")
    assert inpainter(photo(), MASK, name="photos/dog.jpg").getpixel((0, 0)) == (0, 128, 0)
    with pytest.raises(ImageError, match=r"no inpainted photo named cat"):
        inpainter(photo(), MASK, name="cat.jpg")
    with pytest.raises(ImageError, match="by their file name"):
        inpainter(photo(), MASK)
    Image.new("RGB", (6, 5)).save(tmp_path / "small.png")
    with pytest.raises(ImageError, match="belong together"):
        inpainter(photo(), MASK, name="small.jpg")


@pytest.mark.parametrize(
    "backend", ["best", "telea:x", "lama", "lama:/no/such.pt", "folder:/no/such", "diffusers:/no/such", ""]
)
def test_backends_that_are_none(backend: str) -> None:
    with pytest.raises(ImageError, match=r"no inpainting|no file|no folder|pip install diffusers"):
        Inpainter(backend)


def test_a_mask_of_another_photo() -> None:
    with pytest.raises(ImageError, match="the photo 60 × 50"):
        Inpainter()(photo(), np.ones((5, 5), bool))
