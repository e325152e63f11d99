"""Measure the built-in model on photos that neither trained it nor chose anything about it.

    python training/evaluate_projector.py --coco DATA/coco-mini --classes DATA/imagenet-one-each --json result.json

Every photo goes through the served model as a user's would: its own processor, chat template, default prompt, greedy
generation in float32. Prints a table; `--json` also writes every caption.
"""

import argparse
import json
import pathlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

import neuronwise.architectures.efficientnet_lite  # noqa: F401 (registers the vision tower)
from captions import PROMPT
from neuronwise.answers.naming import objects_named
from neuronwise.architectures.builtin import builtin_folder
from photos import Photo, split_classes, split_coco
from scores import caption_scores

MEANINGS = {
    "any": "captions naming at least one annotated object",
    "other": "… at least one other than a person",
    "chair_i": "CHAIR-i: named objects that are not annotated",
    "chair_s": "CHAIR-s: captions with such an object",
    "recall": "annotated categories that are named",
    "ended": "captions that end by themselves within 50 tokens",
}


def interval(number: int, score: Callable[[Sequence[int]], float], seed: int, rounds: int = 2000) -> list[float]:
    """Return the bootstrap 95 % interval of a score of `number` cases, resampled by case."""
    chance = random.Random(seed)
    found = sorted(score(chance.choices(range(number), k=number)) for _ in range(rounds))
    return [found[int(0.025 * rounds)], found[int(0.975 * rounds) - 1]]


@torch.inference_mode()
def describe(model: Any, processor: Any, photo: Photo) -> tuple[str, bool]:
    """Return a photo's caption and whether the model ended it."""
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    text = processor.apply_chat_template(turn, add_generation_prompt=True)
    inputs = processor(images=photo.image, text=text, return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=50, do_sample=False)[0, inputs.input_ids.shape[1] :]
    ended = written[-1].item() == model.generation_config.eos_token_id
    return processor.tokenizer.decode(written, skip_special_tokens=True).strip(), ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coco", type=pathlib.Path, required=True)
    parser.add_argument("--classes", type=pathlib.Path, required=True)
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--projector", type=pathlib.Path, help="a projector other than the package's")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    folder = builtin_folder("builtin")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    if options.projector:
        model.model.multi_modal_projector.load_state_dict(load_file(options.projector))
    coco = getattr(split_coco(options.coco, longest=None), options.split)
    classes = getattr(split_classes(options.classes, longest=None), options.split)

    told = [describe(model, processor, photo) for photo in coco]
    captions, objects = [text for text, _ in told], [photo.objects for photo in coco]
    table: dict[str, Any] = {}

    def of_sample(name: str) -> Callable[[Sequence[int]], float]:
        return lambda chosen: caption_scores([captions[at] for at in chosen], [objects[at] for at in chosen])[name]

    for name in ("any", "other", "chair_i", "chair_s", "recall"):
        score = of_sample(name)
        table[name] = {"value": score(range(len(coco))), "cases": len(coco)}
        table[name]["interval"] = interval(len(coco), score, options.seed)
    table["ended"] = {"value": sum(ended for _, ended in told) / len(told), "cases": len(told)}
    named = [describe(model, processor, photo)[0] for photo in classes]
    hits = [photo.is_named_by(text) for text, photo in zip(named, classes, strict=True)]
    table["class"] = {"value": sum(hits) / len(hits), "cases": len(hits)}
    table["class"]["interval"] = interval(len(hits), lambda at: sum(hits[i] for i in at) / len(hits), options.seed)

    meanings = MEANINGS | {"class": "class-named photos of classes never trained on: class or close parent named"}
    print(f"| {options.split} photos, greedy captions | cases | share | 95 % interval |\n|---|---|---|---|")
    for name, row in table.items():
        low_high = "–".join(f"{edge:.0%}" for edge in row["interval"]) if "interval" in row else ""
        print(f"| {meanings[name]} | {row['cases']} | {row['value']:.0%} | {low_high} |")
    if options.json:
        cases = [
            {"photo": p.path.name, "caption": c, "annotated": sorted(o), "named": sorted(objects_named(c))}
            for p, c, o in zip(coco, captions, objects, strict=True)
        ]
        cases += [
            {"photo": p.path.name, "caption": c, "class": p.class_name, "hit": hit}
            for p, c, hit in zip(classes, named, hits, strict=True)
        ]
        options.json.write_text(json.dumps({"split": options.split, "scores": table, "cases": cases}, indent=1))


if __name__ == "__main__":
    main()
