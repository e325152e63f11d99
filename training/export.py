"""Write a run's best checkpoint as the package's projector.

    python training/export.py RUNS/speak src/neuronwise/architectures/builtin_8x8.safetensors

The best is chosen on Flickr8k's dev part and the validation photos of COCO and of the classes, never on test photos.
"""

import json
import pathlib
import sys

from safetensors.torch import load_file, save


def selection(result: dict) -> float:
    """Return what a checkpoint is chosen by: what its captions name rightly, and how likely it finds Flickr8k's."""
    named = result["any"] + result["other"] + 0.5 * result["class"] - 0.5 * result["chair_i"]
    return named - result["flickr_loss"]


def main() -> None:
    run, target = map(pathlib.Path, sys.argv[1:])
    results = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
    best = max(results, key=selection)
    figures = {key: value for key, value in best.items() if not isinstance(value, list)}
    options = json.loads((run / "options.json").read_text())
    for name in ("coco", "more", "classes", "flickr", "store", "run", "start"):
        options[name] = pathlib.Path(options[name]).name
    metadata = {"validation": json.dumps(figures), "options": json.dumps(options)}
    # Written by way of bytes: the file then has the user's ordinary permissions.
    target.write_bytes(save(load_file(run / f"step-{best['step']}.safetensors"), metadata=metadata))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
