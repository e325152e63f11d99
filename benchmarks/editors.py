"""The editors side by side: an equal search for each, then the comparison, the ablations and many edits at once.

    python benchmarks/editors.py search     --out RUNS --data DATA
    python benchmarks/editors.py compare    --out RUNS --data DATA --limit 40
    python benchmarks/editors.py ablate     --out RUNS --data DATA
    python benchmarks/editors.py sequential --out RUNS --data DATA
    python benchmarks/editors.py report     --out RUNS > docs/results/editors.md     (tables only, nothing is run)

Facts: the shipped ones, and those records of DATA/counterfact-2000.json and DATA/known-facts.json whose answer the
model gives by itself. The first of each, in an order drawn by a seed, are for the search alone and left out of
everything else. Every editor gets the same number of tries: its preset for small models, then settings drawn from its
grid; the best harmonic mean of success, paraphrases, locality and other facts unchanged goes on. Key statistics are
gathered from texts that the model samples itself, or from --text FILE. All of it is resumable.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import neuronwise as nw
from editors_report import print_report
from neuronwise.data.facts import FactCase, load_facts
from neuronwise.edit.editors import EDITORS
from neuronwise.edit.memory.gather import gather_statistics
from neuronwise.edit.memory.statistics import ABOUT, Statistics
from neuronwise.files import write_json
from neuronwise.measure import ask, ask_case, means, measure_edit, others_of
from neuronwise.study import evaluate, known_cases
from neuronwise.study.store import read_before
from specific import TRIED

FOR_SEARCH = 3  # facts of each set
STARTS = "The In A I He She It We On When After This For One As There"
OTHERS = 20  # other facts that are asked before and after each edit
FEWEST = 20  # cases measured where fewer edits than that are kept at once
FIGURES = ("success_forced", "generality_forced", "locality_forced", "others_unchanged_forced")

RANDOM = "fine, random neurons"

# name → (editor, fixed settings, grid)
CONTENDERS: dict[str, tuple[str, dict[str, Any], dict[str, list[Any]]]] = {}


def contender(name: str, editor: str, fixed: dict[str, Any] | None = None, **grid: list[Any]) -> None:
    CONTENDERS[name] = (editor, fixed or {}, grid)


contender("fine", "fine", rate=[1e-3, 2e-3, 5e-3, 1e-2], n=[3, 5, 10, 20], freeze_last=[0, 3, 6])
contender(RANDOM, "fine", {"neurons": "random"})  # the control: whatever serves "fine", with random neurons
contender("rome", "rome", layers=[(3,), (5,), (8,), (12,), (16,)], v_lr=[0.1, 0.5], v_num_grad_steps=[15, 25],
          clamp_norm_factor=[1.0, 2.0, 4.0])  # fmt: skip
SPREAD = [(4, 5, 6, 7, 8), (6, 7, 8), (8, 9, 10, 11, 12), (12, 13, 14)]
for method in ("memit", "pmet"):
    contender(method, method, layers=SPREAD, mom2_update_weight=[15.0, 150.0, 1500.0, 15000.0],
              clamp_norm_factor=[0.75, 2.0, 4.0])  # fmt: skip
contender("alphaedit", "alphaedit", layers=SPREAD, v_lr=[0.1, 0.5], v_num_grad_steps=[15, 25],
          clamp_norm_factor=[0.75, 2.0, 4.0])  # fmt: skip
contender("fine_specific", "fine_specific", depth=[6 / 30, 8 / 30, 10 / 30, 14 / 30], n=[100, 200, 400],
          goal=[3.0, 5.0, 7.0])  # fmt: skip
contender("knowledge_neurons", "knowledge_neurons", threshold=[0.1, 0.2, 0.3], lambda_new=[2.0, 4.0, 8.0, 16.0],
          at_most=[5, 10, 20], signed=[False, True])  # fmt: skip
for mode in ("L", "M"):
    contender(f"fine_tune {mode}", "fine_tune", {"mode": mode}, layer=[4, 8, 12, 16, 20, 24], rate=[1e-4, 5e-4, 2e-3],
              norm_constraint=[5e-5, 5e-4, 2e-3, None])  # fmt: skip


def sets(model: nw.Model, options: argparse.Namespace) -> dict[str, list[FactCase]]:
    """Known facts of each set in an order drawn by the seed; which are known is asked once and kept."""
    sources: dict[str, Sequence[FactCase]] = {"shipped": load_facts("shipped").cases}
    if options.data is not None:
        sources["counterfact"] = load_facts(options.data / "counterfact-2000.json").cases
        sources["known facts"] = load_facts(options.data / "known-facts.json", seed=options.seed).cases
    found = {}
    for name, source in sources.items():
        kept = options.out / f"known {name}.json"
        if kept.is_file():
            ids = set(json.loads(kept.read_text()))
            cases = [case for case in source if case.id in ids]
        else:
            cases = known_cases(model, source)
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, [case.id for case in cases])
        print(f"{name}: {len(cases)} of {len(source)} records are known to the model", file=sys.stderr)
        found[name] = random.Random(options.seed).sample(cases, len(cases))
        if name == "counterfact":
            # What the specific recipe was developed on (see specific.py) measures nothing: only the search sees it.
            order = list(cases)
            random.Random(0).shuffle(order)
            seen = {case.id for case in order[:TRIED]}
            first, rest = found[name][:FOR_SEARCH], found[name][FOR_SEARCH:]
            found[name] = [*first, *(case for case in rest if case.id not in seen)]
    return found


def left_for_search(found: dict[str, list[FactCase]]) -> list[FactCase]:
    return [case for cases in found.values() for case in cases[:FOR_SEARCH]]


def tries(name: str, count: int, seed: int) -> list[dict[str, Any]]:
    """The preset, then ``count - 1`` different draws from the grid."""
    _, fixed, grid = CONTENDERS[name]
    generator = random.Random(f"{seed} {name}")
    chosen: list[dict[str, Any]] = [{}]
    for _ in range(1000):
        draw = {key: generator.choice(values) for key, values in grid.items()}
        if len(chosen) < count and draw and draw not in chosen:
            chosen.append(draw)
    return [{**fixed, **one} for one in chosen]


def quality(means: dict[str, float]) -> float:
    """Harmonic mean of the four figures that an editor shall have at once."""
    values = [means.get(name, 0.0) for name in FIGURES]
    return 0.0 if min(values) <= 0 else len(values) / sum(1 / value for value in values)


def given(editor: str, statistics: Any) -> dict[str, Any]:
    return {"statistics": statistics} if EDITORS[editor].statistics and statistics is not None else {}


def search(options: argparse.Namespace, model: nw.Model, found: dict[str, list[FactCase]], statistics: Any) -> None:
    folder = options.out / "search"
    folder.mkdir(parents=True, exist_ok=True)
    cases = left_for_search(found)
    before = {case.id: ask_case(model, case, free=False) for case in cases}
    rest = [case for known in found.values() for case in known[FOR_SEARCH:]]
    drawn = random.Random(options.seed).sample(rest, min(len(rest), OTHERS))
    others = ask(model, others_of([case.fact for case in drawn]), free=False)
    for name in chosen(options):
        if name == RANDOM:
            continue
        path = folder / f"{name}.json"
        rows = json.loads(path.read_text()) if path.is_file() else []
        for changes in tries(name, options.tries, options.seed)[len(rows) :]:
            editor = EDITORS[CONTENDERS[name][0]]
            figures, failed, start = [], 0, time.process_time()
            for case in cases:
                try:
                    edit = editor.function(model, case.fact, **changes, **given(CONTENDERS[name][0], statistics))
                    figures.append(measure_edit(model, case, edit, before=before[case.id], others=others, free=False))
                except nw.NeuronwiseError as error:
                    failed += 1
                    figures.append(dict.fromkeys(FIGURES, 0.0))  # an editor that fails is worth nothing here
                    print(f"{name} {changes}: {case.fact.text}: {error}", file=sys.stderr)
            row = {"changes": changes, "quality": quality(means(figures)), "failed": failed, "means": means(figures)}
            row["cpu_seconds"] = (time.process_time() - start) / len(cases)
            rows.append(row)
            write_json(path, rows)
            shown = ", ".join(f"{row['means'].get(key, 0):.2f}" for key in FIGURES)
            print(f"{name} {changes}: {row['quality']:.3f} ({shown}; {row['cpu_seconds']:.1f} s)", file=sys.stderr)


def best(options: argparse.Namespace, name: str) -> dict[str, Any]:
    if name == RANDOM:
        return {**best(options, "fine"), **CONTENDERS[RANDOM][1]}
    rows = json.loads((options.out / f"search/{name}.json").read_text())
    changes = max(rows, key=lambda row: row["quality"])["changes"]
    return {key: tuple(value) if isinstance(value, list) else value for key, value in changes.items()}


def compare(options: argparse.Namespace, model: nw.Model, found: dict[str, list[FactCase]], statistics: Any) -> None:
    for label, cases in found.items():
        for name in chosen(options):
            editor = CONTENDERS[name][0]
            _run(options, model, cases, editor, best(options, name), f"compare/{label}/{name}",
                 given(editor, statistics), fluency=options.fluency)  # fmt: skip
            if name == "fine" and best(options, name):
                _run(options, model, cases, editor, {}, f"compare/{label}/fine as published", {},
                     fluency=options.fluency)  # fmt: skip


ABLATIONS: dict[str, dict[str, Any]] = {
    "as published": {},
    "n = 1": {"n": 1},
    "n = 3": {"n": 3},
    "n = 10": {"n": 10},
    "n = 20": {"n": 20},
    "no frozen layers": {"freeze_last": 0},
    "frozen: last 6": {"freeze_last": 6},
    "without KL (α = 0)": {"alpha": 0.0},
    "without repetition (β = 0)": {"beta": 0.0},
    "without norm (γ = 0)": {"gamma": 0.0},
    "layer 8 alone": {"layer": 8},
    "layer 16 alone": {"layer": 16},
    "layer 24 alone": {"layer": 24},
    "random neurons": {"neurons": "random"},
    "rate 1e-3": {"rate": 1e-3},
}


def ablate(options: argparse.Namespace, model: nw.Model, found: dict[str, list[FactCase]], statistics: Any) -> None:
    for label, cases in found.items():
        for name, changes in ABLATIONS.items():
            _run(options, model, cases, "fine", changes, f"ablate/{label}/{name}", {})


def sequential(options: argparse.Namespace, model: nw.Model, found: dict[str, list[FactCase]], statistics: Any) -> None:
    """Many edits kept at once: facts of all sets, with different subjects."""
    pool: dict[str, FactCase] = {}
    for cases in found.values():
        for case in cases[FOR_SEARCH:]:
            pool.setdefault(case.fact.subject, case)
    cases = random.Random(options.seed).sample(list(pool.values()), min(len(pool), max(options.at_once)))
    for number in options.at_once:
        measured = min(len(cases), max(number, FEWEST))
        for name in chosen(options):
            editor = CONTENDERS[name][0]
            _run(options, model, cases[:measured], editor, best(options, name), f"sequential/{number}/{name}",
                 given(editor, statistics), skip=0, sequential=number, free=False)  # fmt: skip


def _run(
    options: argparse.Namespace,
    model: nw.Model,
    cases: Sequence[FactCase],
    editor: str,
    changes: dict[str, Any],
    where: str,
    more: dict[str, Any],
    skip: int = FOR_SEARCH,
    **choices: Any,
) -> None:
    if options.first:  # in a folder of its own, which the report joins
        part, _, rest = where.partition("/")
        where, skip = f"{part} from {options.first}/{rest}", skip + options.first
    kept = list(cases[skip:])
    limit = min(len(kept), options.limit) if options.limit else len(kept)
    siblings = (options.out / where).parent
    like = next((path for path in sorted(siblings.glob("*")) if complete(path, limit)), None)
    result = evaluate(model, kept, editor, like=like, out=options.out / where, limit=limit, seed=options.seed,
                      others=OTHERS, changes=changes, **more, **choices)  # fmt: skip
    print(f"{where}: {len(result.rows)} cases, {len(result.failed)} failed", file=sys.stderr)


def complete(folder: Path, limit: int) -> bool:
    """Whether another editor's folder holds all answers before the edits, to be taken over."""
    rows = read_before(folder) if (folder / "before.jsonl").is_file() else []
    return sum(row["part"] == "case" for row in rows) >= limit


