"""Photos to train and measure on: the fixed splits, what is known of each photo, and random views of it."""

import dataclasses
import functools
import json
import pathlib
import random

from PIL import Image, ImageOps

from imagenet import names_class
from neuronwise.answers.naming import objects_named

SIDE = 224
Box = tuple[float, float, float, float]


@dataclasses.dataclass
class Photo:
    """A photo and what is known of it: captions, annotated objects with boxes, or an ImageNet class."""

    path: pathlib.Path
    longest: int | None = None
    captions: list[str] = dataclasses.field(default_factory=list)
    boxes: list[tuple[str, Box]] = dataclasses.field(default_factory=list)
    class_index: int | None = None
    class_name: str = ""

    @functools.cached_property
    def image(self) -> Image.Image:
        """The photo, read once and kept; with `longest` its longer side has no more pixels than that."""
        image = ImageOps.exif_transpose(Image.open(self.path)).convert("RGB")
        if self.longest:
            # Training keeps all photos in memory; twice the encoder's side is enough for crops.
            image.thumbnail((self.longest, self.longest), Image.Resampling.BICUBIC)
        return image

    @property
    def objects(self) -> set[str]:
        """The annotated categories."""
        return {category for category, _ in self.boxes}

    @property
    def agreed_objects(self) -> set[str]:
        """The annotated categories or, without annotations, those that at least two captions name."""
        if self.boxes:
            return self.objects
        named = [objects_named(caption) for caption in self.captions]
        return {category for names in named for category in names if sum(category in other for other in named) > 1}

    def is_named_by(self, caption: str) -> bool:
        """Say whether a caption names the photo's class or a close parent of it."""
        return self.class_index is not None and names_class(caption, self.class_index, self.class_name)


@dataclasses.dataclass
class Splits:
    """Training photos, photos that choose recipe and checkpoint, and photos that are only ever measured on."""

    train: list[Photo]
    validation: list[Photo]
    test: list[Photo]


def read_coco(folder: pathlib.Path, part: str, longest: int | None = 512) -> list[Photo]:
    """Read one part ("train2017", "val2017") of a COCO folder: photos with captions and, where given, boxes."""
    captions = json.loads((folder / f"annotations/captions_{part}.json").read_text())
    instances = json.loads((folder / f"annotations/instances_{part}.json").read_text())
    categories = {category["id"]: category["name"] for category in instances["categories"]}
    photos = {}
    entries = {entry["id"]: entry for entry in captions["images"] + instances["images"]}
    for _, entry in sorted(entries.items()):
        path = folder / part / entry["file_name"]
        photo = photos[entry["id"]] = Photo(path, longest)
        # Boxes are kept relative, since photos are made smaller.
        width, height = entry["width"], entry["height"]
        for annotation in instances["annotations"]:
            if annotation["image_id"] == entry["id"] and not annotation["iscrowd"]:
                x, y, w, h = annotation["bbox"]
                box = (x / width, y / height, (x + w) / width, (y + h) / height)
                photo.boxes.append((categories[annotation["category_id"]], box))
    for annotation in captions["annotations"]:
        photos[annotation["image_id"]].captions.append(annotation["caption"])
    return list(photos.values())


def split_coco(folder: pathlib.Path, longest: int | None = 512) -> Splits:
    """Split by what is annotated: val2017 photos with objects are the test, every fourth train2017 photo validation."""
    first, second = (read_coco(folder, part, longest) for part in ("train2017", "val2017"))
    train = [photo for number, photo in enumerate(first) if number % 4] + [p for p in second if not p.boxes]
    return Splits(train=train, validation=first[::4], test=[photo for photo in second if photo.boxes])


def split_classes(folder: pathlib.Path, longest: int | None = 512) -> Splits:
    """Split class-named photos by class: every tenth is the test, every twentieth from the fifth on validation."""
    splits = Splits([], [], [])
    for line in (folder / "metadata.jsonl").read_text().splitlines():
        entry = json.loads(line)
        index, path = entry["class_index"], folder / entry["file_name"]
        photo = Photo(path, longest, class_index=index, class_name=entry["class_name"])
        part = splits.test if index % 10 == 0 else splits.validation if index % 20 == 5 else splits.train
        part.append(photo)
    return splits


def read_captioned(folder: pathlib.Path) -> list[Photo]:
    """Read any folder of photos whose metadata.jsonl gives file_name and caption (a string or several)."""
    photos = []
    for line in (folder / "metadata.jsonl").read_text().splitlines():
        entry = json.loads(line)
        captions = [entry["caption"]] if isinstance(entry["caption"], str) else list(entry["caption"])
        photos.append(Photo(folder / entry["file_name"], 512, captions=captions))
    return photos


def whole(image: Image.Image) -> Image.Image:
    """Squeeze the whole photo to the encoder's square, as the served model does."""
    return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def around(box: Box, chance: random.Random) -> Box:
    """Return a box with some of its surroundings."""
    margin = chance.uniform(0.05, 0.5)
    width, height = box[2] - box[0], box[3] - box[1]
    # A very long box is widened, since the view squeezes it to a square.
    across, down = max(width, height / 2) - width, max(height, width / 2) - height
    return (
        max(box[0] - margin * width - across / 2, 0),
        max(box[1] - margin * height - down / 2, 0),
        min(box[2] + margin * width + across / 2, 1),
        min(box[3] + margin * height + down / 2, 1),
    )
