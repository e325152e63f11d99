"""Train the built-in model's projector: language model and image encoder stay frozen.

    python training/train_projector.py --coco DATA/coco-mini --classes DATA/imagenet-one-each --run RUNS/final

Interrupt it at any time; the same command goes on from the last saved step. Each validation writes the averaged
projector and a line of `validation.jsonl`; `--export FILE` writes the best one as the package's projector.
"""

import argparse
import copy
import json
import math
import pathlib
import random
import time
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save, save_file

from captions import (
    LIST_PROMPT,
    OTHER_PROMPTS,
    PROMPT,
    Packer,
    Sample,
    begun_sample,
    caption_choices,
    class_answers,
    listing,
    plain_answers,
    plain_word,
)
from neuronwise.architectures.builtin import PROJECTOR
from photos import (
    SIDE,
    Box,
    Photo,
    Splits,
    around,
    pixels,
    random_view,
    read_captioned,
    split_classes,
    split_coco,
    whole,
)
from projector import Projector
from scores import caption_scores
from speaking import Speaker


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coco", type=pathlib.Path, required=True, help="COCO folder: annotations/, train2017/, …")
    parser.add_argument("--classes", type=pathlib.Path, required=True, help="class-named photos with metadata.jsonl")
    parser.add_argument("--captioned", type=pathlib.Path, action="append", default=[], help="more captioned photos")
    parser.add_argument("--run", type=pathlib.Path, required=True, help="folder of this run's state")
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--answers", type=int, default=3, help="answers packed with each photo")
    parser.add_argument(
        "--mix",
        default="0.42,0.26,0.09,0.06,0.17",
        help="captioned, class-named, object crops, recognized crops, mosaics",
    )
    parser.add_argument("--rate", type=float, default=7e-4)
    parser.add_argument("--decay", type=float, default=0.3)
    parser.add_argument("--drop", type=float, default=0.3)
    parser.add_argument("--drop-cells", type=float, default=0.25)
    parser.add_argument("--smallest", type=float, default=0.4, help="smallest share of a captioned photo in a view")
    parser.add_argument("--object-weight", type=float, default=2.0, help="weight in the loss of words for objects")
    parser.add_argument("--average", type=float, default=0.99, help="decay of the averaged weights")
    parser.add_argument("--ridge", type=float, default=1.0)
    parser.add_argument("--validate", type=int, default=100)
    parser.add_argument("--start", type=pathlib.Path, help="state of another run to start from")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", type=pathlib.Path, nargs="?", const=PROJECTOR, help="write the best projector")
    return parser.parse_args()


