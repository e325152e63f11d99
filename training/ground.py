"""The start: teach the projector, without the language model, to put the right words at the right cells.

    python training/ground.py DATA… --store RUNS/views --run RUNS/ground

What a cell is projected to is compared with the input embeddings of words: its cosine to a category is to follow how
much of the cell the category's mask covers, and the best cell's cosine to a word whether the photo's captions (or
class) hold it. Both are logistic regressions on that cosine, scaled, with a bias for each word.
"""

import argparse
import json
import math
import pathlib
import random
import time
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from masks import CATEGORIES
from material import Material, add_folders
from neuronwise.architectures.builtin import builtin_folder
from photos import Photo
from projector import Projector
from views import Store, View
from words import Vocabulary, caption_bag, class_words, collect


class WordHead(nn.Module):
    """Cosines of projected cells to the words, as logits of "is here" (cells) and "is in the photo" (bags)."""

    embeddings: torch.Tensor
    center: torch.Tensor

    def __init__(self, vocabulary: Vocabulary):
        super().__init__()
        center = vocabulary.embeddings.mean(0)
        away = vocabulary.embeddings - center
        self.register_buffer("center", center)
        self.register_buffer("embeddings", nn.functional.normalize(away, dim=1))
        self.length = away.norm(dim=1).median().item()
        self.log_scale = nn.Parameter(torch.tensor(math.log(12.0)))
        self.bag_bias = nn.Parameter(torch.full((len(away),), -5.0))
        self.cell_bias = nn.Parameter(torch.full((CATEGORIES,), -5.0))

    def cosines(self, projected: torch.Tensor, words: slice = slice(None)) -> torch.Tensor:
        """Return cosines (…, V) of projected cells (…, d) to words, both from the words' center."""
        directions = nn.functional.normalize(projected - self.center, dim=-1)
        return (directions.bfloat16() @ self.embeddings[words].bfloat16().T).float()

    def cell_loss(self, projected: torch.Tensor, coverage: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Loss against coverage (B, 64, 80) where known (B, 80)."""
        logits = self.cosines(projected, slice(CATEGORIES)) * self.log_scale.exp() + self.cell_bias
        losses = nn.functional.binary_cross_entropy_with_logits(logits, coverage, reduction="none")
        return (losses * known[:, None]).sum() / max(known.amax(1).sum() * coverage.shape[1], 1)

    def bag_loss(self, projected: torch.Tensor, bags: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Loss against bags of words (B, V) where known (B, V)."""
        cells = self.cosines(projected) * self.log_scale.exp()
        logits = cells.logsumexp(1) - math.log(cells.shape[1]) + self.bag_bias
        losses = nn.functional.binary_cross_entropy_with_logits(logits, bags, reduction="none")
        return (losses * known).sum() / len(bags)

    def length_loss(self, projected: torch.Tensor) -> torch.Tensor:
        """Keep projected cells as long as words are."""
        return ((projected - self.center).norm(dim=-1) / self.length).log().square().mean()


class Cases:
    """Views with their words: bags of the photo's words, and coverage where there are masks."""

    def __init__(self, material: Material, store: Store, vocabulary: Vocabulary):
        self.material, self.store, self.vocabulary = material, store, vocabulary
        self.masks = material.masks()
        size = len(vocabulary.words)
        self.class_columns = torch.zeros(size)
        self.class_columns[[vocabulary.at[w] for photo in material.photos("classes") for w in class_words(photo)]] = 1
        self.caption_columns = torch.zeros(size)
        for name in ("coco", "flickr"):
            for photo in material.photos(name):
                self.caption_columns += (caption_bag(photo, vocabulary) > 0) if photo.captions else 0
        self.caption_columns = (self.caption_columns > 3).float()
        self.bags: dict[tuple, tuple[torch.Tensor, torch.Tensor]] = {}

    def of(self, name: str, kind: str) -> list[tuple]:
        """Return a round's cases (features of row, photo, view)."""
        features, views = self.store.read(name, kind)
        photos = self.material.photos(name)
        return [(features, row, photos[view.photo], view) for row, view in enumerate(views)]

    def crops(self, name: str) -> list[tuple]:
        """Return the cases of a set's whole photos and of all rounds of crops that are there."""
        kinds = [kind for kind in self.store.rounds(name) if kind != "objects"]
        return [case for kind in kinds for case in self.of(name, kind)]

    def bag(self, photo: Photo, view: View) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (V,) which words hold for a view, and (V,) of which words that is known."""
        if (photo.path, view.word) not in self.bags:
            self.bags[photo.path, view.word] = self._bag(photo, view)
        return self.bags[photo.path, view.word]

    def _bag(self, photo: Photo, view: View) -> tuple[torch.Tensor, torch.Tensor]:
        bag = torch.zeros(len(self.vocabulary.words))
        if view.word:
            bag[self.vocabulary.at[view.word]] = 1
            return bag, bag.clone()
        if photo.class_index is not None:
            bag[[self.vocabulary.at[word] for word in class_words(photo)]] = 1
            return bag, self.class_columns
        if photo.captions:
            return caption_bag(photo, self.vocabulary), self.caption_columns
        return bag, bag

    def batch(self, cases: list[tuple]) -> dict[str, torch.Tensor]:
        features = torch.from_numpy(np.stack([features[row] for features, row, _, _ in cases])).float()
        bags, known = zip(*(self.bag(photo, view) for _, _, photo, view in cases), strict=True)
        cells = [self.coverage(photo, view) for _, _, photo, view in cases]
        coverage, annotated = zip(*cells, strict=True)
        stacked = {"bags": bags, "known": known, "coverage": coverage, "annotated": annotated}
        return {"features": features} | {key: torch.stack(value) for key, value in stacked.items()}

    def coverage(self, photo: Photo, view: View) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what `Masks.cells` says of a view."""
        return self.masks.cells(photo, view, self.vocabulary.at)


def grounding(head: WordHead, project, cases: Cases, which: list[tuple]) -> dict[str, float]:
    """Return how often an object's word points at it, and how often the cell best covered has the right name."""
    hits, chances, named, rows = [], [], [], 0
    for case in which:
        batch = cases.batch([case])
        cosines = head.cosines(project(batch["features"]), slice(CATEGORIES))[0]
        biased = cosines * head.log_scale.exp() + head.cell_bias
        coverage = batch["coverage"][0]
        for category in (coverage.amax(0) > 0.3).nonzero().flatten().tolist():
            cover = coverage[:, category]
            hits.append(cover[cosines[:, category].argmax()].item() > 0.5)
            chances.append((cover > 0.5).float().mean().item())
            named.append(biased[cover.argmax()].argmax().item() == category)
            rows += 1
    return {
        "points": sum(hits) / rows, "chance": sum(chances) / rows, "named": sum(named) / rows, "objects": rows,
    }  # fmt: skip


def bag_precision(head: WordHead, project, cases: Cases, which: list[tuple], top: int = 10) -> float:
    """Return the share of a photo's ten likeliest words that its captions hold."""
    shares = []
    for at in range(0, len(which), 50):
        batch = cases.batch(which[at : at + 50])
        scores = head.cosines(project(batch["features"])) * head.log_scale.exp()
        logits = scores.logsumexp(1) + head.bag_bias
        best = (logits - 1e9 * (1 - cases.caption_columns)).topk(top, 1).indices
        shares.append((batch["bags"].gather(1, best) > 0).float().mean(1))
    return torch.cat(shares).mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    parser.add_argument("--store", type=pathlib.Path, required=True, help="folder of the views' features")
    parser.add_argument("--run", type=pathlib.Path, required=True, help="folder of this run's state")
    parser.add_argument("--features", type=int, default=1536, help="how many of a cell's features the projector sees")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--drop", type=float, default=0.2)
    parser.add_argument("--decay", type=float, default=0.05)
    parser.add_argument("--mix", default="0.45,0.3,0.1,0.15", help="shares of Flickr8k, COCO, object crops, classes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.run.mkdir(parents=True, exist_ok=True)
    folder = builtin_folder("builtin-text")
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    material, store = Material(options), Store(options.store)
    captioned = material.photos("flickr") + [photo for photo in material.photos("coco") if photo.captions]
    words = collect(captioned, material.photos("classes"), tokenizer, model.get_input_embeddings().weight.detach())
    cases, head = Cases(material, store, words), WordHead(words)
    print(len(words.words), "words, length", head.length, flush=True)
    pools = [cases.crops("flickr"), cases.crops("coco"), cases.of("coco", "objects"), cases.crops("classes")]
    shares = [float(share) * bool(pool) for share, pool in zip(options.mix.split(","), pools, strict=True)]
    dev, flickr_dev = cases.of("coco_dev", "0"), cases.of("flickr_dev", "0")[:300]
    chance = random.Random(options.seed)
    sample = cases.batch([chance.choice(pools[at]) for at in chance.choices(range(4), shares, k=400)])["features"]
    sample = sample.flatten(0, 1)[:, : options.features]
    projector = Projector(sample.mean(0), sample.std().item(), inputs=sample.shape[1], shift=0.0)
    with torch.no_grad():
        projector.linear_2.bias.copy_(head.center)
    parameters = [*projector.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=options.rate, weight_decay=options.decay, betas=(0.9, 0.98))
    began, sums = time.time(), np.zeros(3)
    for step in range(options.steps):
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min((step + 1) / 50, 1) * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        drawn = [chance.choice(pools[at]) for at in chance.choices(range(4), shares, k=32)]
        batch = cases.batch(drawn)
        with torch.autocast("cpu", torch.bfloat16):
            projected = projector(batch["features"], options.drop)
        projected = projected.float()
        losses = (
            head.bag_loss(projected, batch["bags"], batch["known"]),
            head.cell_loss(projected, batch["coverage"], batch["annotated"]) * 5,
            head.length_loss(projected) * 3,
        )
        optimizer.zero_grad(set_to_none=True)
        sum(losses).backward()  # type: ignore[union-attr]
        optimizer.step()
        sums += [loss.item() for loss in losses]
        if step % 100 == 99 or step + 1 == options.steps:
            with torch.no_grad():
                result = {"step": step + 1, "losses": (sums / 100).round(3).tolist()}
                result |= {key: round(value, 3) for key, value in grounding(head, projector, cases, dev).items()}
                result["top10"] = round(bag_precision(head, projector, cases, flickr_dev), 3) if flickr_dev else 0
            print(json.dumps(result), f"{time.time() - began:.0f} s", flush=True)
            sums[:] = 0
    state = {"projector": projector.state_dict(), "head": head.state_dict(), "words": words.words}
    torch.save(state, options.run / "state.pt")


if __name__ == "__main__":
    main()
