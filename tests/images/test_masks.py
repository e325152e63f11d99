"""Masks against pycocotools' own and by hand; what is no mask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neuronwise.errors import ImageError
from neuronwise.images.masks import box_mask, coco_mask, dilated, file_mask, merged, shown

SQUARE = [[2.0, 3.0, 6.0, 3.0, 6.0, 8.0, 2.0, 8.0]]


def test_a_polygon_covers_its_pixels() -> None:
    expected = np.zeros((10, 12), bool)
    expected[3:8, 2:6] = True
    assert np.array_equal(coco_mask(SQUARE, 12, 10), expected)


def test_every_form_of_one_mask_is_the_same() -> None:
    from pycocotools import mask as coco

    polygon = coco_mask(SQUARE, 12, 10)
    packed = coco.encode(np.asfortranarray(polygon.astype(np.uint8)))
    assert np.array_equal(coco_mask(packed, 12, 10), polygon)
    counts, last, length = [], 0, 0
    for pixel in polygon.T.flatten():  # run lengths go down the columns
        if pixel != last:
            counts.append(length)
            last, length = pixel, 0
        length += 1
    counts.append(length)
    assert np.array_equal(coco_mask({"size": [10, 12], "counts": counts}, 12, 10), polygon)
    assert np.array_equal(box_mask((2, 3, 4, 5), 12, 10), polygon)


def test_masks_equal_cocos_own(data: Path) -> None:
    from pycocotools.coco import COCO

    index = COCO(str(data / "coco-mini/annotations/instances_val2017.json"))
    forms = set()
    for annotation in index.anns.values():
        image = index.imgs[annotation["image_id"]]
        expected = index.annToMask(annotation).astype(bool)
        if expected.any():
            assert np.array_equal(coco_mask(annotation["segmentation"], image["width"], image["height"]), expected)
            forms.add(type(annotation["segmentation"]))
    assert forms == {list, dict}


def test_a_grown_mask_is_a_disc_around_every_point() -> None:
    mask = np.zeros((21, 21), bool)
    mask[10, 10] = True
    grown = dilated(mask, 4)
    rows, columns = np.nonzero(grown)
    distances = np.hypot(rows - 10, columns - 10)
    assert distances.max() <= 4.5
    assert grown[10, 6]
    assert grown[14, 10]
    assert np.array_equal(dilated(mask, 0), mask)
    with pytest.raises(ImageError, match="grow by -1"):
        dilated(mask, -1)


def test_a_drawn_mask(tmp_path: Path) -> None:
    drawn = np.zeros((10, 12), np.uint8)
    drawn[1:3, 4:6] = 255
    Image.fromarray(drawn).save(tmp_path / "mask.png")
    assert np.array_equal(file_mask(tmp_path / "mask.png", 12, 10), drawn > 0)
    with pytest.raises(ImageError, match="12 × 10, the photo 24 × 10"):
        file_mask(tmp_path / "mask.png", 24, 10)


def test_a_photo_is_no_mask_but_soft_edges_may_be(chelsea: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="a picture, not a mask"):
        file_mask(chelsea, 451, 300)
    soft = np.zeros((10, 12), np.uint8)
    soft[2:8, 2:10], soft[3:7, 3:9] = 128, 255  # a fifth of it is gray
    Image.fromarray(soft).save(tmp_path / "soft.png")
    assert file_mask(tmp_path / "soft.png", 12, 10).sum() == 48


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: coco_mask([[100.0, 100, 120, 100, 120, 130]], 12, 10), "outside the photo"),
        (lambda: coco_mask([], 12, 10), "empty"),
        (lambda: coco_mask({"size": [4, 4], "counts": [0, 16]}, 12, 10), "4 × 4, the photo 12 × 10"),
        (lambda: coco_mask("polygon", 12, 10), "neither polygons"),
        (lambda: coco_mask([[1.0, 2.0]], 12, 10), "neither polygons|empty"),
        (lambda: box_mask((50, 50, 5, 5), 12, 10), "outside the photo"),
        (lambda: box_mask((-9, -9, 5, 5), 12, 10), "outside the photo"),
        (lambda: box_mask((1, 2, 3), 12, 10), "not a box"),
        (lambda: merged([]), "no mask"),
    ],
)
def test_what_is_no_mask(make: object, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        make()  # type: ignore[operator]


def test_a_mask_can_be_looked_at() -> None:
    image = Image.new("RGB", (12, 10), "white")
    red = np.asarray(shown(image, coco_mask(json.loads(json.dumps(SQUARE)), 12, 10)))
    assert red[4, 3].tolist() == [255, 127, 127]
    assert red[0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(merged([box_mask((0, 0, 1, 1), 2, 2), box_mask((1, 1, 1, 1), 2, 2)]), np.eye(2, dtype=bool))


def as_text(mask: np.ndarray) -> dict[str, Any]:
    from pycocotools import mask as coco

    code: Any = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": code["size"], "counts": code["counts"].decode()}


@pytest.mark.parametrize("seed", range(5))
def test_codes_of_any_mask_are_read_as_pycocotools_reads_them(seed: int) -> None:
    chance = np.random.default_rng(seed)
    mask = chance.random((37 + seed, 23)) < (0.01, 0.1, 0.5, 0.9, 0.999)[seed]
    code = as_text(mask)
    assert (coco_mask(code, 23, 37 + seed) == mask).all()
    assert (coco_mask({**code, "counts": code["counts"].encode()}, 23, 37 + seed) == mask).all()


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ([[1, 1, 5, float("nan"), 5, 5]], "nan is far outside"),
        ([[1, 1, 5, 1e400, 5, 5]], "inf is far outside"),
        ([[1, 1, 1e9, 1, 5, 5]], "far outside the photo"),
        ([[1, 1, -1e9, 1, 5, 5]], "far outside the photo"),
        ([[1, 1, 5, 1]], "three points"),
        ([[1, 1, 5, 1, 5]], "three points"),
        ([[1, 1, 5, 1, "5", 5]], "something else than numbers"),
        ([5, 1, 2, 3], "three points"),
        ([], "empty"),
        ({"size": [9, 10], "counts": [10, 80]}, "it is .*, the photo 10 × 10"),
        ({"size": [1000000, 1000000], "counts": "0"}, "it is .*, the photo 10 × 10"),
        ({"size": [10, 10], "counts": []}, "cover 0 pixels"),
        ({"size": [10, 10], "counts": ""}, "cover 0 pixels"),
        ({"size": [10, 10], "counts": [10, 80]}, "cover 90 pixels"),
        ({"size": [10, 10], "counts": [10, 200]}, "cover 210 pixels"),
        ({"size": [10, 10], "counts": [110, -10]}, "whole numbers"),
        ({"size": [10, 10], "counts": [10.5, 89.5]}, "whole numbers"),
        ({"size": [10, 10], "counts": "oooooooo"}, "middle of a number"),
        ({"size": [10, 10], "counts": "\x00\x01"}, "another form"),
        ({"size": None, "counts": [100]}, "neither polygons"),
        ({"counts": [100]}, "size and counts"),
        ("100", "size and counts"),
        (None, "size and counts"),
    ],
)
def test_segmentations_that_would_crash_are_refused(segmentation: Any, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        coco_mask(segmentation, 10, 10)
