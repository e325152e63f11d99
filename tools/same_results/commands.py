"""Results of the shell: commands with `--json`, and the cases that evaluations and studies keep."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
from pathlib import Path
from typing import Any

from plain import plain, tensors_in
from python import DATA, Results


def shell(*arguments: object) -> Any:
    """`neuronwise ARGUMENTS --json` in this process: the object that it prints."""
    out, err, before, status = io.StringIO(), io.StringIO(), sys.argv, 0
    sys.argv = ["neuronwise", *map(str, arguments), "--json"]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_module("neuronwise", run_name="__main__")
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 0
    finally:
        sys.argv = before
    assert status in (0, 1), f"status {status}: {err.getvalue()}"
    return plain(json.loads(out.getvalue()))


def shell_results(folder: Path, tiny_folder: Path) -> Results:
    small = ("-m", tiny_folder)
    text = ("find", "--text", "the capital of France is", *small, "--top", 20)
    yield "cli/find --text", lambda: shell(*text, "--target", " Paris")
    yield "cli/find --text, shares", lambda: shell(*text, "--target", " Paris", "--normalize", "--contrast", " red")
    yield "cli/find --text, generated", lambda: shell(*text, "--target", " dog", "--max-new-tokens", 3)
    yield "cli/find --text, gradient", lambda: shell(*text, "--target", " Paris", "--method", "gradient")
    yield "cli/decode", lambda: shell("decode", "L1.U5", "L2.U7", *small, "-k", 5)
    yield "cli/models", lambda: shell("models", "mixtral")
    yield "cli/models, photos", lambda: shell("models", "llava")
    yield "cli/presets", lambda: shell("presets", "builtin-text")
    yield "cli/presets, tiny", lambda: shell("presets", tiny_folder)
    yield "cli/check", lambda: shell("check", tiny_folder)
    fact = ("edit", "fact", "--prompt", "the capital of {} is", "--subject", "France", "--target", "house", *small)
    quick = ("--set", "freeze_last=1", "--set", "rate=0.1", "--set", "steps=4", "--max-new-tokens", 3)
    yield "cli/edit fact", lambda: shell(*fact, *quick, "--out", folder / "edit", "--ask", "the cat sits")
    yield "cli/edit apply", lambda: shell("edit", "apply", folder / "edit", "--prompt", "the capital of France is")
    passage = folder / "text.txt"
    passage.write_text("the cat sits on the mat .\n\nthe dog runs in the red house .\n\nParis is the capital .\n\n" * 4)
    moments = folder / "moments"

    def statistics() -> Any:
        done = shell("statistics", passage, "--layers", "1", "--out", moments, *small, "--length", 16)
        return [done, tensors_in(moments)]

    yield "cli/statistics", statistics
    rome = ("--editor", "rome", "--set", "layers=[1]", "--set", "v_num_grad_steps=3", "--statistics", moments)
    yield "cli/edit fact, rome", lambda: shell(*fact, *rome, "--max-new-tokens", 3)
    facts = folder / "facts.json"
    subjects = ("cat", "dog", "France")
    facts.write_text(json.dumps([
        {"case_id": n, "prompt": f"the capital of {subject} is", "subject": subject, "target_new": "red",
         "ground_truth": "Paris", "rephrase_prompt": f"{subject} is", "locality_prompt": "the animal in",
         "locality_ground_truth": "blue"} for n, subject in enumerate(subjects)
    ]))  # fmt: skip
    few = ("--set", "freeze_last=0", "--set", "steps=2", "--others", 2)
    yield "cli/evaluate", lambda: kept("evaluate", facts, *small, *few, out=folder / "evaluated")
    yield "cli/evaluate, built-in", lambda: kept(
        "evaluate", "shipped", "--limit", 2, "--others", 4, "--editor", "fine", "--set", "steps=4",
        out=folder / "shipped",
    )  # fmt: skip


def kept(*arguments: object, out: Path) -> Any:
    """What a command prints, and the rows of the cases that it keeps."""
    printed = shell(*arguments, "--out", out)
    lines = (out / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    return [printed, sorted((plain(json.loads(line)) for line in lines), key=lambda row: json.dumps(row)[:200])]


STUDY: dict[str, Any] = {"model": "builtin", "at_least": 1, "most": 3, "max_new_tokens": 12, "seed": 0}
WORD_METHODS = ["contribution", "gradient_activation", "activation", "random",
                {"method": "random_same_layers", "like": "contribution"}]  # fmt: skip
STUDIES: dict[str, dict[str, Any]] = {
    "suppression": {
        "K": [20, "found"], "held_out": 0.5, "found_on": 2, "without": 2, "metrics": ["bleu-1", "rouge-l"],
        "methods": ["two_stage", "contribution", "random_same_layers"], "concepts": ["pizza", "airplane"],
    },
    "properties": {
        "K": 20, "photos": 2, "decoded_neurons": 3, "tokens": 5, "heat": 10, "sigmas": [1], "noise_K": 5,
        "counts": [1, 5], "images": 2, "methods": [*WORD_METHODS, "two_stage"],
    },
    "localization": {
        "words": 2, "facts": 2, "counts": [1, 10, 100], "mean_over": 4,
        "methods": [*WORD_METHODS, "log_prob_increase", {"method": "causal_effect", "like": "contribution"}],
    },
}  # fmt: skip


def study_results(folder: Path) -> Results:
    for kind, keys in STUDIES.items():
        recipe = folder / f"{kind}.yaml"
        data = {"part": "val2017", "limit": 40 if kind == "suppression" else 10}  # two photos of each concept
        recipe.write_text(json.dumps({"kind": kind, **STUDY, "data": data, **keys}))
        yield (
            f"study/{kind}",
            lambda kind=kind, recipe=recipe: kept(
                "study", "run", recipe, "--data", DATA / "coco-mini", out=folder / "studies" / kind
            ),
        )


def photo_shell_results(photo: Path, word: str) -> Results:
    brief = ("--max-new-tokens", 12, "--concept", word)
    yield "cli/find", lambda: shell("find", photo, *brief, "--top", 30)
    yield "cli/find, target", lambda: shell("find", photo, "--max-new-tokens", 12, "--target", " dog", "--top", 10)
    yield "cli/find, box", lambda: shell("find", photo, *brief, "--box", "40,40,120,120", "--top", 10)
    yield "cli/find, all nouns", lambda: shell("find", photo, "--max-new-tokens", 12, "--top", 5)
    yield "cli/suppress", lambda: shell("suppress", photo, *brief, "--top", 20)
    yield (
        "cli/edit swap",
        lambda: shell(
            "edit", "swap", photo, "--source", word, "--target", "dog", "--set", "steps=6", "--max-new-tokens", 12
        ),
    )
    yield "cli/edit suppress", lambda: shell("edit", "suppress", photo, "--concept", word, "--max-new-tokens", 12)
