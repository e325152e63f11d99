"""Deletion curves: how much of a known fact's answer is lost when the top neurons of each method are zeroed.

python benchmarks/deletion.py DATA/known-facts.json --out deletion-results --facts 100

A fact counts as known when the first token of its answer is the model's own first choice after the prompt. For each
method the top K neurons are zeroed at the last position; measured is the share of the answer's probability that is
lost, 1 - after / before, and the same on other facts (of another answer) with the same neurons. One line of
facts.jsonl for each fact: run it again and it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import random
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import neuronwise as nw
from deletion_report import report
from neuronwise.errors import MethodError
from neuronwise.files import write_json
from neuronwise.model.hooks import Hooks
from neuronwise.model.interfere import LastPosition, change_activations
from neuronwise.model.prompt import target_tokens
from neuronwise.neurons import Neuron, NeuronSet

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
VERIFIED = 200  # so many of the contrastive, normalized set are ranked anew by their causal effect
CONTRASTED = "contribution, contrast, normalize"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "contribution": ("contribution", {}),
    "contribution, normalize": ("contribution", {"normalize": True}),
    "contribution, contrast": ("contribution", {"contrast": 10}),
    CONTRASTED: ("contribution", {"contrast": 10, "normalize": True}),
    "log_prob_increase": ("log_prob_increase", {"exact": COUNTS[-1]}),
    "gradient_activation": ("gradient_activation", {}),
    "gradient": ("gradient", {}),
    "integrated_gradients": ("integrated_gradients", {}),
    "activation": ("activation", {}),
    "causal_effect": ("causal_effect", {}),
    "random": ("random", {}),
    "random_same_layers": ("random_same_layers", {}),
}


@dataclass(frozen=True)
class Fact:
    """A prompt and the token that answers it; ``number`` is its place in the file."""

    number: int
    prompt: str
    answer: str
    token_id: int


def read_facts(model: nw.Model, path: Path) -> list[Fact]:
    """Facts as ROME publishes them (prompt, attribute); the answer is its first token, with the space before it."""
    facts = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # answers of several tokens are meant to be scored at the first
        for number, row in enumerate(json.loads(path.read_text(encoding="utf-8"))):
            answer = " " + row["attribute"].strip()
            token = target_tokens(model.tokenizer, model.vocabulary_size, answer).token_id
            facts.append(Fact(number, row["prompt"], answer, token))
    return facts


def known(model: nw.Model, facts: Sequence[Fact], batch: int = 32) -> list[Fact]:
    """The facts whose answer token the model gives by itself as argmax after the prompt."""
    by_length: dict[int, list[tuple[Fact, Tensor]]] = {}
    for fact in facts:
        ids = model.tokenizer(fact.prompt, return_tensors="pt")["input_ids"]
        by_length.setdefault(ids.shape[1], []).append((fact, ids))
    given = []
    for group in by_length.values():
        for start in range(0, len(group), batch):
            part = group[start : start + batch]
            ids = torch.cat([ids for _, ids in part])
            with torch.inference_mode():
                logits = model.forward({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, rows=[-1])[:, -1]
            first = logits.argmax(-1).tolist()
            given += [fact for (fact, _), token in zip(part, first, strict=True) if token == fact.token_id]
    return sorted(given, key=lambda fact: fact.number)


def rank(model: nw.Model, run: Any, token: int, name: str, earlier: dict[str, NeuronSet], seed: int) -> NeuronSet:
    """The neurons of one method, best first."""
    method: str = METHODS[name][0]
    options: dict[str, Any] = METHODS[name][1]
    top = min(COUNTS[-1], model.num_neurons)
    if method == "causal_effect":
        return nw.locate(model, run, target=token, method=method, among=earlier[CONTRASTED][:VERIFIED], top=top)
    if method == "random_same_layers":
        like = earlier[CONTRASTED]
        while True:
            with contextlib.suppress(MethodError):  # a layer with too few neurons for as many others
                return nw.locate(model, run, target=token, method=method, among=like, seed=seed, top=top)
            like = like[: len(like) // 2]
    if method == "random":
        options = {"seed": seed}
    return nw.locate(model, run, target=token, method=method, top=top, **options)


def after_zeroing(
    model: nw.Model, last: LastPosition, token: int, sets: Sequence[Sequence[Neuron]], batch: int = 128
) -> list[float]:
    """The token's probability with each set of neurons zeroed at the last position, a copy for each set."""
    found: list[float] = []
    for start in range(0, len(sets), batch):
        part = sets[start : start + batch]
        zeroed: dict[int, Tensor] = {}
        for copy, neurons in enumerate(part):
            for layer, members in itertools.groupby(sorted(neurons), key=lambda neuron: neuron.layer):
                units = [neuron.unit for neuron in members]
                mask = zeroed.setdefault(layer, torch.zeros(len(part), model.blocks[layer].width, dtype=torch.bool))
                mask[copy, units] = True

        def hooks(active: Hooks, zeroed: dict[int, Tensor] = zeroed, count: int = len(part)) -> None:
            for layer, mask in zeroed.items():
                change_activations(active, model.blocks[layer], functools.partial(_zero, mask=mask), batch=count)

        found += last.evaluate(len(part), hooks).softmax(-1)[:, token].tolist()
    return found


