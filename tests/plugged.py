"""Uses what is plugged in, in Python and on the shell; run by a test in a process of its own.

python plugged.py OUT.json FOLDER: FOLDER holds a tiny model, facts and photos; OUT.json gets what was seen.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from shell import shell


def printed(*arguments: object) -> Any:
    return json.loads(shell(*arguments, "--json").stdout)


def main(out: Path, folder: Path) -> None:
    model, seen = ("-m", folder / "model"), {}
    helps = (["find"], ["edit", "fact"], ["evaluate"], ["study", "run"], ["evidence"], ["convert"])
    seen["help"] = {" ".join(command): " ".join(shell(*command, "--help").stdout.split()) for command in helps}

    import numpy as np
    from PIL import Image

    import neuronwise as nw
    from neuronwise.data.photos import load_photos
    from neuronwise.images.inpaint import Inpainter

    loaded = nw.load(folder / "model")
    run = loaded.run(prompt="the capital of France is", max_new_tokens=0, chat=False)
    for name in ("loudest", "activation"):
        found = nw.locate(loaded, run, target=" Paris", method=name, top=None)
        seen[name] = [[str(member.neuron), member.score] for member in found]
    facts = nw.load_facts(folder / "facts.json")
    seen["facts"] = [facts.form, [[case.fact.prompt, case.fact.subject, case.fact.target_new] for case in facts]]
    hole = np.eye(8, dtype=bool)
    seen["inpainted"] = list(Inpainter("blank")(Image.new("RGB", (8, 8)), hole).getpixel((3, 3)))  # type: ignore[arg-type]
    seen["photos"] = [photo.captions[0] for photo in load_photos(folder / "photos")]
    text = ("find", "--text", "the capital of France is", "--target", " Paris", "--method", "loudest", "--top", 5)
    seen["find"] = printed(*text, *model, "--out", folder / "page")
    seen["presets"] = printed("presets", folder / "model")
    seen["preset"] = printed("presets", folder / "model", "--editor", "nudge")
    seen["methods"] = printed("methods", "loudest")
    seen["exported"] = printed("neurons", "export", "L1.U5", "--form", "slashes")["neurons"]
    fact = ("edit", "fact", "--prompt", "the capital of {} is", "--subject", "France", "--target", "house")
    seen["edit"] = printed(*fact, *model, "--editor", "nudge", "--set", "step=3")
    seen["evaluate"] = printed(
        "evaluate", folder / "facts.json", *model, "--editor", "nudge", "--others", 1, "--protocol", "begins",
        "--out", folder / "evaluated",
    )  # fmt: skip
    study = ("study", "run", folder / "recipe.yaml", "--data", folder / "photos", "--out", folder / "study")
    done = shell(*study, "--executor", "timed", "--json")
    seen["study"], seen["log"] = json.loads(done.stdout), done.stderr
    asked = (folder / "length.yaml", "--data", folder / "photos", "--out", folder / "length")
    seen["length"] = printed("study", "run", *asked)
    shell("study", "report", folder / "length")
    compared = ("--data", folder / "facts.json", "--out", folder / "compared")
    seen["compared"] = printed("study", "run", folder / "evaluation.yaml", *compared)
    seen["length page"] = next((folder / "length").rglob("*.html")).read_text(encoding="utf-8")
    from neuronwise.measure.captions import caption_scores

    seen["metric"] = caption_scores(["a dog on mats"], [["a dog on the mat"]], ["shared-words"])
    rows = (folder / "study" / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    seen["cases"] = [json.loads(row) for row in rows]
    seen |= models(folder)
    out.write_text(json.dumps(seen), encoding="utf-8")


def models(folder: Path) -> dict[str, Any]:
    """What is seen of a checkpoint: converted, opened by a name of its own, asked about a photo."""
    from safetensors.torch import load_file, save_file

    import neuronwise as nw

    seen: dict[str, Any] = {"refused": shell("find", "--text", "x", "-m", "lab", expect=2).stderr}
    os.environ["LAB_MODEL"] = str(folder / "model")
    model = nw.load("lab")
    photo = folder / "photos" / "dog0.png"
    run = model.run(image=photo, prompt="the", max_new_tokens=2)
    seen["center"] = nw.evidence(model, run, "dog", by="center").grid.tolist()
    text = nw.Model(model.module, model.tokenizer)
    text.tagger = "capitals"
    seen["nouns"] = [one.word for one in text.run(text="A dog in Paris.", prompt="the", chat=False).concepts]
    (folder / "wrapped").mkdir()
    for file in (folder / "words").iterdir():
        shutil.copy(file, folder / "wrapped")
    weights = load_file(folder / "words" / "model.safetensors")
    save_file({f"module.{name}": tensor for name, tensor in weights.items()}, folder / "wrapped" / "model.safetensors")
    seen["converted"] = printed("convert", "prefixed", folder / "wrapped", "--out", folder / "made")
    made = load_file(folder / "made" / "model.safetensors")
    seen["same"] = made.keys() == weights.keys() and all(made[name].equal(weights[name]) for name in weights)
    return seen


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
