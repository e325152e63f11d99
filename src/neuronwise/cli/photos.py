"""What ``find`` does with many photos of one concept, and with a photo whose object is masked."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronwise.cli.output import print_finding, print_json, progress_bar, stdout_kept
from neuronwise.errors import NeuronwiseError

if TYPE_CHECKING:
    from neuronwise.data.photos import Photos
    from neuronwise.images.masks import Mask
    from neuronwise.model import Model


@dataclass(frozen=True)
class Source:
    """Where photos come from: a folder (``data``), or one ``image`` with a ``mask`` file or a ``box`` "x,y,w,h"."""

    image: Path | None = None
    data: Path | None = None
    mask: Path | None = None
    box: str | None = None
    inpainting: str = "telea"
    dilation: int = 5
    most: int = 12

    @property
    def wanted(self) -> bool:
        return self.data is not None or self.mask is not None or self.box is not None

    def read(self) -> tuple[Photos, dict[str, Mask]]:
        """The photos, and the masks that are not annotated, by the photo's id."""
        from neuronwise.data.photos import Captioned, Photos, load_photos
        from neuronwise.images import open_image
        from neuronwise.images.inpaint.table import parsed
        from neuronwise.images.masks import box_mask, file_mask

        if self.data is not None:
            if self.image is not None or self.mask is not None or self.box is not None:
                raise NeuronwiseError(
                    "--data takes photos and masks from a folder; leave the photo, --mask, --box out."
                )
            return load_photos(self.data), {}
        if self.image is None:
            raise NeuronwiseError("two_stage takes an object out of photos: name a folder with --data, or one photo.")
        size = open_image(self.image).size
        photos = Photos((Captioned(self.image.stem, self.image),), (), str(self.image))
        if self.mask is not None and self.box is not None:
            raise NeuronwiseError("Give either --mask or --box.")
        if self.mask is not None:
            return photos, {self.image.stem: file_mask(self.mask, *size)}
        if self.box is not None:
            return photos, {self.image.stem: box_mask(_numbers(self.box), *size)}
        if not parsed(self.inpainting)[0].ready:
            raise NeuronwiseError("two_stage needs to know where the object is: --mask FILE, --box X,Y,W,H, or --data.")
        return photos, {}


def find_over_photos(
    source: Source,
    load: Callable[[], Model],
    concepts: Sequence[str],
    options: Mapping[str, Any],
    settings: Sequence[str] | None,
    out: Path | None,
    as_json: bool,
    **choices: Any,
) -> None:
    """Find every concept, print it, and with ``out`` save what it was found by."""
    from neuronwise.cli.edit import parse_settings
    from neuronwise.cli.study import require_extra

    options = {**options, **parse_settings(settings)}
    agree = options.pop("agree", "mean")
    require_extra()
    photos, masks = source.read()
    with stdout_kept():
        model = load()
        from neuronwise.report.concept import write_concept
        from neuronwise.study.concept import find

        pairs = []
        for concept in concepts:
            with progress_bar("looking at photos") as bar:
                one = find(
                    model, photos, concept, options=options, masks=masks, inpainting=source.inpainting,
                    dilation=source.dilation, most=source.most,
                    agree=agree, progress=lambda what, done, total, bar=bar: bar(done, total), **choices,
                )  # fmt: skip
            pairs.append((one, {**one.to_dict(), "command": shlex.join(["neuronwise", *sys.argv[1:]])}))
            used = ", ".join(photo.id for photo in one.photos)
            count = f"{len(one.photos)} photo{'s' if len(one.photos) != 1 else ''}"
            print(f"neuronwise: {concept}: found on {count} ({used})", file=sys.stderr)
        if out is not None:  # not before every concept is found
            for one, content in pairs:
                write_concept(out / one.concept if len(concepts) > 1 else out, one, content)
        found = [content for _, content in pairs]
    content = {**found[0], "concepts": [row for one in found for row in one["concepts"]]}
    if len(found) > 1:
        content["photos"] = {one["concepts"][0]["word"]: one["photos"] for one in found}
        content["left_out"] = {one["concepts"][0]["word"]: one["left_out"] for one in found}
        content["funnel"] = {one["concepts"][0]["word"]: one["funnel"] for one in found}
    if as_json:
        print_json(content)
        return
    print_finding(content, None)
    if out is not None:
        print(f"photos: {out}")


def _numbers(box: str) -> list[float]:
    try:
        numbers = [float(one) for one in box.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4:
        raise NeuronwiseError(f"--box takes X,Y,WIDTH,HEIGHT in pixels, such as 10,20,100,80; not '{box}'.")
    return numbers
