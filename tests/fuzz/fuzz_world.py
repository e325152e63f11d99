"""A folder with one good file of every kind that the library reads, and the tiny models that it is about."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
from fuzz_judge import Judge
from PIL import Image

import neuronwise as nw
from fact_records import RECORDS
from neuronwise.edit import EDITORS
from shell import shell
from tiny_checkpoint import made_tokenizer, written_tiny
from wired_study import RECIPE, talking, write_photos
from wired_words import texts, wired_words

TEXT = "the cat sits on the mat . the dog runs . the capital of France is Paris .\n\n"
FACT = ("--prompt", "the capital of {} is", "--subject", "France", "--target", "house")
QUICK = ("--set", "steps=2", "--set", "freeze_last=0")
# What makes an editor quick.
CHANGES: dict[str, dict[str, Any]] = {
    "fine": {"steps": 2, "freeze_last": 0}, "decoupled": {"steps": 2, "freeze_last": 0},
    "fine_specific": {"steps": 2, "texts": 4, "text_tokens": 8}, "knowledge_neurons": {"steps": 2},
}  # fmt: skip
OWN_TASK = ("own.yaml", "own.jsonl")
# A task of lm-evaluation-harness.
TASK = {
    "task": "own", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "own.jsonl"}},
    "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{answer}}", "metric_list": [{"metric": "acc"}],
}  # fmt: skip
RECIPES: dict[str, dict[str, Any]] = {
    "suppression": {**RECIPE, "methods": ["contribution"], "model": "photo"},
    "properties": {"kind": "properties", "model": "photo", "prompt": "the", "max_new_tokens": 2, "at_least": 1, "K": 3,
                   "images": 1, "photos": 2, "noise_K": 2, "sigmas": [1.0], "noisy": ["contribution"]},
    "localization": {"kind": "localization", "model": "photo", "prompt": "the", "max_new_tokens": 2, "at_least": 1,
                     "words": 2, "facts": 0, "counts": [1, 2], "fills": ["zero"],
                     "methods": ["contribution", {"method": "random", "name": "r"}]},
    "circuits": {"kind": "circuits", "model": "photo", "prompt": "the", "max_new_tokens": 2, "at_least": 1, "words": 1,
                 "facts": 0, "counts": [1, 2], "fills": ["zero"], "methods": ["contribution"]},
    "evaluation": {"kind": "evaluation", "model": "text", "facts": "facts.json", "limit": 1, "others": 0,
                   "free": False, "editors": [{"editor": "fine", "settings": {"steps": 2, "freeze_last": 0}}]},
    "probe": {"kind": "probe", "model": "photo", "max_new_tokens": 2, "photos": 4, "questions": 1, "folds": 2,
              "shuffles": 1, "strengths": [0.1], "methods": ["activation"], "negatives": ["random"]},
}  # fmt: skip


def quick(editor: str) -> dict[str, Any]:
    """Settings with which an editor is quick; few steps for one that is not named."""
    known = {field.name for field in fields(EDITORS[editor].settings)}
    few = {name: 2 for name in ("steps", "v_num_grad_steps") if name in known}
    return CHANGES.get(editor, few)


def short(editor: str) -> tuple[str, ...]:
    """The same as words on the shell."""
    return tuple(word for name, value in quick(editor).items() for word in ("--set", f"{name}={value}"))


class World:
    """``folder`` is copied, in part, for every input that is tried; ``judge`` runs commands and calls there."""

    def __init__(self, folder: Path, tiny_folder: Path, tokenizer: Any) -> None:
        self.folder = folder
        text, photo, words = nw.load(tiny_folder), talking(tokenizer), wired_words(tokenizer)
        self.models: dict[str, Any] = {"text": text, "photo": photo, "words": words}
        for name, model in self.models.items():
            model.name = name
        self.judge = Judge(self.models)
        shutil.copytree(tiny_folder, folder / "model")
        settings = folder / "model" / "generation_config.json"
        settings.write_text(json.dumps({**json.loads(settings.read_text()), "stop_strings": ["."]}))
        _write_files(folder)
        with self.at(folder):
            _write_results(photo, text, words)
        self.run = {
            "text": text.run(prompt="the capital of France is", max_new_tokens=3, chat=False),
            "photo": photo.run(folder / "photo.png", prompt="the", max_new_tokens=2),
        }
        self.found = nw.locate(photo, self.run["photo"], "dog", top=3)
        said = self.run["text"]
        self.cases = [nw.scores(text, said, target=word, method="activation") for word in (" dog", " cat") * 6]

    @contextlib.contextmanager
    def at(self, folder: Path) -> Iterator[Path]:
        """Be in a folder, where the names of the tiny models open them."""
        import neuronwise.model as room

        opened = room.load

        def load(source: Any, **options: Any) -> Any:
            name = {"builtin": "photo", "builtin-text": "text"}.get(str(source), str(source))
            plain = all(value is None for value in options.values())
            return self.models[name] if name in self.models and plain else opened(source, **options)

        with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
            for place in (room, importlib.import_module("neuronwise.index.explain")):
                patch.setattr(place, "load", load)
            yield folder

    @contextlib.contextmanager
    def fresh(self, parent: Path, *names: str) -> Iterator[Path]:
        """Be in a new folder with copies of these files and folders; it is removed afterwards."""
        folder = parent / "tried"
        folder.mkdir()
        for name in names:
            source = self.folder / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
        try:
            with self.at(folder):
                yield folder
        finally:
            shutil.rmtree(folder)


def _write_files(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(90, 110, (28, 28, 3)).astype(np.uint8)
    pixels[4:18, 4:18] = (255, 0, 0)
    Image.fromarray(pixels).save(folder / "photo.png")
    mask = np.zeros((28, 28), np.uint8)
    mask[4:18, 4:18] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    (folder / "text.txt").write_text(TEXT * 4)
    (folder / "lines.txt").write_text("the dog runs\nthe cat sits on\n\n the capital of\n")
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": TEXT}) + "\n" for _ in range(4)))
    for name, record in RECORDS.items():
        (folder / f"facts.{name}.json").write_text(json.dumps([record, record]))
    (folder / "facts.json").write_text(
        json.dumps([{"prompt": "the capital of {} is", "subject": "France", "target_new": "house"}] * 2)
    )
    asked = {"prompt": "the {} is", "target_new": "red"}
    (folder / "three.json").write_text(json.dumps([{**asked, "subject": one} for one in ("cat", "dog", "bear")]))
    row = {"q": "the cat sits on the", "choices": ["mat", "blue"], "answer": 0}
    (folder / "own.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "own.yaml").write_text(json.dumps(TASK))
    write_photos(folder / "photos", plain=1)
    _write_coco(folder / "coco")
    for name, recipe in RECIPES.items():
        (folder / f"{name}.yaml").write_text(json.dumps(recipe))
    addresses = {"image_urls": ["ftp://nowhere/a.jpg", "http://127.0.0.1:9/b.jpg"], "captions": ["a cat", "a dog"]}
    (folder / "sbu.json").write_text(json.dumps(addresses))


def _write_coco(folder: Path) -> None:
    (folder / "annotations").mkdir(parents=True)
    (folder / "val").mkdir()
    shutil.copy(folder.parent / "photo.png", folder / "val" / "photo.png")
    image = {"id": 7, "file_name": "photo.png", "width": 28, "height": 28}
    square = [[4, 4, 18, 4, 18, 18, 4, 18]]
    runs = {"size": [28, 28], "counts": [100, 20, 664]}
    common = {"image_id": 7, "category_id": 1, "area": 196, "bbox": [4, 4, 14, 14]}
    objects = [{**common, "id": 1, "segmentation": square, "iscrowd": 0}]
    objects += [{**common, "id": 2, "segmentation": runs, "iscrowd": 1}]
    content = {"images": [image], "annotations": objects, "categories": [{"id": 1, "name": "dog"}]}
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(content))
    said = {"images": [image], "annotations": [{"id": 3, "image_id": 7, "caption": "a dog on the mat"}]}
    (folder / "annotations" / "captions_val.json").write_text(json.dumps(said))


def _write_results(photo: Any, text: Any, words: Any) -> None:
    found = nw.locate(photo, photo.run("photo.png", prompt="the", max_new_tokens=2), "dog", top=4)
    found.save("set.json")
    shell("statistics", "text.txt", "--layers", "1,2", "--out", "statistics", "-m", "text", "--tokens", 40)
    shell("edit", "fact", *FACT, "-m", "text", *QUICK, "--out", "edit", "--adapter", "adapter")
    shell("evaluate", "facts.json", "-m", "text", *QUICK, "--others", 0, "--no-free", "--out", "evaluation")
    shell("evaluate", "facts.json", "-m", "text", "--editor", "in_context", "--others", 0, "--no-free", "--out",
          "compared")  # fmt: skip
    shell("edit", "facts", "three.json", "-m", "text", *QUICK, "--out", "several")
    shell("neurons", "export", "set.json", "--form", "transformer_lens", "--out", "neurons.json")
    nw.Index.build(words, texts=texts(), out="words")
    shell("explain", "L0.U1", "--index", "words", "-m", "words", "--explainer", "words")
    shell("study", "run", "suppression.yaml", "--data", "photos", "--out", "study")
    nw.Baseline.gather(text, texts=[TEXT]).save("baseline")
    seen = ("photo.png", "-m", "photo", "--prompt", "the", "--max-new-tokens", 2, "--concept", "dog")
    shell("find", *seen, "--top", 4, "--out", "finding")
    shell("circuit", *seen, "--nodes", 4, "--out", "circuit")
    asked = ("-m", "photo", "--prompt", "the", "--max-new-tokens", 2, "--examples", 3)
    shell("index", "build", "--data", "photos", "--texts", "text.txt", "--out", "index", *asked)
    for number in (1, 2):
        half = ("--shard", f"{number}/2", "--batch-size", 2, "--examples", 3)
        shell("index", "build", "--texts", "text.txt", "--out", f"halves/{number}", "-m", "text", *half)
        part = ("--out", f"parts/{number}", "--shard", f"{number}/2", "--set", "K=[1]")
        shell("study", "run", "suppression.yaml", "--data", "photos", *part)


def tiny_checkpoint(folder: Path) -> tuple[Path, Any]:
    """The folder of a tiny model and its tokenizer, as the tests' fixtures have them."""
    tokenizer = made_tokenizer()
    return written_tiny(folder, tokenizer), tokenizer


@contextlib.contextmanager
def quiet_home(folder: Path) -> Iterator[None]:
    """Caches and the hub are out of reach in the body."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONWISE_CACHE", os.fspath(folder / "cache"))
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # the variable has been read
        yield
