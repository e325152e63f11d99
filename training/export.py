"""Write what was trained as what the package ships: the mean of checkpoints, of one run or of several.

    python training/export.py src/neuronwise/architectures/builtin_8x8.safetensors \
        RUNS/first/step-900.safetensors RUNS/first/step-1300.safetensors RUNS/second/step-1300.safetensors

Which ones is chosen on Flickr8k's dev part and the validation photos of COCO and of the classes, never on test photos.
Runs are to have begun from the same state; the mean of others says nothing.
"""

import argparse
import json
import pathlib

import torch
from safetensors.torch import load_file, save


def described(checkpoint: pathlib.Path) -> dict:
    """Return a checkpoint's run with its settings and what was validated at its step."""
    step = int(checkpoint.stem.removeprefix("step-"))
    lines = (checkpoint.parent / "validation.jsonl").read_text().splitlines()
    result = next(row for row in map(json.loads, lines) if row["step"] == step)
    settings = json.loads((checkpoint.parent / "options.json").read_text())
    for name in ("coco", "more", "classes", "flickr", "store", "run", "start"):
        settings[name] = pathlib.Path(settings[name]).name
    figures = {key: value for key, value in result.items() if not isinstance(value, list)}
    return {"validation": figures, "options": settings}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=pathlib.Path)
    parser.add_argument("checkpoints", type=pathlib.Path, nargs="+", help="files that speak.py wrote")
    options = parser.parse_args()
    about = [described(checkpoint) for checkpoint in options.checkpoints]
    states = [load_file(checkpoint) for checkpoint in options.checkpoints]
    mean = {name: torch.stack([state[name].float() for state in states]).mean(0).half() for name in states[0]}
    # Written by way of bytes: the file then has the user's ordinary permissions.
    options.target.write_bytes(save(mean, metadata={"checkpoints": json.dumps(about)}))
    print(json.dumps([one["validation"] for one in about]))


if __name__ == "__main__":
    main()
