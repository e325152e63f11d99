"""The wired model that says "dog" of red, and photos for it."""

from __future__ import annotations

from typing import Any

import pytest

import neuronwise as nw
from neuronwise.data.photos import Photos, load_photos
from wired_study import talking, write_photos


@pytest.fixture(scope="module")
def model(tiny_tokenizer: Any) -> nw.Model:
    return talking(tiny_tokenizer)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    return load_photos(write_photos(tmp_path_factory.mktemp("photos")))
