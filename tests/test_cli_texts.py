"""``find --text-file``: one text a line, each as ``find --text`` finds it, and all together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schema_guard import validated
from shell import refused, shell

LINES = ("the capital of France is", "a red dog runs", "the cat sits on the mat near")
HOW = ("--method", "contribution", "--top", 8, "--json")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text(f"{LINES[0]}\n\n{LINES[1]}\r\n{LINES[2]}", encoding="utf-8")
    return path


def assert_alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert [(n["layer"], n["unit"]) for n in one["neurons"]] == [(n["layer"], n["unit"]) for n in other["neurons"]]
    assert [n["score"] for n in one["neurons"]] == pytest.approx([n["score"] for n in other["neurons"]], abs=1e-4)
    assert [one[key] for key in ("word", "token_id", "position")] == [
        other[key] for key in ("word", "token_id", "position")
    ]


@pytest.mark.parametrize("asked", [(), ("--target", " Paris"), ("--target", " cat", "--target", " dog")])
def test_every_line_is_found_as_it_is_alone(file: Path, tiny_folder: Path, asked: tuple[str, ...]) -> None:
    done = shell("find", "--text-file", file, "-m", tiny_folder, *HOW, *asked)
    content = validated(json.loads(done.stdout))
    assert [one["id"] for one in content["texts"]] == ["1", "3", "4"]
    for line, one in zip(LINES, content["texts"], strict=True):
        alone = json.loads(shell("find", "--text", line, "-m", tiny_folder, *HOW, *asked).stdout)
        assert (one["prompt"], one["text"], one["rendered"]) == (line, alone["text"], alone["rendered"])
        for mine, theirs in zip(one["concepts"], alone["concepts"], strict=True):
            assert_alike(mine, theirs)
    if asked:
        assert [one["word"] for one in content["concepts"]] == list(asked[1::2])
        assert all(one["texts"] == ["1", "3", "4"] for one in content["concepts"])


def test_words_that_a_text_does_not_say_leave_it_out(file: Path, tiny_folder: Path, tiny_model: Any) -> None:
    said = [tiny_model.run(prompt=line, max_new_tokens=20, chat=False) for line in LINES]
    word = said[0].concepts[0].word
    done = shell("find", "--text-file", file, "-m", tiny_folder, *HOW, "--concept", word)
    content = validated(json.loads(done.stdout))
    with_word = [name for name, run in zip(("1", "3", "4"), said, strict=True) if word in run.text.split()]
    assert [one["id"] for one in content["texts"]] == with_word
    assert set(content["left_out"]) == {"1", "3", "4"} - set(with_word)
    assert "no text has" in refused("find", "--text-file", file, "-m", tiny_folder, "--concept", "giraffes").lower()


def test_a_text_that_cannot_be_read_fails_alone(tiny_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text(f"{LINES[0]}\n{'the ' * 3000}\n", encoding="utf-8")
    done = shell("find", "--text-file", path, "-m", tiny_folder, *HOW, "--out", tmp_path / "out")
    content = json.loads(done.stdout)
    assert [one["id"] for one in content["texts"]] == ["1"]
    assert "reads at most" in content["left_out"]["2"]
    assert "line 2 is left out" in done.stderr
    assert (tmp_path / "out" / "1" / "index.html").is_file()
    assert "share no word" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_a_table_for_people_names_each_text(file: Path, tiny_folder: Path) -> None:
    done = shell("find", "--text-file", file, "-m", tiny_folder, "--published", "--target", " cat")
    assert f"3: {LINES[1]} (cat)" in done.stdout


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (b"\n  \n", (), "has no text; write one a line"),
        (b"\xff\xfe\x00", (), "is not text in UTF-8"),
        (None, (), "cannot be read"),
        (b"the cat", ("--text", "the dog"), "--text-file holds all texts"),
        (b"the cat", ("--batch-size", "0"), "--batch-size is '0'; give a number from 1, or auto"),
        (b"the cat", ("--batch-size", "many"), "give a number from 1"),
        (b"the cat", ("--evidence", "relp"), "--evidence has no effect over the texts of a file"),
        (b"the cat", ("--concept", "cat", "--position", "1"), "--position has no effect without --target"),
    ],
)
def test_what_is_refused(content: bytes | None, options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    if content is not None:
        path.write_bytes(content)
    assert said in refused("find", "--text-file", path, "-m", "none", *options)


def test_a_batch_size_is_for_several(tiny_folder: Path, file: Path) -> None:
    assert "--batch-size has no effect with one" in refused(
        "find", "--text", "the cat", "-m", tiny_folder, "--batch-size", 4
    )
    one, two = (
        json.loads(shell("find", "--text-file", file, "-m", tiny_folder, *HOW, "--batch-size", size).stdout)
        for size in (1, 3)
    )
    for mine, theirs in zip(one["texts"], two["texts"], strict=True):
        assert_alike(mine["concepts"][0], theirs["concepts"][0])