def chosen(options: argparse.Namespace) -> list[str]:
    return options.editors or list(CONTENDERS)


def statistics_of(options: argparse.Namespace, model: nw.Model) -> Any:
    """Key statistics of every layer that a grid names, gathered once."""
    folder = options.out / "statistics"
    if (folder / ABOUT).is_file():
        return Statistics(folder)
    layers = sorted(
        {layer for _, _, grid in CONTENDERS.values() for value in grid.get("layers", []) for layer in value}
    )
    text = options.text or sampled(model, options.out / "sampled.jsonl", options.tokens, options.seed)
    return gather_statistics(model, text, layers, folder, tokens=options.tokens)


def sampled(model: nw.Model, path: Path, tokens: int, seed: int, length: int = 64, batch: int = 64) -> Path:
    """Text that the model itself makes up: what it reads most naturally, without any data."""
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    starts = [model.tokenizer(word)["input_ids"][:1] for word in STARTS.split()]
    rows: list[str] = []
    while len(rows) * length < 1.1 * tokens:
        ids = torch.tensor((starts * batch)[:batch])
        made = model.module.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            max_new_tokens=length, pad_token_id=0,
        )  # fmt: skip
        rows += [json.dumps({"text": model.decode_ids(row.tolist())}) for row in made]
        print(f"sampled {len(rows)} texts", file=sys.stderr)
    path.write_text("\n".join(rows) + "\n")
    return path


STEPS = {"search": search, "compare": compare, "ablate": ablate, "sequential": sequential}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=[*STEPS, "report"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--text", type=Path, help="what key statistics are gathered from")
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--model", default="builtin-text")
    parser.add_argument("--editors", nargs="*", choices=list(CONTENDERS))
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--limit", type=int, help="cases of each set")
    parser.add_argument("--first", type=int, default=0, help="go on with this case of each set; the report joins them")
    parser.add_argument("--at-once", type=int, nargs="*", default=[1, 10, 50, 100])
    parser.add_argument("--fluency", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.step == "report":
        print_report(options.out, [*CONTENDERS, *ABLATIONS])
        return 0
    model = nw.load(options.model)
    wanted = options.step != "ablate" and any(EDITORS[CONTENDERS[name][0]].statistics for name in chosen(options))
    statistics = statistics_of(options, model) if wanted else None
    STEPS[options.step](options, model, sets(model, options), statistics)
    return 0


if __name__ == "__main__":
    sys.exit(main())
