"""A concept's finding as a folder: the object behind it, and each photo with its mask and without the concept."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuronwise.files import filling, write_json
from neuronwise.images import open_image
from neuronwise.images.masks import shown
from neuronwise.images.open import save_image
from neuronwise.report.filled import gallery_element
from neuronwise.report.page import write_page
from neuronwise.study.concept import ConceptFinding

_UNSAFE = re.compile(r"[^\w.-]")


def write_concept(directory: str | os.PathLike[str], finding: ConceptFinding, content: Mapping[str, Any]) -> Path:
    """Write the page ``index.html``, ``finding.json`` and, for each photo, ``ID.photo.png``, ``ID.mask.png`` (white on
    black), ``ID.shown.png`` (the mask laid over the photo) and ``ID.inpainted.png``; returns the folder."""
    from PIL import Image

    with filling(directory) as folder:
        for photo in finding.photos:
            image, mask, inpainted = finding.pictures(photo)
            pictures = {"photo": image, "inpainted": inpainted}
            if mask is not None:
                pictures |= {"mask": Image.fromarray(mask.astype("uint8") * 255), "shown": shown(image, mask)}
            for name, picture in pictures.items():
                if picture is not None:
                    save_image(picture, folder / f"{_UNSAFE.sub('_', photo.id)}.{name}.png")
        captions = finding.workspace.captions
        gallery = [
            (f"{_UNSAFE.sub('_', one.id)}.photo.png", captions[one.id], open_image(one.path)) for one in finding.photos
        ]
        write_page(folder, content, gallery=gallery_element(gallery))
        write_json(folder / "finding.json", content)
    return Path(directory)
