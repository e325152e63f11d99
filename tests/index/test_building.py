"""Building an index: shards and interruptions change nothing, and bad input gets one sentence."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_index import TEXTS, photos  # pyright: ignore[reportMissingImports]

from neuronwise.errors import DataError, IndexingError, NeuronError, NonFiniteError
from neuronwise.index import Index
from neuronwise.index.items import Item
from neuronwise.model import Model
from speakers import speaker

SOURCE = Path(__file__).resolve().parents[2] / "src"


def content(folder: Path) -> dict[str, bytes]:
    """All files of an index by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def llava(tiny_tokenizer: Any) -> Model:
    return speaker("llava", tiny_tokenizer)


def sharded(model: Model, folder: Path, parts: int, **options: Any) -> list[Path]:
    shards = [folder / f"shard{part}" for part in range(1, parts + 1)]
    for part, shard in enumerate(shards, 1):
        assert Index.build(model, out=shard, shard=f"{part}/{parts}", **options) is None
    return shards


@pytest.mark.parametrize("family", ["llava", "mixtral"])
@pytest.mark.parametrize(("parts", "batch"), [(2, 1), (3, 1), (20, 1), (2, 4), (3, 2)])
def test_merged_shards_are_one_pass_to_the_byte(
    family: str, parts: int, batch: int, tiny_tokenizer: Any, make: Any, tmp_path: Path
) -> None:
    model = speaker("llava", tiny_tokenizer) if family == "llava" else make(family)
    given: dict[str, Any] = {"texts": TEXTS, "length": 4, "examples": 3, "batch_size": batch}
    if family == "llava":
        paths = photos(tmp_path)
        paths[2].write_bytes(b"no photo")
        given |= {"photos": paths, "max_new_tokens": 3}
    Index.build(model, out=tmp_path / "whole", **given)
    shards = sharded(model, tmp_path, parts, **given)
    merged = Index.merge(list(reversed(shards)), tmp_path / "merged")
    assert content(tmp_path / "merged") == content(tmp_path / "whole")
    assert len(merged.items) == sum(-(-len(text.split()) // 4) for text in TEXTS) + (4 if family == "llava" else 0)


SCRIPT = """
import os, sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from speakers import speaker
from test_index import TEXTS
from tiny_checkpoint import made_tokenizer
from neuronwise.index import Index
from neuronwise.index.items import Item
def stop(done, total):
    if done == {done}:
        os.kill(os.getpid(), 9)
Index.build(speaker("llava", made_tokenizer()), {photos!r}, TEXTS, out={out!r}, max_new_tokens=3, save_every=0,
            batch_size={batch}, progress=stop)
"""


@pytest.mark.parametrize(("done", "batch"), [(1, 1), (9, 1), (8, 4)])
def test_a_killed_one_resumes_with_the_same_result(done: int, batch: int, llava: Model, tmp_path: Path) -> None:
    paths = photos(tmp_path)
    Index.build(llava, paths, TEXTS, out=tmp_path / "whole", max_new_tokens=3, batch_size=batch)
    tests, out = str(Path(__file__).resolve().parents[1]), tmp_path / "index"
    script = SCRIPT.format(tests=tests, done=done, batch=batch, photos=list(map(str, paths)), out=str(out))
    path = os.pathsep.join([str(SOURCE), tests, str(Path(tests) / "index")])
    killed = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}, check=False)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(IndexingError, match="is not finished: build it again"):
        Index.load(out)
    (out / "items.jsonl").open("ab").write(b'{"torn')
    (out / ".state-000000099.1-2.partial").mkdir()
    seen: list[int] = []
    how: dict[str, Any] = {"max_new_tokens": 3, "batch_size": batch, "progress": lambda done, total: seen.append(done)}
    Index.build(llava, paths, TEXTS, out=out, **how)
    assert seen == list(range(done + batch, 13, batch))
    assert content(out) == content(tmp_path / "whole")


