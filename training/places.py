"""Where a projector sees what it names: maps of words over the image tokens, judged by the masks of COCO's objects."""

import dataclasses
import random
import re
from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image

from captions import PROMPT, Packer, Sample, tidy
from masks import FINE, Masks
from neuronwise.answers.naming import objects_named
from neuronwise.data.words import COCO_CATEGORIES, PERSON
from neuronwise.measure.bootstrap import mean_interval
from neuronwise.measure.nouns import nouns_of
from photos import Photo
from speaking import Speaker

CATEGORIES = list(COCO_CATEGORIES)


@dataclasses.dataclass
class Judgment:
    """How one map lies to one object's mask, with its controls; each 1, 0 or a share."""

    photo: str
    points: float
    chance: float
    center: float
    other_word: float | None
    iou: float


def judge(photo: str, heat: torch.Tensor, other: torch.Tensor | None, mask: np.ndarray) -> Judgment:
    """Judge a map (cells) and that of another word by a fine mask (FINE, FINE) of what its word names."""
    side = round(len(heat) ** 0.5)
    middles = ((np.arange(side) + 0.5) * FINE / side).astype(int)
    on = mask[np.ix_(middles, middles)].flatten() > 0.5
    inside = mask > 0.5
    grid = Image.fromarray(heat.reshape(side, side).float().numpy(), mode="F")
    values = np.asarray(grid.resize((FINE, FINE), Image.Resampling.BILINEAR))
    hottest = values >= np.sort(values, axis=None)[-max(int(inside.sum()), 1)]
    return Judgment(
        photo,
        points=float(on[int(heat.argmax())]),
        chance=float(on.mean()),
        center=float(inside[FINE // 2, FINE // 2]),
        other_word=None if other is None else float(on[int(other.argmax())]),
        iou=float((hottest & inside).sum() / max((hottest | inside).sum(), 1)),
    )


def tabled(kind: str, judged: list[Judgment]) -> dict[str, dict]:
    """Return each figure's mean, and the map's lead over its controls, with intervals over photos."""
    columns = {
        "points": [case.points for case in judged],
        "chance": [case.chance for case in judged],
        "center": [case.center for case in judged],
        "other word": [case.other_word for case in judged],
        "IoU": [case.iou for case in judged],
        "points above center": [case.points - case.center for case in judged],
        "points above other word": [None if c.other_word is None else c.points - c.other_word for c in judged],
    }
    table = {}
    for name, values in columns.items():
        # A photo with ten objects counts once.
        photos: dict[str, list[float]] = {}
        for case, value in zip(judged, values, strict=True):
            if value is not None:
                photos.setdefault(case.photo, []).append(value)
        interval = mean_interval(sum(group) / len(group) for group in photos.values())
        if interval:
            row = {"value": interval.mean, "cases": len(photos), "interval": [interval.low, interval.high]}
            table[f"{kind}: {name}"] = row
    return table


class Places:
    """Judges maps of photos whose masks are known."""

    def __init__(self, speaker: Speaker, masks: Masks):
        self.speaker, self.masks = speaker, masks
        table = speaker.model.get_input_embeddings().weight.float()
        ids = [speaker.tokenizer(" " + word, add_special_tokens=False).input_ids for word in CATEGORIES]
        words = torch.stack([table[row].mean(0) for row in ids])
        self.center = words.mean(0)
        self.words = torch.nn.functional.normalize(words - self.center, dim=1)

    def _objects(self, photo: Photo) -> dict[str, np.ndarray]:
        """The masks of a photo's categories that cover at least one cell's worth."""
        cover = self.masks.cover[photo.path.name]
        return {name: fine for name, fine in cover.items() if (fine > 0.5).mean() > 1 / 64}

    def agreement(self, photos: list[Photo], tokens: torch.Tensor) -> dict[str, dict]:
        """Judge the cosines of image tokens (B, cells, d) to the word embeddings of the annotated categories."""
        chance, judged = random.Random(0), []
        for photo, cells in zip(photos, tokens, strict=True):
            cosines = torch.nn.functional.normalize(cells - self.center, dim=1) @ self.words.T
            objects = self._objects(photo)
            for name, mask in sorted(objects.items()):
                others = sorted(set(photo.objects) - {name}) or [c for c in CATEGORIES if c != name]
                other = cosines[:, CATEGORIES.index(chance.choice(others))]
                judged.append(judge(photo.path.name, cosines[:, CATEGORIES.index(name)], other, mask))
        return tabled("agreement", judged)

    def occlusion(self, photos: list[Photo], tokens: torch.Tensor) -> dict[str, dict]:
        """Judge how far log p of a category's word, in a reference caption, falls without one image token."""
        judged = []
        for photo, cells in zip(photos, tokens, strict=True):
            objects = self._objects(photo)
            caption = max((tidy(text) for text in photo.captions), key=lambda text: _worth(text, set(objects)))
            named = {word: objects_named(word) & set(objects) for word in _nouns(caption)}
            if not any(named.values()):
                continue
            falls = self.falls(cells, caption, list(named))
            for word, categories in named.items():
                others = [other for other in named if not named[other] & categories]
                for category in categories:
                    other = falls[others[0]] if others else None
                    judged.append(judge(photo.path.name, falls[word], other, objects[category]))
        return tabled("occlusion", judged)

    @torch.inference_mode()
    def falls(self, cells: torch.Tensor, caption: str, words: Iterable[str]) -> dict[str, torch.Tensor]:
        """Return for each word (cells,) the fall of its log p when a cell's token becomes the photo's mean token."""
        speaker, count = self.speaker, len(cells)
        packer = Packer(speaker.tokenizer, count, speaker.image_token_id, 1.0)
        shared = packer.shared(Sample(PROMPT, []))
        encoded = speaker.tokenizer(caption, add_special_tokens=False, return_offsets_mapping=True)
        spans = {word: re.search(rf"\b{re.escape(word)}\b", caption.lower()) for word in words}
        places = {
            word: [
                at
                for at, (start, end) in enumerate(encoded.offset_mapping)
                if start < span.end() and end > span.start()
            ]
            for word, span in spans.items()
            if span
        }
        last = max(at for row in places.values() for at in row)
        ids = torch.tensor(shared + encoded.input_ids[: last + 1])
        first = shared.index(speaker.image_token_id)
        embedded = speaker.model.get_input_embeddings()(ids.masked_fill(ids == speaker.image_token_id, 0))
        rows = embedded[None].repeat(count + 1, 1, 1)
        rows[:, first : first + count] = cells.to(rows.dtype)
        rows[torch.arange(count), first + torch.arange(count)] = cells.mean(0).to(rows.dtype)
        logs = []
        for part in rows.split(13):
            hidden = speaker.model.model(inputs_embeds=part, use_cache=False).last_hidden_state[:, len(shared) - 1 : -1]
            logits = speaker.model.lm_head(hidden).float().log_softmax(-1)
            logs.append(logits.gather(2, ids[len(shared) :].expand(len(part), -1)[..., None])[..., 0])
        told = torch.cat(logs)
        return {word: (told[count, at] - told[:count][:, at]).sum(1) for word, at in places.items()}


def _worth(caption: str, objects: set[str]) -> int:
    """How many of the objects a caption names; a person counts half."""
    return sum(1 if name == PERSON else 2 for name in objects_named(caption) & objects)


def _nouns(caption: str) -> list[str]:
    """The caption's nouns, as they are written, in order."""
    found, written = nouns_of(caption), []
    for word in re.findall(r"[a-z]+", caption.lower()):
        if (word in found or word.rstrip("s") in found or objects_named(word)) and word not in written:
            written.append(word)
    return written
