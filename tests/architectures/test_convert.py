"""The streaming writer: every tensor once and lazily, resumed after a kill, whole or not at all, wrong input told."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import neuronwise.architectures.convert.writer as writing
from neuronwise.architectures.convert import Plan, Weights, convert, open_weights, taken, write
from neuronwise.architectures.convert.weights import Stored
from neuronwise.errors import ModelError, NonFiniteError
from neuronwise.model.complete import listed

SHARD = 20_000  # bytes: the tiny model has three shards in bfloat16


def config() -> LlamaConfig:
    return LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=64,
    )  # fmt: skip


def plan_of(weights: Weights, **changes: Any) -> Plan:
    """The tiny model's tensors as they are."""
    names = LlamaForCausalLM(config()).state_dict()
    settings: dict[str, Any] = {
        "converter": "tiny", "variant": "tiny LLaMA", "model_class": LlamaForCausalLM, "config": config(),
        "recipes": {name: taken(weights, name) for name in names}, "sources": [weights],
        "companions": lambda folder: None, "dtype": torch.float32,
    }  # fmt: skip
    return Plan(**{**settings, **changes})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("source") / "tiny.pth"
    torch.save({"model": LlamaForCausalLM(config()).state_dict(), "epoch": 3}, file)
    return file


@pytest.fixture
def tensors(source: Path) -> dict[str, torch.Tensor]:
    return torch.load(source, weights_only=True)["model"]


