"""All photos and what is known of them, in sets: what trains, what chooses (`_dev`), what is measured (`_test`)."""

import argparse
import functools
import json
import pathlib

from masks import Masks
from photos import Photo, read_captioned, read_coco, split_classes, split_coco


def add_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--coco", type=pathlib.Path, required=True, help="COCO folder: annotations/, train2017/, …")
    parser.add_argument("--more", type=pathlib.Path, required=True, help="more COCO photos, in the same layout")
    parser.add_argument("--classes", type=pathlib.Path, required=True, help="class-named photos with metadata.jsonl")
    parser.add_argument("--flickr", type=pathlib.Path, required=True, help="Flickr8k: train, dev and test")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)


class Material:
    """Reads the sets when they are asked for; photos are kept in memory at no more than 512 pixels a side."""

    def __init__(self, options: argparse.Namespace):
        self.folders = {name: getattr(options, name) for name in ("coco", "more", "classes", "flickr")}

    @functools.cached_property
    def _coco(self) -> dict[str, list[Photo]]:
        splits = split_coco(self.folders["coco"])
        more = read_coco(self.folders["more"], "more2017")
        entries = json.loads((self.folders["more"] / "annotations/instances_more2017.json").read_text())["images"]
        annotated = {entry["file_name"]: entry["annotated"] for entry in entries}
        # Photos with all objects but no captions teach least: some of them choose.
        spare = [p for p in more if annotated.get(p.path.name) == "all" and not p.captions][::3][:40]
        chosen = {photo.path for photo in spare}
        return {
            "": splits.train + [photo for photo in more if photo.path not in chosen],
            "_dev": splits.validation + spare,
            "_test": splits.test,
        }

    @functools.cached_property
    def _classes(self) -> dict[str, list[Photo]]:
        splits = split_classes(self.folders["classes"])
        return {"": splits.train, "_dev": splits.validation, "_test": splits.test}

    def photos(self, name: str) -> list[Photo]:
        """Return a set's photos, in an order that never changes."""
        kind, part = (name.split("_")[0], name[len(name.split("_")[0]) :])
        if kind == "flickr":
            return self._flickr({"": "train", "_dev": "dev", "_test": "test"}[part])
        return (self._coco if kind == "coco" else self._classes)[part]

    @functools.cache  # noqa: B019 (one object lives as long as the program)
    def _flickr(self, part: str) -> list[Photo]:
        return read_captioned(self.folders["flickr"] / part)

    def masks(self, part: str = "") -> Masks:
        """Return the masks of photos that train and choose or, for "test", of those that are only measured."""
        coco, more = (self.folders[name] / "annotations" for name in ("coco", "more"))
        if part == "test":
            return Masks(coco / "instances_val2017.json")
        return Masks(coco / "instances_train2017.json", more / "instances_more2017.json")
