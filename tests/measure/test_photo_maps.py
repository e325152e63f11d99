"""Maps over photos against objects, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from neuronwise.errors import ImageError
from neuronwise.measure.photo_maps import center_map, hottest, map_fit, painted, random_map
from neuronwise.model.grid import ImageGrid
from neuronwise.read.photo_map import PhotoMap

PHOTO = Image.new("RGB", (8, 8), "white")


def over(grid: list[list[float]], box: tuple[float, float, float, float] = (0, 0, 8, 8)) -> PhotoMap:
    return PhotoMap(np.array(grid), box, PHOTO)


def corner(top: int, left: int) -> np.ndarray:
    mask = np.zeros((8, 8), bool)
    mask[top : top + 4, left : left + 4] = True
    return mask


def test_the_hottest_part_as_large_as_the_object_is_compared_with_it() -> None:
    right = over([[0, 1], [0, 0]])
    fit = map_fit(right, corner(0, 4))
    assert (fit.pointing, fit.object_share, fit.chance) == (True, 0.25, pytest.approx(0.25 / 1.75))
    assert fit.iou > 0.7
    away = map_fit(right, corner(4, 0))
    assert (away.pointing, away.iou) == (False, 0)


def test_only_what_the_model_saw_counts() -> None:
    half = over([[0, 1]], (0, 0, 8, 4))
    assert map_fit(half, corner(0, 4)).object_share == 0.5
    with pytest.raises(ImageError, match="outside of the part"):
        map_fit(half, corner(4, 0))
    with pytest.raises(ImageError, match="the photo 8 × 8"):
        map_fit(half, np.ones((4, 4), bool))


def test_controls_have_the_same_grid() -> None:
    wide = over([[0.0] * 5] * 3)
    center = center_map(wide).grid
    assert np.unravel_index(center.argmax(), center.shape) == (1, 2)
    first, again, other = (random_map(wide, seed).grid for seed in (1, 1, 2))
    assert sorted(first.reshape(-1)) == list(range(15))
    assert (first == again).all()
    assert (first != other).any()


def test_the_hottest_cells_are_taken_away() -> None:
    assert hottest(np.array([[1.0, 4.0], [3.0, 2.0]]), [0.01, 0.5, 1]) == [[1], [1, 2], [1, 2, 3, 0]]
    gray = np.asarray(painted(PHOTO, ImageGrid(np.arange(4), 2, 2, (0, 0, 8, 8)), [1]))[..., 0]  # type: ignore[arg-type]
    assert (gray == 128).sum() == 16
    assert (gray[:4, 4:] == 128).all()
