"""What ``find`` does with many photos of one concept, and with a photo whose object is masked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from neuronwise.cli.app import option, refuse
from neuronwise.cli.options import Ask, Scoring, Words, parse_box, require_studies
from neuronwise.cli.output import command_line, note
from neuronwise.cli.progress import progress_bar
from neuronwise.data.photos.load import FORMS
from neuronwise.errors import NeuronwiseError
from neuronwise.images.inpaint.table import INPAINTERS, parsed
from neuronwise.locate.methods import METHODS

if TYPE_CHECKING:
    from neuronwise.data.photos import Photos
    from neuronwise.images.masks import Mask
    from neuronwise.model import Model


@dataclass(frozen=True)
class PhotoSource:
    """Where photos of a concept come from: a folder, or one photo with a mask or a box."""

    data: Annotated[
        Path | None,
        option(
            f"Find --concept over a folder of photos (forms: {', '.join(FORMS)}). "
            "The default method is then two_stage, as with --mask and --box."
        ),
    ] = None
    mask: Annotated[Path | None, option("Where the concept is in the photo: a white on black image.")] = None
    box: Annotated[str | None, option("The same as a box in pixels: X,Y,WIDTH,HEIGHT.")] = None
    inpainting: Annotated[
        str,
        option(
            f"How the object is removed: {', '.join(INPAINTERS)}; written lama:FILE.pt, diffusers:FOLDER, or "
            "folder:DIR of finished photos."
        ),
    ] = "telea"
    dilation: Annotated[int, option("Pixels by which masks grow.", min=0)] = 5
    photos: Annotated[int, option("Use at most this many photos of a concept.", min=1)] = 12

    @property
    def given(self) -> bool:
        """Whether the user named a folder, a mask or a box."""
        return self.data is not None or self.mask is not None or self.box is not None

    def require_used(self, method: str | None) -> None:
        """Refuse options of this group that nothing reads with this method; raises ``NeuronwiseError``."""
        if self.data is None:
            refuse("with one photo", "photos")
        if not METHODS[method or "two_stage"].compares:
            refuse(f"with --method {method}, which removes nothing", "mask", "box", "inpainting", "dilation")
        elif parsed(self.inpainting)[0].ready:
            refuse(f"with --inpainting {self.inpainting}, whose photos are finished", "dilation", "mask", "box")

    def read(self, image: Path | None) -> tuple[Photos, dict[str, Mask]]:
        """The photos, and the masks that are not annotated, by the photo's id."""
        from neuronwise.data.photos import Captioned, Photos, load_photos
        from neuronwise.images import open_image
        from neuronwise.images.masks import box_mask, file_mask

        if self.data is not None:
            if image is not None or self.mask is not None or self.box is not None:
                raise NeuronwiseError("--data takes photos and masks from a folder; omit the photo, --mask and --box.")
            return load_photos(self.data), {}
        if image is None:
            raise NeuronwiseError("two_stage removes an object from photos: name a folder with --data, or one photo.")
        if self.mask is not None and self.box is not None:
            raise NeuronwiseError("Give either --mask or --box.")
        photos, size = Photos((Captioned(image.stem, image),), (), str(image)), open_image(image).size
        if self.mask is not None:
            return photos, {image.stem: file_mask(self.mask, *size)}
        if self.box is not None:
            return photos, {image.stem: box_mask(parse_box(self.box), *size)}
        if not parsed(self.inpainting)[0].ready:
            raise NeuronwiseError("two_stage needs to know where the object is: --mask FILE, --box X,Y,W,H, or --data.")
        return photos, {}


def find_over_photos(
    source: PhotoSource,
    image: Path | None,
    load: Callable[[], Model],
    words: Words,
    scoring: Scoring,
    ask: Ask,
    out: Path | None,
) -> dict[str, Any]:
    """Find every concept, and with ``out`` save what it was found on: the object that is printed."""
    options = scoring.options()
    agree = options.pop("agree", "mean")
    require_studies()
    photos, masks = source.read(image)
    model = load()
    from neuronwise.report.concept import write_concept
    from neuronwise.study.concept import find

    found = []
    for concept in words.concepts:
        with progress_bar("captioning photos") as bar:
            one = find(
                model, photos, concept,
                method=scoring.method or "two_stage", top=words.top, options=options, agree=agree,
                most=source.photos, masks=masks, inpainting=source.inpainting, dilation=source.dilation,
                prompt=ask.prompt, max_new_tokens=ask.length, seed=scoring.seed,
                progress=lambda what, done, total, bar=bar: bar(done, total),
            )  # fmt: skip
        found.append((one, {**one.to_dict(), "command": command_line()}))
        used = ", ".join(photo.id for photo in one.photos)
        note(f"{concept}: found on {len(one.photos)} photo{'s' if len(one.photos) != 1 else ''} ({used})")
    if out is not None:  # not before every concept is found
        for one, content in found:
            write_concept(out / one.concept if len(found) > 1 else out, one, content)
    return _joined([content for _, content in found])


def _joined(found: list[dict[str, Any]]) -> dict[str, Any]:
    """One object of all concepts; what belongs to a concept is then under its word."""
    content = {**found[0], "concepts": [row for one in found for row in one["concepts"]]}
    if len(found) > 1:
        for name in ("photos", "left_out", "funnel"):
            content[name] = {one["concepts"][0]["word"]: one[name] for one in found}
    return content
