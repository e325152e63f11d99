"""What people type: the commands with options of every kind, and files that are not what they should be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from fuzz_spoil import NAMES, TEXTS, spoil_file
from fuzz_world import FACT, OWN_TASK, QUICK, World, short
from hypothesis import strategies as st

from neuronwise.cli import app
from neuronwise.edit import EDITORS

SHORT = ("--max-new-tokens", "2")
PHOTO, SAID = ("-m", "photo", "--prompt", "the", *SHORT), ("-m", "text", "--text", "the capital of France is")
# Commands that work, and the files that each needs.
WORKING: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "find photo": (("find", "photo.png", *PHOTO, "--concept", "dog", "--top", "3"), ("photo.png",)),
    "find text": (("find", *SAID, "--target", " Paris", "--top", "3", "--method", "contribution"), ()),
    "find page": (("find", "photo.png", *PHOTO, "--concept", "dog", "--out", "out", "--published"), ("photo.png",)),
    "find data": (("find", "--data", "photos", "--concept", "dog", *PHOTO, "--photos", "1"), ("photos",)),
    "find mask": (("find", "photo.png", *PHOTO, "--concept", "dog", "--mask", "mask.png", "--method", "two_stage"),
                  ("photo.png", "mask.png")),
    "find texts": (("find", "--text-file", "lines.txt", "-m", "text", "--target", " dog", "--top", "3", "--method",
                    "contribution", *SHORT), ("lines.txt",)),
    "lens": (("lens", *SAID, "--target", " Paris"), ()),
    "lens photo": (("lens", "photo.png", *PHOTO, "--concept", "dog", "--out", "lens.svg"), ("photo.png",)),
    "trace": (("trace", *SAID, "--subject", "France", "--target", " Paris", "--samples", "1"), ()),
    "trace photo": (("trace", "photo.png", *PHOTO, "--concept", "dog", "--samples", "1", "--layers", "0"),
                    ("photo.png",)),
    "evidence": (("evidence", "photo.png", *PHOTO, "--concept", "dog", "--out", "out.png"), ("photo.png",)),
    "circuit": (("circuit", *SAID, "--nodes", "3"), ()),
    "circuit photo": (("circuit", "photo.png", *PHOTO, "--concept", "dog", "--nodes", "3", "--out", "out"),
                      ("photo.png",)),
    "index build": (("index", "build", "--data", "photos", "--texts", "text.txt", "--out", "out", *PHOTO),
                    ("photos", "text.txt")),
    "index resume": (("index", "build", "--texts", "text.txt", "--out", "halves/1", "-m", "text", "--shard", "1/2",
                      "--batch-size", "2", "--examples", "3"), ("halves", "text.txt")),
    "index merge": (("index", "merge", "halves/1", "halves/2", "--out", "out"), ("halves",)),
    "index show": (("index", "show", "index", "L1.U3", "-k", "2", "--out", "out.svg"), ("index",)),
    "index locate": (("index", "locate", "index", "dog", "--top", "3"), ("index",)),
    "view export": (("view", "index", "--export", "out", "--photos", "photos"), ("index", "photos")),
    "decode": (("decode", "L1.U3", "-m", "text"), ()),
    "suppress": (("suppress", "photo.png", *PHOTO, "--concept", "dog", "--top", "3", "--method", "contribution"),
                 ("photo.png",)),
    "edit fact": (("edit", "fact", *FACT, "-m", "text", *QUICK, *SHORT), ()),
    "edit facts": (("edit", "facts", "facts.json", "-m", "text", *QUICK, *SHORT), ("facts.json",)),
    "edit swap": (("edit", "swap", "photo.png", "--source", "dog", "--target", "cat", "-m", "photo", *SHORT),
                  ("photo.png",)),
    "edit diff": (("edit", "diff", "edit", "-m", "text"), ("edit",)),
    "edit rome": (("edit", "fact", *FACT, "-m", "text", "--editor", "rome", "--set", "layers=[1]", "--set",
                   "v_num_grad_steps=2", "--statistics", "statistics", *SHORT), ("statistics",)),
    "edit suppress": (("edit", "suppress", "photo.png", "--concept", "dog", "-m", "photo", *SHORT), ("photo.png",)),
    "edit apply": (("edit", "apply", "edit", "-m", "text", "--prompt", "the capital of France is", *SHORT), ("edit",)),
    "evaluate": (("evaluate", "facts.json", "-m", "text", *QUICK, "--others", "0", "--no-free", "--limit", "1",
                  "--out", "out"), ("facts.json",)),
    "evaluated": (("evaluate", "evaluation"), ("evaluation",)),
    "statistics": (("statistics", "text.txt", "--layers", "1", "-m", "text", "--out", "out", "--tokens", "20"),
                   ("text.txt",)),
    "study run": (("study", "run", "suppression.yaml", "--data", "photos", "--out", "out", "--set", "K=[1]"),
                  ("suppression.yaml", "photos")),
    "study resume": (("study", "resume", "study"), ("study", "photos")),
    "study report": (("study", "report", "study"), ("study",)),
    "study merge": (("study", "merge", "parts/1", "parts/2", "--out", "out"), ("parts", "photos")),
    "models": (("models", "llama"), ()),
    "methods": (("methods", "relp"), ()),
    "presets": (("presets", "model"), ("model",)),
    "find heads": (("find", *SAID, "--target", " Paris", "--top", "3", "--method", "contribution", "--heads", "2"), ()),
    "evidence relp": (("evidence", "photo.png", *PHOTO, "--target", " dog", "--by", "relp", "--out", "out.png"),
                      ("photo.png",)),
    "evaluate rows": (("evaluate", "three.json", "-m", "text", *QUICK, "--others", "1", "--no-free", "--sequential",
                       "3", "--every", "1", "--out", "out"), ("three.json",)),
    "evaluate free": (("evaluate", "three.json", "-m", "text", *QUICK, "--others", "0", "--limit", "1", "--protocol",
                       "unke", "--perplexity", "lines.txt", "--out", "out"), ("three.json", "lines.txt")),
    "evaluate like": (("evaluate", "facts.json", "-m", "text", "--editor", "in_context", "--others", "0", "--no-free",
                       "--like", "evaluation", "--out", "out"), ("facts.json", "evaluation")),
    "evaluate tasks": (("evaluate", "three.json", "-m", "text", *QUICK, "--others", "0", "--limit", "1", "--no-free",
                        "--tasks", "own.yaml", "--tasks-limit", "1", "--out", "out"), ("three.json", *OWN_TASK)),
    "compared": (("evaluate", "evaluation", "compared"), ("evaluation", "compared")),
    "edit remove": (("edit", "remove", "several", "--fact", "1", "--out", "out"), ("several",)),
    "explain": (("explain", "L0.U1", "--index", "words", "-m", "words", "--explainer", "words"), ("words",)),
    "neurons export": (("neurons", "export", "set.json", "--form", "transformer_lens", "--out", "out.json"),
                       ("set.json",)),
    "neurons import": (("neurons", "import", "neurons.json", "--out", "out.json", "-m", "model"),
                       ("neurons.json", "model")),
    "check": (("check", "text"), ()),
    "sbu": (("photos", "sbu", "sbu.json", "out", "--timeout", "0.1"), ("sbu.json",)),
    "convert": (("convert", "minigpt4", "model", "--out", "out"), ("model",)),
    **{
        f"editor {name}": (("edit", "fact", *FACT, "-m", "text", "--editor", name, *short(name), *SHORT), ())
        for name in EDITORS
    },
}  # fmt: skip
INDEX = tuple(f"index/{one}" for one in ("index.json", "items.jsonl", "items.safetensors", "layers/L1.safetensors"))
HALF = tuple(f"1/{one}" for one in ("recipe.json", "items.jsonl", "state-000000000/state.json",
                                    "state-000000000/L1.safetensors"))  # fmt: skip
# Their files, spoiled: a command and which of them.
SPOILED: dict[str, tuple[str, tuple[str, ...]]] = {
    "facts": ("evaluate", ("facts.json",)),
    "texts": ("statistics", ("text.txt",)),
    "annotations": ("find data", ("photos/metadata.jsonl",)),
    "masks": ("find mask", ("mask.png",)),
    "edits": ("edit apply", ("edit/edit.json", "edit/deltas.safetensors")),
    "studies": ("study resume", ("study/manifest.json", "study/before.jsonl", "study/cases.jsonl")),
    "reports": ("study report", ("study/manifest.json", "study/before.jsonl", "study/cases.jsonl")),
    "evaluations": (
        "evaluated",
        ("evaluation/manifest.json", "evaluation/before.jsonl", "evaluation/cases.jsonl"),
    ),
    "statistics": ("edit rome", ("statistics/statistics.json", "statistics/moments.safetensors")),
    "lines": ("find texts", ("lines.txt",)),
    "tables": ("edit facts", ("facts.json",)),
    "indexes": ("index show", INDEX),
    "indexed": ("index locate", INDEX),
    "exports": ("view export", INDEX),
    "halves": ("index merge", tuple(f"halves/{one}" for one in HALF)),
    "begun": ("index resume", tuple(f"halves/{one}" for one in HALF)),
    "shards": ("study merge", ("parts/1/manifest.json", "parts/2/before.jsonl", "parts/1/cases.jsonl")),
    "lists": ("sbu", ("sbu.json",)),
    "configurations": ("presets", ("model/config.json",)),
    "compared": ("compared", ("compared/manifest.json", "compared/before.jsonl", "compared/cases.jsonl")),
    "tasks": ("evaluate tasks", ("own.yaml", "own.jsonl")),
    "like": ("evaluate like", ("evaluation/manifest.json", "evaluation/before.jsonl")),
    "removed": ("edit remove", ("several/edit.json", "several/deltas.safetensors")),
    "explained": ("explain", ("words/labels.json", "words/index.json", "words/items.jsonl")),
    "exported": ("neurons export", ("set.json",)),
    "imported": ("neurons import", ("neurons.json", "model/config.json")),
}
WORDS = st.one_of(
    st.sampled_from([text for text in TEXTS if "\0" not in text]),
    st.sampled_from(NAMES),
    st.sampled_from(["1", "3", "0", "-1", "1.5", "9" * 20, "1-3", "0-9999999999", "3,1", "n=1", "n=nan", "top=x",
                     "seed=1", "layer=99", "cpu", "cuda", "float8_e4m3fn", "float16", "relp", "causal_effect", "L1.U3",
                     "L9.U9", "0,0,9,9", "0,0,nan,1", "dog", "self", "none", "lens", "opencv", "folder:x", "mean",
                     "rome", "mquake", "wild", "1,3", "auto", "nnsight", "gpt2-small"]),
)  # fmt: skip


def _options() -> dict[str, list[tuple[str, bool]]]:
    """The options of every command by its path: name, and whether it takes a value."""
    found: dict[str, list[tuple[str, bool]]] = {}

    def walk(command: Any, path: tuple[str, ...]) -> None:
        inner = getattr(command, "commands", {})
        for name, one in inner.items():
            walk(one, (*path, name))
        if inner:
            return
        found[" ".join(path)] = [
            (name, not getattr(one, "is_flag", False))
            for one in command.params
            if one.param_type_name == "option"
            for name in (*one.opts, *one.secondary_opts)
        ]

    walk(typer.main.get_command(app), ())
    return found


OPTIONS = _options()


def options(data: st.DataObject, world: World, parent: Path) -> None:
    """A command that works, with options replaced, added, or left out, and strange files in its folder."""
    argv, files = WORKING[data.draw(st.sampled_from(sorted(WORKING)))]
    words = list(argv)
    path = " ".join(argv[:2]) if " ".join(argv[:2]) in OPTIONS else argv[0]
    for _ in range(data.draw(st.integers(1, 2))):
        if data.draw(st.booleans()):
            words[data.draw(st.integers(len(path.split()), len(words) - 1))] = data.draw(WORDS)
        else:
            name, takes = data.draw(st.sampled_from(OPTIONS[path]))
            words += [name, data.draw(WORDS)] if takes else [name]
    if path != "models" and data.draw(st.integers(0, 9)) == 0:  # without a name it goes through hundreds of them
        del words[data.draw(st.integers(len(path.split()), len(words) - 1))]
    if data.draw(st.booleans()):
        words.append("--json")
    with world.fresh(parent, *files):
        _strange_files()
        world.judge.shell(*words)


def _strange_files() -> None:
    Path("folder").mkdir()
    os.mkfifo("fifo")
    Path("loop").symlink_to("loop")


def of_files(name: str) -> Callable[[st.DataObject, World, Path], None]:
    """What tries a command on spoiled files."""
    command, spoiled = SPOILED[name]

    def tried(data: st.DataObject, world: World, parent: Path) -> None:
        argv, files = WORKING[command]
        with world.fresh(parent, *files) as folder:
            spoil_file(data, folder / data.draw(st.sampled_from(spoiled)))
            world.judge.shell(*argv, *(["--json"] if data.draw(st.booleans()) else []))

    return tried


def recipes(data: st.DataObject, world: World, parent: Path) -> None:
    """A recipe with a key changed."""
    from fuzz_world import RECIPES

    name = f"{data.draw(st.sampled_from(sorted(RECIPES)))}.yaml"
    source = ["--data", "photos"] if "evaluation" not in name else []
    with world.fresh(parent, name, "photos", "facts.json") as folder:
        spoil_file(data, folder / name)
        world.judge.shell("study", "run", name, *source, "--out", "out")


def texts(data: st.DataObject, world: World, parent: Path) -> None:
    """A prompt, a target, a subject and a word of any characters."""
    text = st.one_of(st.sampled_from(TEXTS), st.text(max_size=30), st.sampled_from(["the cat sits", "the dog {}"]))
    said = data.draw(text).replace("\0", "")
    word, more = data.draw(text).replace("\0", ""), data.draw(text).replace("\0", "")
    commands = (
        ("find", "-m", "text", "--text", said, "--target", word, "--top", "2"),
        ("find", "-m", "text", "--text", said, "--concept", word, "--top", "2", *SHORT),
        ("find", "photo.png", "-m", "photo", "--prompt", said, "--concept", word, "--top", "2", *SHORT),
        ("circuit", "-m", "text", "--text", said, "--target", word, "--nodes", "2"),
        ("edit", "fact", "--prompt", said, "--subject", word, "--target", more, "-m", "text", *QUICK, *SHORT),
        ("decode", word, "-m", "text"),
    )
    with world.fresh(parent, "photo.png"):
        world.judge.shell(*data.draw(st.sampled_from(commands)))
