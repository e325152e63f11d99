"""Photos of every form, size and damage, as files and as arrays."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from fuzz_spoil import damaged
from fuzz_world import World
from hypothesis import strategies as st
from PIL import Image

from neuronwise.images import open_image

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM", "TGA", "ICO", "EPS", "PDF", "DDS", "PCX", "SGI",
           "JPEG2000", "MPO", "SPIDER", "IM", "BLP", "MSP", "XBM")  # fmt: skip
MODES = ("RGB", "L", "RGBA", "P", "1", "LA", "CMYK", "I", "I;16", "F", "YCbCr", "HSV", "LAB")
SIZES = ((28, 28), (1, 1), (300, 1), (1, 300), (3, 7), (640, 9))
TURNED = Image.Exif()
TURNED[0x0112] = 6


def encoded(data: st.DataObject) -> bytes:
    """A picture in some format, perhaps damaged."""
    image = Image.new("RGB", data.draw(st.sampled_from(SIZES)), (200, 30, 30))
    mode, written = data.draw(st.sampled_from(MODES)), io.BytesIO()
    try:
        image = Image.new("I;16", image.size) if mode == "I;16" else image.convert("L" if mode in "IF" else mode)
        extra = {"exif": TURNED} if data.draw(st.booleans()) else {}
        image.convert(mode if mode != "I;16" else None).save(written, data.draw(st.sampled_from(FORMATS)), **extra)
    except Exception:  # not every format takes every mode
        image = Image.new("RGB", image.size)
        image.save(written, "PNG")
    content = written.getvalue()
    return damaged(data, content) if data.draw(st.booleans()) else content


def photos(data: st.DataObject, world: World, parent: Path) -> None:
    """A file under a name that may say another format."""
    name = data.draw(st.sampled_from(["a.jpg", "a.png", "a.eps", "a", "a b.gif", "\u202e.png", "a\nb.jpg"]))
    with world.fresh(parent) as folder:
        (folder / name).write_bytes(encoded(data))
        command = data.draw(
            st.sampled_from([["find"], ["find"], ["find", "--out", "out"], ["evidence", "--out", "o.png"]])
        )
        world.judge.shell(*command, name, "-m", "photo", "--prompt", "the", "--max-new-tokens", 2, "--concept", "dog")


def arrays(data: st.DataObject, world: World, parent: Path) -> None:
    """An array of some shape, kind and range."""
    shape = data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 28]), max_size=4))
    kind = data.draw(st.sampled_from(["uint8", "int8", "int64", "uint16", "float16", "float64", "bool", "complex64",
                                      "O", "U3", "datetime64[s]"]))  # fmt: skip
    value = data.draw(st.sampled_from([0, 1, 0.5, 255, 256, -1, 70000, 1e30, float("nan"), float("inf"), None, "x"]))
    try:
        with np.errstate(all="ignore"):
            array = np.full(shape, value).astype(kind)
    except (TypeError, ValueError, OverflowError):
        return
    with world.fresh(parent):
        world.judge.call((shape, kind, value), lambda: open_image(array))
