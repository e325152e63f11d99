"""Key statistics against a count by hand, and killed in every way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import neuronwise as nw
from neuronwise.data.facts import Fact
from neuronwise.edit.editors import EDITORS
from neuronwise.edit.memory.gather import gather_statistics, statistics_size
from neuronwise.edit.memory.statistics import Statistics
from neuronwise.errors import EditError, MethodError, NeuronwiseError, NonFiniteError

TEXTS = [
    "the cat sits on the mat", "a dog runs", "Paris is the capital of France", "the red house is blue", "teddy bear",
    "the animal in the house is a cat", "the dog sits on a red mat in Paris", "is France the capital of a bear",
]  # fmt: skip
FACT = Fact("the capital of {} is", "France", "dog house")


def by_hand(model: nw.Model, layer: int, texts: list[str], tokens: int | None = None) -> tuple[torch.Tensor, int]:
    """Σ k kᵀ / n over every position, one text at a time, in float64."""
    rows: list[torch.Tensor] = []
    writer: Any = model.blocks[layer].dense[0].module
    handle = writer.register_forward_pre_hook(lambda m, args: rows.append(args[0][0].detach().double()))
    for text in texts:
        model.module(input_ids=torch.tensor([model.tokenizer(text)["input_ids"]]))
    handle.remove()
    every = torch.cat(rows)[:tokens]
    return every.T @ every / len(every), len(every)


def test_they_are_the_second_moments_of_all_positions(model: nw.Model, tmp_path: Any) -> None:
    seen: list[tuple[int, int]] = []
    found = gather_statistics(
        model, TEXTS, [0, 2], tmp_path / "s", batch=3, name="by hand", progress=lambda *now: seen.append(now)
    )
    for layer in (0, 2):
        expected, count = by_hand(model, layer, TEXTS)
        assert found.tokens == count
        assert torch.allclose(found.second_moment(layer), expected, atol=1e-6 * float(expected.abs().max()))
    assert seen[-1] == (found.tokens, 100_000)
    again = Statistics(tmp_path / "s")
    assert again.about["model"] == model.name
    assert again.record() == {"text": "by hand", "digest": found.about["digest"], "tokens": found.tokens}
    with pytest.raises(EditError, match=r"layers \[0, 2\], not of 1"):
        again.second_moment(1)
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["moments.safetensors", "statistics.json"]
    assert statistics_size(model, [0, 2]) == 2 * 48 * 48 * 4


def test_a_text_is_known_by_its_name_alone(model: nw.Model, tmp_path: Any) -> None:
    (tmp_path / "text.txt").write_text("\n".join(TEXTS))
    assert gather_statistics(model, tmp_path / "text.txt", [0], tmp_path / "s").about["text"] == "text.txt"


def test_so_many_tokens_and_no_more(model: nw.Model, tmp_path: Any) -> None:
    found = gather_statistics(model, TEXTS, [1], tmp_path / "s", tokens=20, batch=3)
    expected, count = by_hand(model, 1, TEXTS, 20)
    assert found.tokens == count == 20
    assert torch.allclose(found.second_moment(1), expected, atol=1e-6 * float(expected.abs().max()))


def test_long_texts_are_read_in_windows(model: nw.Model, tmp_path: Any) -> None:
    text = "the cat sits on the mat in the house"
    ids = model.tokenizer(text)["input_ids"]
    found = gather_statistics(model, [text], [1], tmp_path / "s", length=4)
    rows: list[torch.Tensor] = []
    writer: Any = model.blocks[1].dense[0].module
    handle = writer.register_forward_pre_hook(lambda m, args: rows.append(args[0][0].detach().double()))
    for start in range(0, len(ids), 4):
        model.module(input_ids=torch.tensor([ids[start : start + 4]]))
    handle.remove()
    every = torch.cat(rows)
    assert found.tokens == len(ids)
    assert torch.allclose(found.second_moment(1), every.T @ every / len(every), atol=1e-5 * float(every.max()) ** 2)


class Broken(Exception):
    pass


def breaking(after: int) -> Any:
    for number, text in enumerate(TEXTS):
        if number == after:
            raise Broken
        yield text


@pytest.mark.parametrize("after", [1, 5, 7])
def test_resumed_it_is_the_same_as_never_stopped(model: nw.Model, tmp_path: Any, after: int) -> None:
    whole = gather_statistics(model, TEXTS, [0, 1], tmp_path / "whole", batch=2, save_every=1)
    with pytest.raises(Broken):
        gather_statistics(model, breaking(after), [0, 1], tmp_path / "s", batch=2, save_every=1)
    assert not (tmp_path / "s" / "statistics.json").exists()
    if after > 2:
        with pytest.raises(EditError, match="not finished"):
            Statistics(tmp_path / "s")
    passes: list[int] = []
    handle = model.blocks[0].module.register_forward_hook(lambda *_: passes.append(1))
    found = gather_statistics(model, TEXTS, [0, 1], tmp_path / "s", batch=2, save_every=1)
    handle.remove()
    assert len(passes) == 4 - after // 2  # what was saved is not read again
    assert found.about["digest"] == whole.about["digest"]
    for layer in (0, 1):
        assert torch.equal(found.second_moment(layer), whole.second_moment(layer))


KILLED = """
import os, pathlib, signal, sys
import torch
import neuronwise as nw
torch.set_num_threads(1)  # as the tests: sums over more threads are rounded otherwise
from neuronwise.edit.memory.gather import gather_statistics
def die_when_something_is_saved(*_):
    if pathlib.Path(sys.argv[3], "moments.safetensors").exists():
        os.kill(os.getpid(), signal.SIGKILL)
