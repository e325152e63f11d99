"""What goes wrong when a model is opened: one sentence that says what, and what would work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch

import neuronwise as nw
from neuronwise.errors import ModelError
from neuronwise.model.load import outline

NAMES = {
    "bulitin": "did you mean 'builtin'",
    "builtin_text": "did you mean 'builtin-text'",
    "./none": "neither a folder",
    "a/b/c": "neither a folder",
    "{tmp}/none": "neither a folder",
    "some-owner/some-model": "no such folder",
}


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("opened", [nw.load, outline])
def test_a_name_without_a_model(name: str, opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # the variable has been read
    with pytest.raises(ModelError, match=NAMES[name]) as told:
        opened(name.format(tmp=tmp_path))
    assert "huggingface.co" not in str(told.value)


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "a device": ({"device": "cpu"}, "no option 'device'"),
    "bits": ({"load_in_4bit": True}, "no option 'load_in_4bit'"),
    "a misspelled option": ({"dtpe": "float32"}, "no option 'dtpe'"),
    "a storage dtype": ({"dtype": torch.float8_e4m3fn}, "no dtype"),
    "its name": ({"dtype": "float8_e4m3fn"}, "no dtype"),
    "integers": ({"dtype": torch.int8}, "no dtype"),
    "a number for a dtype": ({"dtype": 3}, "no dtype"),
    "an unknown device": ({"device_map": "gpu"}, "device"),
    "a quantization that is none": ({"quantization_config": 3}, "cannot be opened"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_an_option_that_no_model_takes(case: str, tiny_folder: Path) -> None:
    options, words = OPTIONS[case]
    with pytest.raises(ModelError, match=words) as told:
        nw.load(tiny_folder, **options)
    assert "\n" not in str(told.value)


def test_a_dtype_may_be_named(tiny_folder: Path) -> None:
    assert next(nw.load(tiny_folder, dtype="bfloat16").module.parameters()).dtype == torch.bfloat16


DEEP = '{"a":' * 3000 + "1" + "}" * 3000


@pytest.mark.parametrize("content", ["{", "[]", "null", "\x00", DEEP])
@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_file_is_named(file: str, content: str, tiny_folder: Path, tmp_path: Path) -> None:
    for there in tiny_folder.iterdir():
        (tmp_path / there.name).symlink_to(there)
    (tmp_path / file).unlink(missing_ok=True)
    (tmp_path / file).write_text(content)
    with pytest.raises(ModelError, match=file.replace("tokenizer.json", "tokenizer")) as told:
        nw.load(tmp_path)
    assert "\n" not in str(told.value)


def test_a_setting_of_another_kind_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    for there in tiny_folder.iterdir():
        (tmp_path / there.name).symlink_to(there)
    written = (tiny_folder / "config.json").read_text()
    (tmp_path / "config.json").unlink()
    for said, instead, named in (
        ('"hidden_size": 32', '"hidden_size": "wide"', "hidden_size"),
        ('"model_type": "llama"', '"model_type": ["llama"]', "cannot be opened"),
        ('"model_type": "llama"', '"model_type": {}', "cannot be opened"),
    ):
        assert said in written
        (tmp_path / "config.json").write_text(written.replace(said, instead))
        with pytest.raises(ModelError, match=named):
            nw.load(tmp_path)


@pytest.mark.parametrize("name", ["vocab_size", "intermediate_size"])
def test_sizes_beyond_the_memory_are_one_sentence(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {name: 2**42}))
    with pytest.raises(ModelError, match=r"^'.*model' cannot be opened as a model: out of memory"):
        nw.load(tmp_path / "model")
