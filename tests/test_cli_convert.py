"""`neuronwise convert`: from published parts to found neurons, a heatmap, an edit and a saved model, by the shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import neuronwise as nw
from parity import minigpt4 as tiny
from shell import shell

EDIT = ("freeze_last=0", "rate=0.1", "alpha=0.0", "gamma=0.0", "steps=40")
GRIDS = {"vicuna": (4, 4), "llama2": (4, 1), "mplug_owl2": (4, 4)}


def parts_of(kind: str, folder: Path) -> tuple[str, list[Path]]:
    """A converter's name and what a user gives it."""
    if kind == "mplug_owl2":
        from architectures.test_mplug_owl2 import write_published

        folder.mkdir()
        return "mplug_owl2", [write_published(folder)]
    return "minigpt4", tiny.write_parts(folder, kind)


@pytest.mark.parametrize("kind", GRIDS)
def test_convert_find_heatmap_edit_save(kind: str, tmp_path: Path) -> None:
    photo, made, page, edit, merged = (tmp_path / name for name in ("photo.png", "made", "page", "edit", "merged"))
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (60, 90, 3), dtype=np.uint8)).save(photo)
    name, parts = parts_of(kind, tmp_path / "parts")
    done: dict[str, Any] = json.loads(shell("convert", name, *parts, "--out", made, "--json").stdout)
    assert (done["schema"], done["converter"], done["resumed_shards"]) == ("neuronwise.convert/1", name, 0)
    assert done["folder"] == str(made)

    model = nw.load(made)
    target = model.decode_ids([[i for i in range(259, 400) if model.decode_ids([i]).strip().isalpha()][5]]).strip()
    asked = ("--prompt", "what is this?", "--target", target, "--top", 5, "--max-new-tokens", 3)
    found = json.loads(shell("find", photo, "-m", made, *asked, "--out", page, "--json").stdout)
    (concept,) = found["concepts"]
    assert len(concept["neurons"]) == 5
    assert "<img" in (page / "index.html").read_text()
    run = model.run(photo, "what is this?", max_new_tokens=3)
    neurons = nw.find(model, run, targets=target, top=5).concepts[0].neurons
    assert [(n["layer"], n["unit"]) for n in concept["neurons"]] == [(s.neuron.layer, s.neuron.unit) for s in neurons]
    heat = nw.heatmap(model, run, neurons)
    assert (heat.grid.shape, heat.box) == (GRIDS[kind], (0, 0, 90, 60))

    fact = ("--prompt", "what is this {}?", "--subject", "animal", "--target", target, "--image", photo)
    settings = [part for setting in EDIT for part in ("--set", setting)]
    out = ("--out", edit, "--merge", merged, "--json", "--max-new-tokens", 3)
    edited = json.loads(shell("edit", "fact", "-m", made, *fact, *settings, *out).stdout)
    (text,) = edited["texts"]
    assert not text["before"].strip().startswith(target)
    assert text["after"].strip().startswith(target)
    again = nw.load(merged)
    assert type(again.module) is type(model.module)
    assert again.run(photo, "what is this animal?", max_new_tokens=3).text == text["after"].strip()


def test_what_is_printed_and_what_is_refused(tmp_path: Path) -> None:
    eva, qformer, own, language = tiny.write_parts(tmp_path / "parts", "vicuna")
    out = tmp_path / "out"
    refused = shell("convert", "minigpt4", eva, own, language, "--out", out, expect=2)
    assert refused.stdout == ""
    assert refused.stderr == (
        "neuronwise: pretrained_minigpt4.pth looks like the Vicuna variant, which has a Q-Former: add "
        "blip2_pretrained_flant5xxl.pth. Nothing was written.\n"
    )
    assert "the converters are minigpt4, mplug_owl2" in shell("convert", "blip9", eva, "--out", out, expect=2).stderr
    wrong = shell("convert", "minigpt4", eva, "--out", out, "--dtype", "int8", expect=2)
    assert wrong.stderr == "neuronwise: There is no dtype 'int8'; use float32, bfloat16 or float16.\n"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "parts"]
    done = shell("convert", "minigpt4", language, own, qformer, eva, "--out", out, "--dtype", "bfloat16")
    tensors = load_file(out / "model.safetensors")
    size = sum(tensor.nbytes for tensor in tensors.values()) / 1e9
    exact = {name for name, tensor in tensors.items() if tensor.dtype == torch.float32}
    assert exact == {name for name in tensors if name.startswith(("qformer.", "query_tokens"))}
    assert done.stdout == (
        f"MiniGPT-4 on Vicuna: 1,141,216 parameters in 170 tensors, bfloat16, {size:.3g} GB, 1 file: {out}\n"
    )
    again = shell("convert", "minigpt4", language, own, qformer, eva, "--out", out, expect=2)
    assert again.stderr == f"neuronwise: '{out}' is there already; name a new folder.\n"