class Views:
    """Draws training views: each is an image with a sample."""

    def __init__(self, coco: Splits, classes: Splits, more: list[Photo], options: argparse.Namespace):
        self.captioned, self.classes, self.options = coco.train + more, classes.train, options
        self.mix = [float(share) for share in options.mix.split(",")]
        self.crops: dict[str, list[tuple[Photo, Box]]] = {}
        for photo in coco.train:
            for category, box in photo.boxes:
                if (box[2] - box[0]) * (box[3] - box[1]) > 0.01:
                    self.crops.setdefault(category, []).append((photo, box))

        self.recognized: dict[str, list[tuple[Photo, Box]]] = {}

    def recognize(self, speaker: Speaker, classes: Splits, seed: int) -> None:
        """Find crops of captioned photos in which the encoder's own classifier is sure of a training class."""
        chance = random.Random(seed)
        known = {photo.class_index: photo for photo in classes.train if photo.class_index is not None}
        for photo in self.captioned:
            boxes = []
            for _ in range(24):
                side, ratio = chance.uniform(0.25, 0.7), chance.uniform(0.8, 1.25)
                across, down = side * ratio, side / ratio
                left, top = chance.uniform(0, 1 - across), chance.uniform(0, 1 - down)
                boxes.append((left, top, left + across, top + down))
            views = [random_view(photo.image, chance, 1.0, box=box, flip=False) for box in boxes]
            logits = speaker.encode(pixels(views)).mean(1) @ speaker.classifier["weight"].T + speaker.classifier["bias"]
            for box, share, index in zip(boxes, *(found.tolist() for found in logits.softmax(1).max(1)), strict=True):
                if share > 0.6 and index in known:
                    word = plain_word(index, known[index].class_name, chance)
                    self.recognized.setdefault(word, []).append((photo, box))

    def draw(self, chance: random.Random) -> tuple[Image.Image, Sample]:
        kind = chance.choices((self.caption, self.named, self.crop, self.recognition, self.mosaic), self.mix)[0]
        return kind(chance)

    def caption(self, chance: random.Random) -> tuple[Image.Image, Sample]:
        photo = chance.choice(self.captioned)
        sided = any(side in " ".join(photo.captions).lower() for side in (" left", " right"))
        objects = sorted(photo.agreed_objects)
        if objects and chance.random() < 0.1:
            chance.shuffle(objects)
            answers = [listing(objects[:4])]
            view = random_view(photo.image, chance, 0.85, flip=not sided)
            return view, Sample(LIST_PROMPT, answers)
        view = random_view(photo.image, chance, self.options.smallest, flip=not sided)
        prompt = PROMPT if chance.random() < 0.93 else chance.choice(OTHER_PROMPTS)
        return view, Sample(prompt, caption_choices(photo.captions, photo.agreed_objects, chance, self.options.answers))

    def named(self, chance: random.Random) -> tuple[Image.Image, Sample]:
        photo = chance.choice(self.classes)
        assert photo.class_index is not None
        view = random_view(photo.image, chance, 0.4)
        if chance.random() < 0.1:
            return view, begun_sample(plain_word(photo.class_index, photo.class_name, chance), chance)
        prompt = PROMPT if chance.random() < 0.85 else chance.choice(OTHER_PROMPTS)
        answers = class_answers(photo.class_index, photo.class_name, chance)
        return view, Sample(prompt, answers[: self.options.answers])

    def crop(self, chance: random.Random) -> tuple[Image.Image, Sample]:
        category = chance.choice(sorted(self.crops))
        photo, box = chance.choice(self.crops[category])
        view = random_view(photo.image, chance, 0.8, box=around(box, chance))
        if chance.random() < 0.1:
            return view, begun_sample(category, chance)
        return view, Sample(PROMPT, plain_answers(category, chance))

    def recognition(self, chance: random.Random) -> tuple[Image.Image, Sample]:
        word = chance.choice(sorted(self.recognized))
        photo, box = chance.choice(self.recognized[word])
        return random_view(photo.image, chance, 0.85, box=box), Sample(PROMPT, plain_answers(word, chance))

    def tile(self, chance: random.Random, width: int, height: int) -> tuple[Image.Image, str]:
        if chance.random() < 0.5:
            category = chance.choice(sorted(self.crops))
            photo, box = chance.choice(self.crops[category])
            return random_view(photo.image, chance, 0.8, width, height, box=around(box, chance)), category
        photo = chance.choice(self.classes)
        assert photo.class_index is not None
        word = plain_word(photo.class_index, photo.class_name, chance)
        return random_view(photo.image, chance, 0.5, width, height), word

    def mosaic(self, chance: random.Random) -> tuple[Image.Image, Sample]:
        """Lay two photos beside or above each other, or four in a square; the answers list what they show."""
        half, canvas, words = SIDE // 2, Image.new("RGB", (SIDE, SIDE)), []
        layout = chance.choice(
            (
                [(0, 0, half, SIDE), (half, 0, half, SIDE)],
                [(0, 0, SIDE, half), (0, half, SIDE, half)],
                [(x, y, half, half) for x in (0, half) for y in (0, half)],
            )
        )
        for left, top, width, height in layout:
            tile, word = self.tile(chance, width, height)
            canvas.paste(tile, (left, top))
            words.append(word)
        words = sorted(set(words))
        return canvas, Sample(PROMPT, [listing(chance.sample(words, len(words))) for _ in range(2)])


def closed_form(projector: Projector, speaker: Speaker, classes: Splits, sample: torch.Tensor, ridge: float) -> None:
    """Start the projector from the classifier's rows and the names' word embeddings, training classes only."""
    embeddings = speaker.model.get_input_embeddings().weight.float()
    rows, words = [], []
    for photo in classes.train:
        assert photo.class_index is not None
        names = " " + plain_word(photo.class_index, photo.class_name, random.Random(0)) + " " + photo.class_name
        ids = speaker.tokenizer(names, add_special_tokens=False).input_ids
        rows.append(speaker.classifier["weight"][photo.class_index])
        words.append(embeddings[ids].mean(0))
    projector.start(torch.stack(rows), torch.stack(words), sample, embeddings.std().item(), ridge)