gather_statistics(nw.load(sys.argv[1]), sys.argv[2], [0, 1], sys.argv[3], batch=1, save_every=1,
                  progress=die_when_something_is_saved)
"""


def test_killed_outright_it_goes_on(model: nw.Model, tiny_folder: Any, tmp_path: Any) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(TEXTS))
    folder = tmp_path / "s"
    done = subprocess.run([sys.executable, "-c", KILLED, tiny_folder, text, folder], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (folder / "statistics.json").exists()
    whole = gather_statistics(model, text, [0, 1], tmp_path / "whole", batch=1)
    found = gather_statistics(model, text, [0, 1], folder, batch=1)
    assert found.about["digest"] == whole.about["digest"]
    assert all(torch.equal(found.second_moment(layer), whole.second_moment(layer)) for layer in (0, 1))


def test_what_was_begun_otherwise_is_not_gone_on_with(model: nw.Model, tmp_path: Any) -> None:
    with pytest.raises(Broken):
        gather_statistics(model, breaking(5), [0], tmp_path / "s", batch=2, save_every=1)
    with pytest.raises(EditError, match="other settings"):
        gather_statistics(model, TEXTS, [1], tmp_path / "s", batch=2)
    for other in (["a cat", *TEXTS[1:]], TEXTS[:2]):
        with pytest.raises(EditError, match="another text"):
            gather_statistics(model, other, [0], tmp_path / "s", batch=2)
    gather_statistics(model, TEXTS, [0], tmp_path / "s", batch=2)
    with pytest.raises(EditError, match="finished"):
        gather_statistics(model, TEXTS, [0], tmp_path / "s", batch=2)


def test_another_models_statistics_are_refused(model: nw.Model, tmp_path: Any) -> None:
    from families import tiny

    found = gather_statistics(model, TEXTS, [0, 1], tmp_path / "s")
    other = nw.Model(tiny("llama")[0], model.tokenizer, name="other")
    for name in ("rome", "memit", "pmet", "emmet", "namet", "alphaedit", "encore"):
        with pytest.raises(EditError, match="not for other"):
            EDITORS[name].function(other, FACT, statistics=found, layers=(1,))
        with pytest.raises(EditError, match="not of 2"):
            EDITORS[name].function(model, FACT, statistics=found, layers=(2,))


def test_an_edited_model_is_still_the_same(model: nw.Model, tmp_path: Any) -> None:
    found = gather_statistics(model, TEXTS, [1], tmp_path / "s")
    changes: dict[str, Any] = {"layers": (1,), "v_num_grad_steps": 3, "context_templates": ("a cat . ",)}
    first = EDITORS["memit"].function(model, FACT, statistics=found, mom2_update_weight=0.1, **changes)
    assert first.record["covariance"]["tokens"] == found.tokens
    with first.applied(model):
        EDITORS["rome"].function(model, FACT, statistics=found, **changes)


def test_no_room_no_text_no_folder(model: nw.Model, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EditError, match="no text"):
        gather_statistics(model, [" "], [0], tmp_path / "s")
    assert not (tmp_path / "s").exists()
    with pytest.raises(EditError, match="no key statistics: none there"):
        Statistics(tmp_path / "s")
    (tmp_path / "file").write_text("")
    with pytest.raises(EditError, match="is a file"):
        gather_statistics(model, TEXTS, [0], tmp_path / "file" / "s")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 2 * 48 * 48 * 4})())
    gather_statistics(model, TEXTS, [0], tmp_path / "one")
    with pytest.raises(EditError, match="Name fewer layers"):
        gather_statistics(model, TEXTS, [0, 1], tmp_path / "two")
    assert not (tmp_path / "two").exists()


def test_an_encoder_decoder_is_refused(model: nw.Model, tmp_path: Any) -> None:
    from families import tiny

    with pytest.raises(MethodError, match="in an encoder"):
        gather_statistics(nw.Model(tiny("t5")[0], model.tokenizer), TEXTS, [0], tmp_path / "s")


def test_damaged_folders(model: nw.Model, tmp_path: Any) -> None:
    folder = tmp_path / "s"
    gather_statistics(model, TEXTS, [0], folder)
    about = json.loads((folder / "statistics.json").read_text())
    (folder / "statistics.json").write_text(json.dumps({**about, "schema": "neuronwise.statistics/9"}))
    with pytest.raises(EditError, match="statistics/9"):
        Statistics(folder)
    (folder / "statistics.json").write_text("{")
    with pytest.raises(EditError, match="damaged"):
        Statistics(folder)
    (folder / "statistics.json").write_text(json.dumps(about))
    sums = load_file(folder / "moments.safetensors")
    save_file({**sums, "layer.0": -sums["layer.0"]}, folder / "moments.safetensors")
    with pytest.raises(EditError, match="those of layer 0 are no second moments"):
        Statistics(folder).solve(0, torch.ones(48, 1))
    (folder / "moments.safetensors").write_bytes((folder / "moments.safetensors").read_bytes()[:-50])
    with pytest.raises(EditError, match="damaged"):
        Statistics(folder).second_moment(0)
    (folder / "statistics.json").unlink()
    with pytest.raises(EditError, match="damaged"):
        gather_statistics(model, TEXTS, [0], folder)


def test_what_is_not_finite_is_refused(model: nw.Model, tmp_path: Any) -> None:
    with torch.no_grad():
        model.module.model.layers[1].mlp.up_proj.weight[0, 0] = float("inf")
    with pytest.raises(NonFiniteError):
        gather_statistics(model, TEXTS, [1], tmp_path / "s")
    assert not (tmp_path / "s" / "statistics.json").exists()


def test_the_command(tiny_folder: Any, tmp_path: Any) -> None:
    from typer.testing import CliRunner

    from neuronwise.cli import app
    from neuronwise.cli.statistics import parse_layers

    assert parse_layers("3, 5-7,5") == [3, 5, 6, 7]
    for wrong in ("", "x", "4-2", "-1"):
        with pytest.raises(NeuronwiseError, match="--layers"):
            parse_layers(wrong)
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(TEXTS))
    given = ["statistics", str(text), "--model", str(tiny_folder), "--layers", "0-1", "--out", str(tmp_path / "s")]
    done = CliRunner().invoke(app, [*given, "--tokens", "20", "--json"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert (printed["schema"], printed["tokens"], printed["layers"]) == ("neuronwise.statistics/1", 20, [0, 1])
    assert printed["bytes"] == 2 * 48 * 48 * 4
    assert "MB for 2 layers" in done.stderr
    assert Statistics(tmp_path / "s").tokens == 20
    assert isinstance(CliRunner().invoke(app, given).exception, EditError)


def test_a_folder_of_something_else_is_left_alone(model: nw.Model, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(EditError, match="holds other files"):
        gather_statistics(model, TEXTS, [0], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(EditError, match="is a file"):
        Statistics(tmp_path / "notes.txt")
    with pytest.raises(EditError, match=r"statistics=neuronwise\.Statistics"):
        EDITORS["rome"].function(model, FACT, statistics=str(tmp_path))
