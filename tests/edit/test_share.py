"""Edits in folders and on the hub: what is written, what is refused, what is uploaded."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

import neuronwise as nw
from edits import random_edit, same, tiny, weights
from neuronwise.edit import Delta, Edit, load_edit
from neuronwise.errors import EditError


class FakeApi:
    """Keeps what would be uploaded."""

    calls: list[tuple[str, dict[str, Any]]] = []
    files: dict[str, bytes] = {}
    fails: Exception | None = None

    def __init__(self, token: Any = None) -> None:
        self.calls.append(("token", {"token": token}))

    def create_repo(self, repo_id: str, **options: Any) -> str:
        if self.fails is not None:
            raise self.fails
        self.calls.append(("create", {"repo_id": repo_id, **options}))
        return f"https://hub/{repo_id}"

    def upload_folder(self, *, folder_path: Path, **options: Any) -> None:
        self.calls.append(("upload", options))
        self.files.update({file.name: file.read_bytes() for file in Path(folder_path).iterdir()})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    import huggingface_hub

    class Hub(FakeApi):
        calls, files, fails = [], {}, None

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return Hub


def asked(model: nw.Model) -> Edit:
    edit = random_edit(model)
    request = {"prompt": "The capital of {} is", "subject": "France", "target_new": "Rome"}
    return Edit(edit.deltas, {**edit.record, "request": request, "model": "someone/llama"}, edit.norms)


def test_the_edits_folder_is_uploaded_with_a_card(hub: type[FakeApi], tmp_path: Path) -> None:
    model, _ = tiny("llama")
    edit = asked(model)
    assert edit.push("me/rome", private=True, token="secret", message="hello") == "https://hub/me/rome"
    assert dict(hub.calls) == {
        "token": {"token": "secret"},
        "create": {"repo_id": "me/rome", "private": True, "exist_ok": True},
        "upload": {"repo_id": "me/rome", "commit_message": "hello"},
    }
    assert set(hub.files) == {"README.md", "deltas.safetensors", "edit.json"}
    card = hub.files["README.md"].decode()
    about: Any = ModelCard(card).data
    assert (about.base_model, about.library_name) == ("someone/llama", "neuronwise")
    assert "`The capital of France is` → `Rome`" in card
    assert 'snapshot_download("me/rome")' in card
    assert f"{edit.parameters_changed} numbers" in card
    for name in ("deltas.safetensors", "edit.json"):
        (tmp_path / name).write_bytes(hub.files[name])
    assert load_edit(tmp_path).fingerprint == edit.fingerprint


def test_the_adapter_is_uploaded_for_a_model(hub: type[FakeApi]) -> None:
    pytest.importorskip("peft")
    model, _ = tiny("gpt2")
    (asked(model) + random_edit(model, 4)).push("me/rome", adapter_for=model)
    assert set(hub.files) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert "library_name: peft" in hub.files["README.md"].decode()


def test_a_hub_that_refuses_is_one_sentence(hub: type[FakeApi]) -> None:
    import httpx

    model, _ = tiny("llama")
    for hub.fails in (httpx.ConnectError("no route"), OSError("offline"), ValueError("bad"), Exception("of its own")):
        with pytest.raises(EditError, match="could not be pushed to 'me/rome'"):
            asked(model).push("me/rome")
    with pytest.raises(EditError, match="owner/name"):
        asked(model).push("rome")
    assert not hub.files


def _flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(bytes(content))


def _edit_json(folder: Path, **changes: Any) -> None:
    file = folder / "edit.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


DAMAGE = {
    "a flipped bit in the numbers": (lambda f: _flip(f / "deltas.safetensors", -5), "not those that were saved"),
    "a cut file": (lambda f: os.truncate(f / "deltas.safetensors", 700), "damaged"),
    "an empty file": (lambda f: os.truncate(f / "deltas.safetensors", 0), "damaged"),
    "a cut record": (lambda f: os.truncate(f / "edit.json", 200), "damaged"),
    "a record in another coding": (lambda f: (f / "edit.json").write_bytes(b"\xff\xfe{}"), "damaged"),
    "a list": (lambda f: (f / "edit.json").write_text("[]"), "damaged"),
    "other layers": (lambda f: _edit_json(f, deltas=[{"layer": 0, "path": "mlp.down_proj", "expert": None}]), "not th"),
    "no deltas": (lambda f: _edit_json(f, deltas=None), "damaged"),
    "a newer form": (lambda f: _edit_json(f, schema="neuronwise.edit/12"), "newer form"),
    "another form": (lambda f: _edit_json(f, schema="neuronwise.find/1"), "has the form"),
    "no numbers": (lambda f: (f / "deltas.safetensors").unlink(), "holds no edit"),
    "a file for a folder": (lambda f: None, "holds no edit"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_said_and_nothing_changes(case: str, tmp_path: Path) -> None:
    damage, words = DAMAGE[case]
    model, _ = tiny("llama")
    before = weights(model)
    folder = tmp_path / "edit"
    random_edit(model).save(folder)
    damage(folder)
    with pytest.raises(EditError, match=words):
        load_edit(folder / "edit.json" if case == "a file for a folder" else folder)
    assert same(before, weights(model))


def test_every_flipped_bit_of_the_tensors_is_noticed(tmp_path: Path) -> None:
    model, _ = tiny("llama")
    random_edit(model, neurons=1).save(tmp_path / "edit")
    file = tmp_path / "edit" / "deltas.safetensors"
    for at in range(0, file.stat().st_size, 61):
        _flip(file, at)
        with pytest.raises(EditError):
            load_edit(tmp_path / "edit")
        _flip(file, at)
    load_edit(tmp_path / "edit")


def test_folders_links_and_what_is_there(tmp_path: Path) -> None:
    model, _ = tiny("llama")
    edit = random_edit(model)
    (tmp_path / "empty").mkdir()
    inode = (tmp_path / "empty").stat().st_ino
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    edit.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "empty").stat().st_ino == inode
    assert load_edit(tmp_path / "link").fingerprint == edit.fingerprint
    (tmp_path / "dangling").symlink_to(tmp_path / "deep" / "new")
    edit.save(tmp_path / "dangling")
    assert load_edit(tmp_path / "deep" / "new").fingerprint == edit.fingerprint
    for taken in ("link", "empty"):
        with pytest.raises(EditError, match="there already"):
            edit.save(tmp_path / taken)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(EditError, match="there already"):
        edit.save(tmp_path / "file")
    with pytest.raises(EditError, match="cannot be written"):
        edit.save(tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"
    assert not list(tmp_path.rglob("*.partial"))


def test_a_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = tiny("llama")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules[Edit.__module__], "save_file", full)
    with pytest.raises(EditError, match="No space left"):
        random_edit(model).save(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    bad = Edit((), {"loss": float("nan")})
    with pytest.raises((EditError, ValueError)):
        bad.save(tmp_path / "bad")
    assert list(tmp_path.iterdir()) == []


def test_the_same_edit_from_disk_is_the_same_edit(tmp_path: Path) -> None:
    model, _ = tiny("llama")
    before = weights(model)
    edit, other = random_edit(model, 1), random_edit(model, 2)
    edit.save(tmp_path / "edit")
    edit.apply(model)
    again = load_edit(tmp_path / "edit")
    with pytest.raises(EditError, match="applied already"):
        again.apply(model)
    with pytest.raises(EditError, match="applied already"):
        (edit + other).apply(model)  # a part of it is in
    again.revert(model)
    assert same(before, weights(model))
    with (edit + other).applied(model):
        with pytest.raises(EditError, match="applied already"):
            other.apply(model)
    assert same(before, weights(model))


def test_neurons_that_two_edits_share_add_up() -> None:
    model, _ = tiny("llama")
    before = weights(model)
    column = model.blocks[1].value_vectors[:, 3].clone()
    one, two = torch.randn(32, 1), torch.randn(32, 1)
    unit = torch.tensor([3])
    first, second = (Edit((Delta(1, "mlp.down_proj", left, unit),)) for left in (one, two))
    for both in ((first, second), (first + second,)):
        for edit in both:
            edit.apply(model)
        assert torch.allclose(model.blocks[1].value_vectors[:, 3], column + (one + two)[:, 0], atol=1e-6)
        for edit in both:
            edit.revert(model)
        assert same(before, weights(model))


def test_an_edit_on_top_of_another_knows_the_model_beneath() -> None:
    model, _ = tiny("llama")
    first = random_edit(model, 1, neurons=40)
    with first.applied(model):
        second = random_edit(model, 2)
    with second.applied(model):  # its norms are those of the model, not of the first edit
        pass
    stranger, _ = tiny("qwen3")
    with pytest.raises(EditError):
        second.apply(stranger)
