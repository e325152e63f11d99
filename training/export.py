"""Write what a run trained as what the package ships: the best checkpoint, or the mean of several.

    python training/export.py RUNS/paired src/neuronwise/architectures/builtin_8x8.safetensors [STEP…]

The best is chosen on Flickr8k's dev part and the validation photos of COCO and of the classes, never on test photos.
"""

import argparse
import json
import pathlib

import torch
from safetensors.torch import load_file, save


def selection(result: dict) -> float:
    """Return what a checkpoint is chosen by: what its captions name rightly, and how likely it finds Flickr8k's."""
    named = result["any"] + result["other"] + 0.5 * result["class"] - 0.5 * result["chair_i"]
    return named - result["flickr_loss"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("target", type=pathlib.Path)
    parser.add_argument("steps", type=int, nargs="*", help="checkpoints whose mean is written; default: the best one")
    options = parser.parse_args()
    results = [json.loads(line) for line in (options.run / "validation.jsonl").read_text().splitlines()]
    steps = options.steps or [max(results, key=selection)["step"]]
    figures = [
        {key: value for key, value in result.items() if not isinstance(value, list)}
        for result in results
        if result["step"] in steps
    ]
    settings = json.loads((options.run / "options.json").read_text())
    for name in ("coco", "more", "classes", "flickr", "store", "run", "start"):
        settings[name] = pathlib.Path(settings[name]).name
    metadata = {"validation": json.dumps(figures), "options": json.dumps(settings)}
    states = [load_file(options.run / f"step-{step}.safetensors") for step in steps]
    mean = {name: torch.stack([state[name].float() for state in states]).mean(0).half() for name in states[0]}
    # Written by way of bytes: the file then has the user's ordinary permissions.
    options.target.write_bytes(save(mean, metadata=metadata))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