def _zero(activations: Tensor, mask: Tensor) -> Tensor:
    activations[:, -1].masked_fill_(mask.to(activations.device), 0)
    return activations


def measure(model: nw.Model, fact: Fact, others: Sequence[Fact], seed: int) -> dict[str, Any]:
    """All methods on one fact: probabilities after zeroing, on it and on the others, and seconds spent locating."""
    run = model.run(prompt=fact.prompt, max_new_tokens=0, chat=False)
    found: dict[str, NeuronSet] = {}
    seconds = {}
    for name in METHODS:
        start = time.process_time()
        found[name] = rank(model, run, fact.token_id, name, found, seed)
        seconds[name] = time.process_time() - start
    places = [(name, k) for name, neurons in found.items() for k in COUNTS if k <= len(neurons)]
    sets = [found[name].neurons[:k] for name, k in places]
    row: dict[str, Any] = {"fact": asdict(fact), "places": places, "seconds": seconds, "measured": []}
    for one in (fact, *others):
        last = LastPosition(model, model.run(prompt=one.prompt, max_new_tokens=0, chat=False).forced_inputs())
        before = float(last.logits.softmax(-1)[one.token_id])
        after = after_zeroing(model, last, one.token_id, sets)
        row["measured"].append({"number": one.number, "before": before, "after": after})
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description="Deletion curves of all methods on known facts.")
    parser.add_argument("path", type=Path, metavar="FACTS", help="a JSON list of records with prompt and attribute")
    parser.add_argument("--model", default="builtin-text")
    parser.add_argument("--facts", type=int, default=100, help="how many known facts to measure")
    parser.add_argument("--others", type=int, default=5, help="how many other facts show the side effect")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None, help="torch threads; as torch finds it by default")
    parser.add_argument("--out", type=Path, default=Path("deletion-results"))
    parser.add_argument("--figure", type=Path, default=None, help="write the curves there (.svg, .png)")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = nw.load(arguments.model, dtype=torch.float32)
    facts = read_facts(model, arguments.path)
    cached = arguments.out / "known.json"
    if not cached.exists():
        write_json(cached, [fact.number for fact in known(model, facts)])
    given = [facts[number] for number in json.loads(cached.read_text(encoding="utf-8"))]
    print(f"{len(given)} of {len(facts)} answers are the model's own first choice", file=sys.stderr)
    shuffled = random.Random(arguments.seed).sample(given, len(given))
    lines = arguments.out / "facts.jsonl"
    rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()] if lines.exists() else []
    done = {row["fact"]["number"] for row in rows}
    for index, fact in enumerate(shuffled[: arguments.facts]):
        if fact.number in done:
            continue
        choice = random.Random(f"{arguments.seed}/{fact.number}")
        different = [other for other in given if other.token_id != fact.token_id]
        start = time.perf_counter()
        row = measure(model, fact, choice.sample(different, arguments.others), seed=fact.number)
        rows.append(row)
        with lines.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        print(f"{index + 1}/{arguments.facts} {time.perf_counter() - start:.0f} s {fact.prompt!r}", file=sys.stderr)
    about = {
        "model": arguments.model, "seed": arguments.seed, "given": len(given), "asked": len(facts),
        "torch": torch.__version__, "threads": torch.get_num_threads(), "neurons": model.num_neurons,
    }  # fmt: skip
    wanted = {fact.number for fact in shuffled[: arguments.facts]}
    chosen = [row for row in rows if row["fact"]["number"] in wanted]
    print(report(chosen, about, arguments.out / "summary.json", arguments.figure))


if __name__ == "__main__":
    main()
