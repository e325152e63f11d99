"""`neuronwise check`: its table, its object, its exit status, and what it says of wrong input."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuronwise import intervene
from neuronwise.check import PASSED
from shell import refused, shell


@pytest.fixture(scope="module")
def sighted(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """A tiny LLaVA with its processor in a folder, and a photo beside it."""
    from speakers import PHOTO, speaker

    folder = tmp_path_factory.mktemp("sighted")
    model = speaker("llava", tiny_tokenizer)
    model.module.save_pretrained(folder / "llava")
    model.processor.save_pretrained(folder / "llava")
    PHOTO.resize((20, 12)).save(folder / "photo.png")
    return folder


def test_the_command_on_a_text_model(tiny_folder: Path) -> None:
    asked = ("check", tiny_folder, "--prompt", "the cat sits on")
    assert "15 passed, 0 failed, 2 not applicable" in shell(*asked).stdout
    content = json.loads(shell(*asked, "--json").stdout)
    assert content["passed"] is True
    assert content["prompt"] == "the cat sits on"


def test_the_command_on_an_image_model(sighted: Path) -> None:
    content = json.loads(shell("check", sighted / "llava", "--image", sighted / "photo.png", "--json").stdout)
    assert content["image"] == [20, 12]
    outcomes = {row["name"]: row["outcome"] for row in content["checks"]}
    assert outcomes["span"] == outcomes["heat"] == PASSED


def test_a_failure_is_exit_status_1(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervene, "_changed", lambda *args: contextlib.nullcontext())
    assert "1 failed" in shell("check", tiny_folder, "--prompt", "the cat sits on", expect=1).stdout


def without(folder: Path, into: Path, *names: str) -> Path:
    shutil.copytree(folder, into)
    for name in names:
        (into / name).unlink(missing_ok=True)
    return into


def halved(folder: Path, into: Path) -> Path:
    """As a download leaves it that was broken off."""
    shutil.copytree(folder, into)
    weights = into / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return into


BAD: dict[str, tuple[Callable[[Path, Path, Path], list[Any]], str]] = {
    "no photo": (lambda text, seen, new: [seen / "llava"], "needs one: --image"),
    "a photo for a text model": (lambda text, seen, new: [text, "--image", seen / "photo.png"], "reads text alone"),
    "no such photo": (lambda text, seen, new: [seen / "llava", "--image", seen / "none.png"], "none.png"),
    "no processor": (
        lambda text, seen, new: [
            without(seen / "llava", new, "processor_config.json", "preprocessor_config.json"),
            "--image", seen / "photo.png",
        ],
        "processor",
    ),
    "no tokenizer": (
        lambda text, seen, new: [without(text, new, "tokenizer.json", "tokenizer_config.json")], "tokenizer",
    ),
    "no weights yet": (lambda text, seen, new: [without(text, new, "model.safetensors")], "holds no weights"),
    "half of the weights": (lambda text, seen, new: [halved(text, new)], "cannot be opened"),
    "no folder": (lambda text, seen, new: [new / "nothing"], "neither a folder with a checkpoint"),
    "an empty prompt": (lambda text, seen, new: [text, "--prompt", "  "], "prompt is empty"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_sentence(what: str, tiny_folder: Path, sighted: Path, tmp_path: Path) -> None:
    arguments, words = BAD[what]
    assert words in refused("check", *arguments(tiny_folder, sighted, tmp_path / "new"))
