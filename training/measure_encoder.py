"""Measure how the image encoder likes its photos: which normalization, and squeezed whole or cropped.

    python training/measure_encoder.py --classes DATA/imagenet-one-each

The published package does not say. The share of class-named photos (training classes only) whose class the encoder's
own classifier puts first decides.
"""

import argparse
import pathlib

import numpy as np
import torch
from PIL import Image

from photos import SIDE, Photo, split_classes, whole
from speaking import Speaker

NORMALIZATIONS = {
    "(pixel - 127) / 128": (np.full(3, 127.0), np.full(3, 128.0)),
    "ImageNet mean and deviation": (
        np.array([0.485, 0.456, 0.406]) * 255,
        np.array([0.229, 0.224, 0.225]) * 255,
    ),
}


def cropped(image: Image.Image) -> Image.Image:
    """Return the middle of a photo whose shorter side was made 256 pixels."""
    factor = 256 / min(image.size)
    width, height = round(image.width * factor), round(image.height * factor)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + SIDE, top + SIDE))


def first_right(speaker: Speaker, photos: list[Photo], views: list[Image.Image], name: str) -> float:
    """Return the share of views whose class the classifier puts first."""
    mean, deviation = NORMALIZATIONS[name]
    right = 0
    for at in range(0, len(views), 50):
        stacked = np.stack([(np.asarray(view, dtype=np.float64) - mean) / deviation for view in views[at : at + 50]])
        features = speaker.encode(torch.from_numpy(stacked).float().permute(0, 3, 1, 2))
        logits = features.mean(1) @ speaker.classifier["weight"].T + speaker.classifier["bias"]
        classes = torch.tensor([photo.class_index for photo in photos[at : at + 50]])
        right += int((logits.argmax(1) == classes).sum())
    return right / len(photos)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=pathlib.Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    speaker = Speaker(precise=True)
    photos = split_classes(options.classes, longest=None).train
    print(f"| {len(photos)} photos of training classes | whole photo, squeezed | middle crop |\n|---|---|---|")
    for name in NORMALIZATIONS:
        shares = [
            first_right(speaker, photos, [view(photo.image) for photo in photos], name) for view in (whole, cropped)
        ]
        print(f"| {name} | {shares[0]:.1%} | {shares[1]:.1%} |")


if __name__ == "__main__":
    main()
