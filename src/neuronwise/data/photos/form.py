"""A form of photos: how a folder holds photos with their captions and annotations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from neuronwise.data.photos.photo import Photos


@dataclass(frozen=True)
class Form:
    """``layout`` says in a few words what a folder of this form has.

    ``recognizes(folder)``: whether a folder (or a file) has it. ``read(folder, part)``: its photos; ``part`` names one
    part where the form has several (None: all). ``read`` raises ``DataError`` for what is broken as a whole.
    """

    layout: str
    recognizes: Callable[[Path], bool]
    read: Callable[[Path, str | None], Photos]
