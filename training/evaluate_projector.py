"""Measure a built-in model on photos that neither trained it nor chose anything about it.

    python training/evaluate_projector.py DATA… --json result.json
    python training/evaluate_projector.py DATA… --model builtin-7x7 --json first.json
    python training/evaluate_projector.py DATA… --trained RUNS/speak/step-3000.safetensors --json new.json

What the model says: greedy captions to the default prompt. What it sees where: the cosine of each image token to the
word embedding of an annotated category and, for `--occlude` photos, how far log p of a category's word in a reference
caption falls when an image token is replaced by the photo's mean token; each beside chance, the photo's center and
another word.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from material import Material, add_folders
from neuronwise.architectures.builtin import SIGHTS, Sight, read_trained
from neuronwise.architectures.parts import fetch
from neuronwise.measure.bootstrap import mean_interval
from neuronwise.measure.captions import caption_scores as overlap
from neuronwise.measure.captions import corpus_scores
from photos import Photo, whole
from places import Places
from scores import caption_scores
from speaking import Speaker


class Seeing:
    """An encoder and a projector: photos to image tokens."""

    def __init__(self, sight: Sight, precision: torch.dtype):
        self.sight, self.precision = sight, precision
        tower: Any = sight.read([fetch(part) for part in sight.parts])
        self.tower = tower.to(precision)
        self.weights, self.adapter = read_trained(sight)

    @torch.inference_mode()
    def tokens(self, photos: Sequence[Photo]) -> torch.Tensor:
        """Return image tokens (B, cells, 576)."""
        mean, deviation = np.array(self.sight.mean), np.array(self.sight.deviation)
        features = []
        for at in range(0, len(photos), 16):
            views: list[Image.Image] = [whole(photo.image) for photo in photos[at : at + 16]]
            stacked = np.stack([(np.asarray(view, dtype=np.float64) / 255 - mean) / deviation for view in views])
            pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2).to(self.precision)
            features.append(self.tower(pixels).last_hidden_state.float())
        hidden = torch.nn.functional.linear(
            torch.cat(features), self.weights["linear_1.weight"], self.weights["linear_1.bias"]
        )
        hidden = torch.nn.functional.gelu(hidden)
        return torch.nn.functional.linear(hidden, self.weights["linear_2.weight"], self.weights["linear_2.bias"])


def resampled(number: int, score: Callable[[Sequence[int]], float], rounds: int = 2000) -> list[float]:
    """Return the bootstrap 95 % interval of a score of `number` photos, resampled by photo."""
    generator = np.random.default_rng(0)
    found = sorted(score(generator.integers(0, number, number).tolist()) for _ in range(rounds))
    return [found[int(0.025 * rounds)], found[int(0.975 * rounds) - 1]]


def said(speaker: Speaker, seeing: Seeing, photos: list[Photo]) -> list[str]:
    captions = []
    for at in range(0, len(photos), 32):
        captions += speaker.describe(lambda tokens: tokens, seeing.tokens(photos[at : at + 32]))
    return captions


def objects_table(captions: list[str], photos: list[Photo]) -> dict[str, dict]:
    objects, table = [photo.objects for photo in photos], {}
    for name in ("any", "other", "chair_i", "chair_s", "recall"):

        def score(rows: Sequence[int], name: str = name) -> float:
            return caption_scores([captions[at] for at in rows], [objects[at] for at in rows])[name]

        every = range(len(photos))
        table[name] = {"value": score(every), "cases": len(photos), "interval": resampled(len(photos), score)}
    return table


def overlap_table(captions: list[str], photos: list[Photo]) -> dict[str, dict]:
    references = [photo.captions for photo in photos]
    table = {
        name: {"value": value, "cases": len(photos)} for name, value in corpus_scores(captions, references).items()
    }
    for name, each in overlap(captions, references).items():
        if name not in ("bleu-1", "bleu-2", "bleu-3", "bleu-4"):  # BLEU is a figure of a corpus
            interval = mean_interval(each)
            assert interval is not None
            table[name]["interval"] = [interval.low, interval.high]
    return table


class Report:
    """Prints rows of the table as they are measured, and writes all so far with the captions."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.table, self.cases = options, {}, []
        print(f"| {options.split} photos | cases | value | 95 % interval |\n|---|---|---|---|")

    def add(self, table: dict[str, dict], photos: Sequence[Photo] = (), captions: Sequence[str] = ()) -> None:
        for name, row in table.items():
            edges = "–".join(f"{edge:.3f}" for edge in row.get("interval", []))
            print(f"| {name} | {row['cases']} | {row['value']:.3f} | {edges} |", flush=True)
        self.table |= table
        self.cases += [{"photo": p.path.name, "caption": c} for p, c in zip(photos, captions, strict=True)]
        if self.options.json:
            result = {"options": vars(self.options), "scores": self.table, "cases": self.cases}
            self.options.json.write_text(json.dumps(result, default=str, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    seeing_models = [name for name, sight in SIGHTS.items() if sight]
    parser.add_argument("--model", default="builtin", choices=seeing_models)
    parser.add_argument("--trained", type=pathlib.Path, help="a file that speak.py wrote, in place of the model's own")
    parser.add_argument("--split", choices=("test", "dev"), default="test")
    parser.add_argument("--captioned", type=int, default=1000, help="photos of Flickr8k")
    parser.add_argument("--named", type=int, default=100, help="class-named photos")
    parser.add_argument("--occlude", type=int, default=0, help="photos whose image tokens are occluded one by one")
    parser.add_argument("--precise", action="store_true", help="float32 in place of bfloat16")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sight = SIGHTS[options.model]
    assert sight is not None
    if options.trained:
        sight = dataclasses.replace(sight, trained=options.trained)
    precision = torch.float32 if options.precise else torch.bfloat16
    seeing = Seeing(sight, precision)
    speaker = Speaker(precision, seeing.adapter)
    material = Material(options)
    coco, classes = (material.photos(f"{name}_{options.split}") for name in ("coco", "classes"))
    classes = classes[: options.named]
    # Evenly over the part, so that few are like all.
    flickr = material.photos(f"flickr_{options.split}")
    flickr = flickr[:: max(len(flickr) // max(options.captioned, 1), 1)][: options.captioned]
    report, places = Report(options), Places(speaker, material.masks(options.split))

    report.add(places.agreement(coco, seeing.tokens(coco)))
    captions = said(speaker, seeing, coco)
    report.add(objects_table(captions, coco), coco, captions)
    if flickr:
        captions = said(speaker, seeing, flickr)
        report.add(overlap_table(captions, flickr), flickr, captions)
    captions = said(speaker, seeing, classes)
    hits = [photo.is_named_by(text) for text, photo in zip(captions, classes, strict=True)]
    if named := mean_interval(float(hit) for hit in hits):
        row = {"value": named.mean, "cases": len(hits), "interval": [named.low, named.high]}
        report.add({"class": row}, classes, captions)
    if options.occlude:
        report.add(places.occlusion(coco[: options.occlude], seeing.tokens(coco[: options.occlude])))


if __name__ == "__main__":
    main()
