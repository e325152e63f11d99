"""What an edit by FiNE costs: `fine` against the same procedure with whole passes, in one run.

    python benchmarks/edit.py DATA/counterfact.json --facts 20

Facts: records with `prompt`, `subject`, `ground_truth` and `target_new` (EasyEdit's field names) whose present answer
the model gives by itself. Both sides choose the same neurons and stop by the same rule; compared are seconds and
whether the answer is the new one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import neuronwise as nw
from neuronwise.edit import fine as fine_module_function
from neuronwise.model.prompt import exact_tokens


@contextmanager
def whole_passes() -> Iterator[None]:
    """Every step computes all layers, as the published procedure does."""
    module: Any = sys.modules[fine_module_function.__module__]
    kept = module.recomputed_from
    module.recomputed_from = lambda model, lowest, inputs: kept(model, 0, inputs)
    try:
        yield
    finally:
        module.recomputed_from = kept


def first_choice(model: nw.Model, prompt: str) -> int:
    with torch.no_grad():
        run = model.run(prompt=prompt, max_new_tokens=0, chat=False)
        return int(model.forward(run.forced_inputs(), rows=[-1])[0, -1].argmax())


def first_token(model: nw.Model, target: str) -> int:
    return exact_tokens(model.tokenizer, model.vocabulary_size, f" {target.strip()}").token_id


def known(model: nw.Model, path: Path, count: int) -> list[nw.Fact]:
    facts = []
    for row in json.loads(path.read_text(encoding="utf-8")):
        if first_choice(model, row["prompt"]) == first_token(model, row["ground_truth"]):
            facts.append(nw.Fact(row["prompt"], row["subject"], row["target_new"], row["ground_truth"]))
            if len(facts) == count:
                break
    return facts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("facts_file", type=Path)
    parser.add_argument("--model", default="builtin-text")
    parser.add_argument("--facts", type=int, default=20)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = nw.load(options.model)
    facts = known(model, options.facts_file, options.facts)
    nw.fine(model, facts[0], steps=1)
    seconds: dict[str, list[float]] = {"fine": [], "whole passes": []}
    success: dict[str, list[bool]] = {"fine": [], "whole passes": []}
    lowest = []
    for fact in facts:
        for name in seconds:
            start = time.perf_counter()
            if name == "fine":
                edit = nw.fine(model, fact)
            else:
                with whole_passes():
                    edit = nw.fine(model, fact)
            seconds[name].append(time.perf_counter() - start)
            with edit.applied(model):
                success[name].append(first_choice(model, fact.text) == first_token(model, fact.target_new))
        lowest.append(min(delta.layer for delta in edit.deltas))
        print(f"{len(lowest)}/{len(facts)} {fact.text} {fact.target_new}", file=sys.stderr)
    ratios = [b / a for a, b in zip(seconds["fine"], seconds["whole passes"], strict=True)]
    print(f"{len(facts)} facts, {torch.get_num_threads()} threads; median lowest layer {statistics.median(lowest)}")
    for name in seconds:
        median = statistics.median(seconds[name])
        print(f"{name}: {median:.2f} s an edit (median), success {sum(success[name])}/{len(facts)}")
    print(f"whole passes take {statistics.median(ratios):.2f} × fine (median; {min(ratios):.2f}–{max(ratios):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