def test_every_tensor_arrives_once_in_the_dtype_asked_for(
    source: Path, tensors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    steps: list[tuple[int, int]] = []
    made = write(
        plan_of(open_weights(source)), tmp_path / "out", dtype=torch.bfloat16, shard_bytes=SHARD,
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    total = 2 * sum(t.numel() for t in tensors.values())
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})
    assert steps[-1] == (total, total)
    assert (made["bytes"], made["tensors"], made["dtype"]) == (total, len(tensors), "bfloat16")
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) == len(made["shards"]) == 3
    assert all(file.stat().st_size < SHARD + 10_000 for file in files)
    opened: Any = LlamaForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    for name, value in opened.state_dict().items():
        assert torch.equal(value, tensors[name].bfloat16())
    assert json.loads((tmp_path / "out/config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]  # nothing of the work is left


def test_a_tensor_is_read_when_its_shard_is_written(source: Path, tmp_path: Path) -> None:
    """Memory holds one shard: what comes later is not read before the earlier file is on the disk."""
    weights, finished = open_weights(source), []

    def watched(name: str) -> Stored:
        def read() -> torch.Tensor:
            finished.append(len(list((tmp_path / ".out.partial/made").glob("*.safetensors"))))
            return weights[name].read()

        return dataclasses.replace(weights[name], read=read)

    watching = Weights(weights.path, weights.files, {name: watched(name) for name in weights.tensors})
    made = write(plan_of(watching), tmp_path / "out", shard_bytes=SHARD)
    sizes = [len(load_file(tmp_path / "out" / name)) for name in made["shards"]]
    assert finished == [number for number, size in enumerate(sizes) for _ in range(size)]


def test_parts_fp32_and_what_is_made_of_two(source: Path, tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    class Kept(LlamaForCausalLM):
        _keep_in_fp32_modules = ["norm"]

    weights = open_weights(source)
    plan = plan_of(weights, model_class=Kept)
    name = "model.layers.0.mlp.up_proj.weight"
    halves = (name, "model.layers.1.mlp.up_proj.weight")
    plan.recipes[name] = taken(weights, *halves, make=lambda a, b: torch.cat([a[:24], b[24:]]))  # type: ignore[index]
    write(plan, tmp_path / "out", dtype=torch.float16)
    made = load_file(tmp_path / "out/model.safetensors")
    assert made["model.norm.weight"].dtype == torch.float32
    assert made["lm_head.weight"].dtype == torch.float16
    both = torch.cat([tensors[halves[0]][:24], tensors[halves[1]][24:]])
    assert torch.equal(made[name], both.half())


# Dies with a shard in hand.
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import neuronwise.architectures.convert.writer as writing
from neuronwise.architectures.convert import open_weights, write
from architectures.test_convert import SHARD, plan_of
kept, save = [], writing._to_disk
def dies(path):
    if path.name.startswith(".model-00003"): os.kill(os.getpid(), signal.SIGKILL)
    save(path)
writing._to_disk = dies
write(plan_of(open_weights(sys.argv[1])), sys.argv[2], shard_bytes=SHARD)
"""


def test_a_killed_conversion_goes_on_after_its_last_whole_shard(
    source: Path, tensors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    out, partial = tmp_path / "out", tmp_path / ".out.partial/made"
    here = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", KILLED, source, out, here], timeout=300, check=False)
    assert done.returncode == -9
    assert not out.exists()
    (in_hand,) = partial.glob("*.safetensors.*.partial")
    assert in_hand.name.startswith(".model-00003-")
    damaged, whole = sorted(partial.glob("*.safetensors"))
    before = whole.stat().st_mtime_ns
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    made = write(plan_of(open_weights(source)), out, shard_bytes=SHARD)
    assert made["resumed_shards"] == 1  # the damaged one is made anew
    assert (out / whole.name).stat().st_mtime_ns == before
    written = open_weights(out)
    assert all(torch.equal(written[name].read(), value) for name, value in tensors.items())
    assert list(tmp_path.iterdir()) == [out]


def test_what_was_begun_from_other_parts_is_not_gone_on_with(source: Path, tmp_path: Path, cut: Callable) -> None:
    cut(plan_of(open_weights(source)), tmp_path / "out")
    other = tmp_path / "other.pth"
    torch.save({k: v + 1 for k, v in torch.load(source, weights_only=True)["model"].items()}, other)
    made = write(plan_of(open_weights(other)), tmp_path / "out", shard_bytes=SHARD)
    assert made["resumed_shards"] == 0
    assert cut.count == 1  # type: ignore[attr-defined]


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[Plan, Path], None]:
    """Begin a conversion and cut it off after its first shard, as Ctrl-C does."""

    def begin(plan: Plan, out: Path) -> None:
        def stop(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write(plan, out, shard_bytes=SHARD, progress=stop)
        begin.count = len(list((out.with_name(f".{out.name}.partial") / "made").glob("*.safetensors")))  # type: ignore[attr-defined]

    return begin


def test_missing_unexpected_and_misshapen_tensors_are_told_at_once(source: Path, tmp_path: Path) -> None:
    weights = open_weights(source)
    tensors = dict(weights.tensors)
    for layer in range(3):
        del tensors[f"model.layers.{layer}.self_attn.q_proj.weight"]
    del tensors["lm_head.weight"]
    tensors["extra.bias"] = tensors["model.norm.weight"]
    tensors["left.out"] = tensors["model.norm.weight"]
    tensors["model.norm.weight"] = dataclasses.replace(tensors["model.norm.weight"], shape=(31,))
    bad = Weights(weights.path, weights.files, tensors)
    with pytest.raises(ModelError) as caught:
        write(plan_of(bad, ignored={bad: ["^left"]}), tmp_path / "out")
    assert str(caught.value) == (
        "These parts make no tiny LLaMA: tiny.pth lacks model.layers.0-2.self_attn.q_proj.weight, lm_head.weight; "
        "tiny.pth has, unexpected, extra.bias; in tiny.pth model.norm.weight is 31 instead of 32. Nothing was written."
    )
    assert not list(tmp_path.iterdir())


def test_numbers_that_do_not_survive_are_refused(source: Path, tmp_path: Path) -> None:
    weights = open_weights(source)
    plan = plan_of(weights)
    plan.recipes["model.norm.weight"] = taken(weights, "model.norm.weight", make=lambda gain: gain * 1e6)  # type: ignore[index]
    with pytest.raises(NonFiniteError, match=r"model\.norm\.weight is not finite in torch\.float16"):
        write(plan, tmp_path / "new" / "out", dtype=torch.float16, shard_bytes=SHARD)
    assert not list(tmp_path.iterdir())


def test_what_does_not_open_as_planned_is_not_kept(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = writing._write_shard

    def wrong(partial: Path, name: str, content: list[Any]) -> str:
        digest = save(partial, name, content)
        save_file({**load_file(partial / name), "more": torch.zeros(1)}, partial / name, metadata={"format": "pt"})
        return digest

    monkeypatch.setattr(writing, "_write_shard", wrong)
    with pytest.raises(ModelError, match="not what was planned: more"):
        write(plan_of(open_weights(source)), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_or_not_empty_and_a_full_disk(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: Callable
) -> None:
    plan, out = plan_of(open_weights(source)), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(ModelError, match="is there already; name a new folder"):
        write(plan, out)
    (out / "mine.txt").unlink()
    cut(plan, out)
    lock = (tmp_path / ".out.partial/lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(ModelError, match="is being written by another conversion"):
        write(plan, out, shard_bytes=SHARD)
    lock.close()
    with monkeypatch.context() as patch:
        patch.setattr(writing.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
        with pytest.raises(ModelError, match=r"needs .* GB more; the disk has 1e-08 GB left"):
            write(plan, out, shard_bytes=SHARD)
    assert write(plan, out, shard_bytes=SHARD)["resumed_shards"] == 1  # neither has cost what was finished


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is a pointer of git-lfs"),
        (b"PK\x03\x04 no archive", "is damaged"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes, said: str) -> None:
    for name in ("a.pth", "b.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=said):
            open_weights(tmp_path / name)


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> Any:
            return print, ("run",)

    torch.save({"model": {"a": Bad()}}, tmp_path / "bad.pth")
    with pytest.raises(ModelError, match="holds more than tensors"):
        open_weights(tmp_path / "bad.pth")


def test_cut_off_files_and_folders(source: Path, tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    (tmp_path / "cut.pth").write_bytes(source.read_bytes()[:20_000])
    with pytest.raises(ModelError, match=r"cut\.pth' is damaged or downloaded in part"):
        open_weights(tmp_path / "cut.pth")
    folder = tmp_path / "folder"
    LlamaForCausalLM(config()).save_pretrained(folder, max_shard_size="30KB")
    first, *_ = sorted(folder.glob("*.safetensors"))
    first.write_bytes(first.read_bytes()[:-8])
    with pytest.raises(ModelError, match="is damaged or downloaded in part"):
        open_weights(folder)
    first.unlink()
    with pytest.raises(
        ModelError, match=rf"downloaded in part: 1 of its \d files of weights is not there \({first.name}\)"
    ):
        open_weights(folder)
    (folder / "model.safetensors.index.json").unlink()  # the names of the others say how many there are
    with pytest.raises(ModelError, match=f"is not there .{first.name}"):
        open_weights(folder)
    with pytest.raises(ModelError, match="There is no file or folder"):
        open_weights(tmp_path / "nowhere")


def test_names_of_layers_are_written_once() -> None:
    names = [f"blocks.{i}.norm.bias" for i in (0, 1, 2, 5)] + ["head", "blocks.7.mlp.bias"]
    assert listed(names) == "blocks.0-2+5.norm.bias, head, blocks.7.mlp.bias"


def test_unknown_converters_are_told_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no converter 'gpt-5'; the converters are minigpt4, mplug_owl2"):
        convert("gpt-5", [], tmp_path / "out")
