"""Opening photos of every form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neuronwise.errors import ImageError
from neuronwise.images import open_image
from neuronwise.images.open import file_of


@pytest.fixture
def photo(chelsea: Path) -> Image.Image:
    return Image.open(chelsea).convert("RGB").resize((60, 40))


@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGB", "png"), ("CMYK", "jpg"), ("L", "png"), ("P", "gif"), ("1", "png")]
)
def test_every_mode_becomes_rgb(tmp_path: Path, photo: Image.Image, mode: str, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    photo.convert(mode).save(path)
    opened = open_image(path)
    assert opened.mode == "RGB"
    assert opened.size == photo.size
    # Coarse grays, so that a dithered black and white photo compares too.
    coarse = [np.asarray(i.convert("L").resize((12, 8), Image.Resampling.BOX), dtype=float) for i in (opened, photo)]
    assert np.corrcoef(coarse[0].ravel(), coarse[1].ravel())[0, 1] > 0.8


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((4, 6, 4), dtype=np.uint8)
    rgba[:, 3:] = (255, 0, 0, 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    opened = np.asarray(open_image(tmp_path / "a.png"))
    assert (opened[:, :3] == 255).all()
    assert (opened[:, 3:] == (255, 0, 0)).all()


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", ramp):
        opened = np.asarray(open_image(source))[..., 0]
        assert np.abs(opened.astype(int) - ramp // 257).max() <= 1


def test_the_first_frame_of_an_animation(tmp_path: Path, photo: Image.Image) -> None:
    black = Image.new("RGB", photo.size)
    photo.save(tmp_path / "a.gif", save_all=True, append_images=[black, black])
    assert np.asarray(open_image(tmp_path / "a.gif")).mean() > 50


def test_exif_rotation_is_applied(tmp_path: Path, photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").size == photo.size[::-1]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_arrays(shape: tuple[int, ...]) -> None:
    assert open_image(np.ones(shape, dtype=np.float32)).size == (7, 5)
    assert np.asarray(open_image(np.ones(shape, dtype=np.float32)))[0, 0, 0] == 255


@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "uint16", "int32", "int64", "uint64", "float32", "float64"])
def test_numbers_up_to_255_are_the_same_photo_in_every_dtype(kind: str) -> None:
    pixels = np.arange(128, dtype=np.uint8).reshape(8, 16)
    assert (np.asarray(open_image(pixels.astype(kind)))[..., 0] == pixels).all()


@pytest.mark.parametrize("shift", [0.0, -0.0005, 0.0005])
def test_fractions_a_hair_outside_are_clipped(shift: float) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    opened = np.asarray(open_image(pixels / 255 + shift))[..., 0]
    assert np.abs(opened.astype(int) - pixels).max() <= 1


@pytest.mark.parametrize(
    "array",
    [
        np.linspace(-1, 1, 64).reshape(8, 8), np.linspace(0, 1.5, 64).reshape(8, 8), np.array([[0.0, 3.1]]),
        np.array([[-3, 200]]), np.array([[0, 70_000]]), np.array([[-0.2, 0.9]]),
    ],
)  # fmt: skip
def test_numbers_that_could_mean_two_things_are_refused(array: np.ndarray) -> None:
    with pytest.raises(ImageError, match="fractions from 0 to 1"):
        open_image(array)


@pytest.mark.parametrize("array", [np.zeros((2, 2, 5)), np.zeros((0, 3)), np.full((2, 2), np.nan), np.zeros(3)])
def test_what_is_no_image_array(array: np.ndarray) -> None:
    with pytest.raises(ImageError):
        open_image(array)


def test_what_is_no_image_file(tmp_path: Path, photo: Image.Image) -> None:
    with pytest.raises(ImageError, match="no file"):
        open_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="folder"):
        open_image(tmp_path)
    (tmp_path / "text.jpg").write_text("not a photo")
    with pytest.raises(ImageError, match="not an image"):
        open_image(tmp_path / "text.jpg")
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match="not an image"):
        open_image(tmp_path / "empty.jpg")
    photo.save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:700])
    with pytest.raises(ImageError, match="truncated"):
        open_image(tmp_path / "half.jpg")


def test_a_photo_knows_its_file(tmp_path: Path, photo: Image.Image) -> None:
    photo.save(tmp_path / "cat.png")
    for source in (tmp_path / "cat.png", str(tmp_path / "cat.png"), Image.open(tmp_path / "cat.png")):
        assert file_of(open_image(source)) == "cat.png"
    assert file_of(open_image(photo.copy())) is None
    assert file_of(open_image(np.asarray(photo))) is None
