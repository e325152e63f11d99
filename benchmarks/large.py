"""What finding, suppressing and editing cost on a large model: seconds, and peak memory over the weights, in one run.

python benchmarks/large.py --shape llava-1.5-7b --device cuda    # random weights in that shape, bfloat16
python benchmarks/large.py --model MODEL --device-map auto       # a checkpoint, on as many devices as it takes
python benchmarks/large.py --shape tiny                          # the same in seconds, on a CPU

Every task is run once before it is measured. Memory is the peak over what is held before, the weights among it: of
all GPUs that hold the model, else of the process. An edit's seconds hold its search alone, applying and reverting are
rows of their own; in random weights a "fact" means nothing, so only the cost is measured, and the steps taken are
told with it.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import neuronwise as nw
from find import weight_bytes
from neuronwise import edit as editing
from neuronwise import read
from neuronwise.data.facts import Fact
from neuronwise.edit.presets import family
from neuronwise.files import write_json
from neuronwise.images import open_image
from neuronwise.measure.cost import costs
from shapes import TEXT, random_model

KNOWN = Fact("The capital of {} is", "France", "Rome")


@dataclass
class Task:
    """``run`` is measured; ``outcome`` says in a word what came of it."""

    run: Callable[[], Any]
    outcome: Callable[[Any], str] = lambda result: ""


def tasks(model: nw.Model, image: Image.Image, fact: Fact, length: int, editors: list[str]) -> dict[str, Task]:
    """What is measured, in this order."""
    run = model.run(image=image, max_new_tokens=length, heat=True)
    nouns = [concept.word for concept in run.concepts]
    if not nouns:
        raise SystemExit(f"large: the model names nothing in the photo: {run.text!r}")
    found = nw.locate(model, run, nouns[0], top=50)
    other = model.decode_ids([fact_word(model, fact)]).strip()
    made: dict[str, Task] = {
        "generate": Task(
            lambda: model.run(image=image, max_new_tokens=length), lambda r: f"{len(r.output_ids)} tokens"
        ),
        "find and heatmaps": Task(lambda: find(model, image, length), lambda f: f"{len(f.concepts)} nouns"),
        "locate, normalized": Task(lambda: nw.locate(model, run, nouns[0], normalize=True, top=50)),
        "suppress": Task(lambda: suppressed(model, run, found)),
        "swap": Task(
            lambda: nw.swap(model, run, nouns[0], other, neurons=found, generate=False, steps=10),
            lambda edit: f"{edit.record.get('steps')} steps",
        ),
    }
    for name in editors:
        editor = editing.EDITORS[name].function
        changes = {"freeze_last": 1} if name == "fine" and model.num_layers <= 3 else {}
        made[name] = Task(
            lambda editor=editor, changes=changes: editor(model, fact, **changes), lambda edit: steps_of(edit.record)
        )
    edit = editing.suppress_neurons(model, found)
    made["apply and revert"] = Task(lambda: there_and_back(model, edit), lambda _: f"{edit.parameters_changed} numbers")
    return made


def find(model: nw.Model, image: Image.Image, length: int) -> Any:
    found = read.find(model, model.run(image=image, max_new_tokens=length, heat=True), method="contribution", top=100)
    for concept in found.concepts:
        if concept.heat is not None:
            concept.heat.image()
    return found


def suppressed(model: nw.Model, run: nw.Run, neurons: nw.NeuronSet) -> str:
    with nw.suppress(model, neurons):
        return model.run(run.image, run.prompt, max_new_tokens=run.max_new_tokens).text


def there_and_back(model: nw.Model, edit: nw.Edit) -> None:
    edit.apply(model)
    edit.revert(model)


def steps_of(record: Any) -> str:
    if "values" in record:
        return f"{record['values'][0]['steps']} steps"
    return f"{record['steps']} steps" if isinstance(record.get("steps"), int) else ""


def fact_word(model: nw.Model, fact: Fact) -> int:
    """The first token of the new target."""
    return model.tokenizer(fact.target_new, add_special_tokens=False)["input_ids"][0]


def made_up_fact(model: nw.Model) -> Fact:
    """Words of a made-up vocabulary: what the model says behind them is random, and so is what it shall say."""
    words = model.tokenizer.convert_ids_to_tokens([30, 33, 36, 60])
    return Fact(f"{words[1]} {{}} {words[2]}", words[0], words[3])


def measure(model: nw.Model, made: dict[str, Task], repeats: int) -> dict[str, dict[str, Any]]:
    """Seconds of each round, the largest peak in bytes (None where the system does not tell), and what came of it."""
    result: dict[str, dict[str, Any]] = {}
    for name, task in made.items():
        outcome = task.outcome(task.run())
        seconds, peaks = [], []
        for _ in range(repeats):
            gc.collect()
            with costs(model) as cost:
                task.run()
            seconds.append(cost.seconds)
            peaks.append(cost.peak_memory)
        known = [peak for peak in peaks if peak is not None]
        result[name] = {"seconds": seconds, "memory": max(known, default=None), "outcome": outcome}
        print(f"{name}: {statistics.median(seconds):.2f} s", file=sys.stderr)
    return result


def table(result: dict[str, dict[str, Any]], weights: int) -> str:
    lines = [
        "| | seconds, median (least–most) | peak memory over the weights | of the weights | |",
        "|---|---|---|---|---|",
    ]
    for name, row in result.items():
        seconds, memory = row["seconds"], row["memory"]
        size = "–" if memory is None else f"{memory / 1e6:.0f} MB"
        share = "–" if memory is None else f"{memory / weights:.1%}"
        spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f}–{max(seconds):.2f})"
        lines.append(f"| {name} | {spread} | {size} | {share} | {row['outcome']} |")
    return "\n".join([*lines, "", f"Weights: {weights / 1e6:.0f} MB."])


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds and memory of finding, suppressing and editing.")
    parser.add_argument("--model", help="a checkpoint; --shape in its place makes random weights")
    parser.add_argument("--shape", choices=sorted(TEXT))
    parser.add_argument("--image", type=Path, help="scikit-image's cat when left out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=16, help="at most so many are generated")
    parser.add_argument("--editors", nargs="*", default=["fine", "rome"], choices=sorted(editing.EDITORS))
    parser.add_argument("--device", default="cpu", help="of random weights")
    parser.add_argument("--device-map", help="of a checkpoint, such as auto")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, help="torch threads; as torch finds it by default")
    parser.add_argument("--json", type=Path, help="write all figures there")
    arguments = parser.parse_args()
    if (arguments.model is None) == (arguments.shape is None):
        raise SystemExit("large: name either --model or --shape.")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype)
    if arguments.shape:
        model = random_model(arguments.shape, dtype, arguments.device)
        fact = made_up_fact(model)
    else:
        model, fact = nw.load(arguments.model, dtype=dtype, device_map=arguments.device_map), KNOWN
    path = arguments.image
    if path is None:
        import skimage

        path = Path(skimage.__file__).parent / "data" / "chelsea.png"
    made = tasks(model, open_image(path), fact, arguments.tokens, arguments.editors)
    result, weights = measure(model, made, arguments.repeats), weight_bytes(model)
    devices = sorted({str(p.device) for p in model.module.parameters()})
    if arguments.json:
        about = {"model": model.name, "devices": devices, "torch": torch.__version__, "command": sys.argv[1:]}
        content = {"about": about, "weights": weights, "tasks": result}
        write_json(arguments.json, content)
    print(f"{model.name}, {arguments.dtype}, on {', '.join(devices)}, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}; presets of the family {family(model)}\n")  # fmt: skip
    print(table(result, weights))


if __name__ == "__main__":
    main()