def test_where_it_cannot_be_saved_what_is_finished_stays(
    llava: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuronwise.index import work

    saves = []

    def failing(*args: Any) -> None:
        saves.append(args)
        if len(saves) > 10:
            raise OSError(28, "No space left on device")
        save(*args)

    save = work.save_file
    how: dict[str, Any] = {"texts": TEXTS, "batch_size": 1}
    Index.build(llava, out=tmp_path / "whole", **how)
    monkeypatch.setattr(work, "save_file", failing)
    with pytest.raises(IndexingError, match="No space left on device"):
        Index.build(llava, out=tmp_path / "index", save_every=0, **how)
    assert len(list((tmp_path / "index").glob("*state-*"))) == 1
    monkeypatch.undo()
    seen: list[int] = []
    Index.build(llava, out=tmp_path / "index", progress=lambda done, total: seen.append(done), **how)
    assert seen[0] == 4
    assert content(tmp_path / "index") == content(tmp_path / "whole")


def test_shards_that_do_not_belong_together_are_refused(llava: Model, make: Any, tmp_path: Path) -> None:
    one, two, three = sharded(llava, tmp_path, 3, texts=TEXTS)
    out = tmp_path / "merged"
    for shards, said in (
        ([], "Name the folders"),
        ([one, two], "Missing: shard 3/3"),
        ([three], "Missing: shards 1/3, 2/3"),
        ([one, two, two, three], "Shard 2/3 is given twice"),
        ([one, two, tmp_path], "is no shard of an index"),
    ):
        with pytest.raises(IndexingError, match=said):
            Index.merge(shards, out)
    other = tmp_path / "other"
    Index.build(speaker("llava", make("llama").tokenizer, seed=1), texts=TEXTS, out=other, shard="3/3")
    with pytest.raises(IndexingError, match="is of another model"):
        Index.merge([one, two, other], out)
    for name, options, said in (
        ("data", {"texts": TEXTS[1:], "shard": "3/3"}, "is of other data"),
        ("k", {"texts": TEXTS, "shard": "3/3", "examples": 4}, "is of another k"),
        ("settings", {"texts": TEXTS, "shard": "3/3", "length": 4}, "is of other settings"),
        ("parts", {"texts": TEXTS, "shard": "3/4"}, "is one of 3 shards, .* one of 4"),
    ):
        Index.build(llava, out=tmp_path / name, **options)
        with pytest.raises(IndexingError, match=said):
            Index.merge([one, two, tmp_path / name], out)
    state = next(two.glob("state-*")) / "state.json"
    whole = state.read_text()
    state.write_text(whole.replace('"predicting"', '"nowhere"'))
    with pytest.raises(IndexingError, match=r"is damaged; .* at other places than predicting, image, text"):
        Index.merge([one, two, three], out)
    state.write_text(whole)
    assert not out.exists()
    Index.merge([one, two, three], out)
    with pytest.raises(IndexingError, match="is there already"):
        Index.merge([one, two, three], out)
    with pytest.raises(IndexingError, match="holds a finished index, which cannot be merged"):
        Index.merge([out, two, three], tmp_path / "again")


def test_an_unfinished_shard_is_not_merged(llava: Model, tmp_path: Path) -> None:
    one, two = sharded(llava, tmp_path, 2, texts=TEXTS)
    state = next(two.glob("state-*")) / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "finished": False}))
    with pytest.raises(IndexingError, match=r"Shard 2/2 in .* is not finished"):
        Index.merge([one, two], tmp_path / "merged")


def test_building_again_is_only_for_the_same(llava: Model, tmp_path: Path) -> None:
    out = tmp_path / "index"
    first = Index.build(llava, texts=TEXTS, out=out)
    before = content(out)
    assert repr(Index.build(llava, texts=TEXTS, out=out)) == repr(first)
    Index.build(llava, texts=TEXTS, out=tmp_path / "shard", shard="1/1")
    shutil.copytree(tmp_path / "shard", out, dirs_exist_ok=True)  # killed before its state was taken away
    Index.build(llava, texts=TEXTS, out=out)
    assert content(out) == before
    with pytest.raises(IndexingError, match="is of other data"):
        Index.build(llava, texts=TEXTS[1:], out=out)
    with pytest.raises(IndexingError, match="is of other settings"):
        Index.build(llava, texts=TEXTS, out=out, length=7)
    with torch.no_grad():
        llava.blocks[0].value_vectors[:, 3] *= 4
    with pytest.raises(IndexingError, match="is of another model"):
        Index.build(llava, texts=TEXTS, out=out)
    assert content(out) == before