def validate(
    projector: Projector, speaker: Speaker, coco: list[Photo], classes: list[Photo], crops: int = 0
) -> dict[str, Any]:
    """Return the captions' loss and what captions name of validation photos, their mirror images and some crops."""
    chance, each = random.Random(5), 2 + crops
    views, of = [], [photo for photo in coco for _ in range(each)]
    for photo in coco:
        views += [whole(photo.image, flip=flip) for flip in (False, True)]
        views += [random_view(photo.image, chance, 0.85) for _ in range(crops)]
    features = speaker.encode(pixels(views))
    captions = speaker.describe(projector, features)
    scores = caption_scores(captions, [photo.objects for photo in of])
    loss = speaker.loss(
        projector, features[::each], [Sample(PROMPT, [c.strip() for c in photo.captions]) for photo in coco]
    ).item()
    named = speaker.describe(projector, speaker.encode(pixels([whole(photo.image) for photo in classes])))
    hits = [photo.is_named_by(text) for text, photo in zip(named, classes, strict=True)]
    return {
        "loss": loss,
        "any": scores["any"],
        "other": scores["other"],
        "chair_i": scores["chair_i"],
        "recall": scores["recall"],
        "class": sum(hits) / len(hits),
        "captions": captions[::each],
        "named": named[:12],
    }


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.run.mkdir(parents=True, exist_ok=True)
    speaker = Speaker()
    coco, classes = split_coco(options.coco), split_classes(options.classes)
    views = Views(coco, classes, [photo for folder in options.captioned for photo in read_captioned(folder)], options)
    views.recognize(speaker, classes, options.seed)
    packer = Packer(speaker.tokenizer, 49, speaker.image_token_id, options.object_weight)

    chance = random.Random(options.seed)
    some = pixels([whole(photo.image) for photo in classes.train[::8] + coco.train[::2]])
    sample = speaker.encode(some).float().flatten(0, 1)
    projector = Projector(sample.mean(0), sample.std().item())
    closed_form(projector, speaker, classes, sample, options.ridge)
    if options.start:
        projector.load_state_dict(torch.load(options.start, weights_only=True)["averaged"])
    averaged = copy.deepcopy(projector)
    # The second layer's input is wide and its start diagonal: a smaller step keeps it from being drowned in noise.
    groups = [
        {"params": projector.linear_1.parameters(), "peak": options.rate},
        {"params": projector.linear_2.parameters(), "peak": options.rate * 0.3},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=options.decay, betas=(0.9, 0.98))

    state_file, step = options.run / "state.pt", 0
    if state_file.is_file():
        state = torch.load(state_file, weights_only=True)
        step = state["step"]
        projector.load_state_dict(state["projector"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        # The saved groups bring their own settings; those asked for now hold.
        for group, asked in zip(optimizer.param_groups, groups, strict=True):
            group.update(weight_decay=options.decay, peak=asked["peak"])
        torch.set_rng_state(state["torch_random"])
    (options.run / "options.json").write_text(json.dumps(vars(options), default=str, indent=1))
    began, losses = time.time(), []
    while step < options.steps:
        # Drawn by step number, so that a resumed run sees what an uninterrupted one would have seen.
        chance = random.Random(options.seed * 1_000_003 + step)
        drawn = [views.draw(chance) for _ in range(options.batch)]
        features = speaker.encode(pixels([view for view, _ in drawn]))
        warm = min((step + 1) / 40, 1.0)
        share = warm * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
        batch = packer.pack([text for _, text in drawn])
        loss = speaker.packed_loss(projector(features.float(), options.drop, options.drop_cells), batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        step += 1
        keep = min(options.average, (step + 1) / (step + 10))
        with torch.no_grad():
            for slow, fast in zip(averaged.parameters(), projector.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
        losses.append(loss.item())
        if step % 10 == 0:
            print(f"{step} loss {sum(losses[-50:]) / len(losses[-50:]):.3f} {time.time() - began:.0f} s", flush=True)
        if step % 50 == 0 or step == options.steps:
            state = {"step": step, "projector": projector.state_dict(), "averaged": averaged.state_dict()}
            state |= {"optimizer": optimizer.state_dict(), "torch_random": torch.get_rng_state()}
            torch.save(state, state_file.with_suffix(".new"))
            state_file.with_suffix(".new").replace(state_file)
        if step % options.validate == 0 or step == options.steps:
            result = {"step": step, "train_loss": sum(losses[-100:]) / len(losses[-100:])}
            result |= validate(averaged, speaker, coco.validation, classes.validation)
            exported = {name: tensor.contiguous() for name, tensor in averaged.exported().items()}
            save_file(exported, options.run / f"step-{step}.safetensors")
            with (options.run / "validation.jsonl").open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(json.dumps({key: value for key, value in result.items() if not isinstance(value, list)}), flush=True)
    if options.export:
        export(options, projector, speaker, coco.validation, classes.validation)


def export(
    options: argparse.Namespace, projector: Projector, speaker: Speaker, coco: list[Photo], classes: list[Photo]
) -> None:
    """Write the package's projector: of the best three checkpoints and the average of two, the best on more views."""
    results = [json.loads(line) for line in (options.run / "validation.jsonl").read_text().splitlines()]

    def average(steps: list[int]) -> dict[str, torch.Tensor]:
        files = [load_file(options.run / f"step-{step}.safetensors") for step in steps]
        return {name: torch.stack([file[name] for file in files]).mean(0) for name in files[0]}

    def compared(steps: list[int]) -> dict[str, Any]:
        projector.take(average(steps))
        found = validate(projector, speaker, coco, classes, crops=6)
        result = {"steps": steps} | {key: value for key, value in found.items() if not isinstance(value, list)}
        print(json.dumps(result), flush=True)
        return result

    again = [compared([result["step"]]) for result in sorted(results, key=selection)[-3:]]
    again.sort(key=selection, reverse=True)
    again.append(compared(sorted(again[0]["steps"] + again[1]["steps"])))
    best = max(again, key=selection)
    metadata = {
        "validation": json.dumps(best),
        "options": json.dumps(vars(options), default=lambda path: pathlib.Path(path).name),
    }
    # Written by way of bytes: the file then has the user's ordinary permissions.
    options.export.write_bytes(save(average(best["steps"]), metadata=metadata))


def selection(result: dict[str, Any]) -> float:
    """Return what the checkpoint is chosen by: objects and classes named, less the objects that are not there."""
    return result["any"] + result["other"] + 0.5 * result["class"] - 0.5 * result["chair_i"]


if __name__ == "__main__":
    main()