def test_bad_input_gets_a_sentence_and_leaves_nothing(
    llava: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"none")
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({}, DataError, "nothing to index"),
        ({"texts": ["  "]}, DataError, "nothing to index"),
        ({"texts": [3]}, DataError, "There is no text in row 0"),
        ({"photos": tmp_path / "none"}, DataError, "There is no folder"),
        ({"photos": tmp_path / "empty"}, DataError, "There is no photo in"),
        ({"photos": []}, DataError, "no photo to index"),
        ({"photos": [tmp_path / "none.jpg"]}, DataError, "There is no photo 'none.jpg'"),
        (
            {"photos": tmp_path / "bad"},
            IndexingError,
            "No photo or text could be read, of 1; the first, a.png: .*image",
        ),
        ({"photos": photos(tmp_path, 1), "captions": "given"}, IndexingError, "It has no caption"),
        ({"texts": TEXTS, "captions": "mine"}, IndexingError, "choose generated or given"),
        ({"texts": TEXTS, "shard": "5/4"}, IndexingError, "write 1/4"),
        ({"texts": TEXTS, "shard": "half"}, IndexingError, "write 1/4"),
        ({"texts": TEXTS, "examples": 0}, IndexingError, "keep 1 or more"),
        ({"texts": TEXTS, "length": 1}, IndexingError, "length counts tokens from 2"),
    ]
    for given, error, said in cases:
        with pytest.raises(error, match=said):
            Index.build(llava, out=tmp_path / "index", **given)
        assert not (tmp_path / "index").exists(), given
    (tmp_path / "bad" / "notes.txt").write_text("mine")
    with pytest.raises(IndexingError, match="holds other files"):
        Index.build(llava, texts=TEXTS, out=tmp_path / "bad")
    with torch.no_grad():
        llava.blocks[1].value_vectors[0, 0] = torch.inf
    with pytest.raises(NonFiniteError, match="load the model with dtype"):
        Index.build(llava, texts=TEXTS, out=tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_a_bad_photo_is_left_out_and_named(llava: Model, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    shutil.move(photos(tmp_path, 1)[0], folder / "more" / "a.png")
    (folder / "b.jpg").write_bytes(b"no photo")
    index = Index.build(llava, folder, out=tmp_path / "index", max_new_tokens=2)
    assert index is not None
    assert [item.name for item in index.items] == ["more/a.png"]
    assert list(index.left_out) == ["b.jpg"]
    assert not [name for name, data in content(tmp_path / "index").items() if str(tmp_path).encode() in data]


def test_captions_that_are_given_are_forced(llava: Model, tmp_path: Path) -> None:
    paths = photos(tmp_path, 2)
    rows = [{"file_name": path.name, "captions": [" a dog runs", " a cat"]} for path in paths]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    index = Index.build(llava, tmp_path, out=tmp_path / "index", captions="given", prompt="the")
    assert index is not None
    assert [(item.text, item.captions) for item in index.items] == [("a dog runs", (" a dog runs", " a cat"))] * 2
    assert index.positions["predicting"] == 6


def test_reading_what_is_not_there_or_damaged(llava: Model, tmp_path: Path) -> None:
    index = Index.build(llava, texts=TEXTS, out=tmp_path / "index")
    assert index is not None
    for address, error, said in (
        ("L9.U1", NeuronError, "There is no neuron L9.U1"), ("L0.U48", NeuronError, "There is no neuron"),
        ("L0.E1.U1", NeuronError, "There is no neuron"), ("dog", NeuronError, "is not a neuron's address"),
    ):  # fmt: skip
        with pytest.raises(error, match=said):
            index[address]
    with pytest.raises(IndexingError, match="this index has predicting, text"):
        index["L0.U1"].at("image")
    with pytest.raises(IndexingError, match="There is no index in"):
        Index.load(tmp_path)
    record = {"kind": "photo", "name": "a", "text": "", "tokens": [4], "grid": {"rows": 2, "columns": 2, "cells": 0}}
    with pytest.raises(ValueError, match="left"):
        Item.of(0, {**record, "grid": {**record["grid"], "box": ["left", 0, 8, 8]}})  # type: ignore[dict-item]
    layer = tmp_path / "index" / "layers" / "L1.safetensors"
    layer.write_bytes(layer.read_bytes()[:100])
    with pytest.raises(IndexingError, match="is damaged"):
        Index.load(tmp_path / "index")["L1.U1"]
    about = tmp_path / "index" / "index.json"
    for positions in ({}, {"nowhere": 3}):
        about.write_text(json.dumps({**index.about, "positions": positions}))
        with pytest.raises(IndexingError, match=r"index.json' is damaged: its positions"):
            Index.load(tmp_path / "index")
    about.write_text("{}")
    with pytest.raises(IndexingError, match="or it is damaged"):
        Index.load(tmp_path / "index")
    with pytest.raises(IndexingError, match="not of"):
        index.require(speaker("llava", llava.tokenizer, seed=3))
    index.require(llava)
