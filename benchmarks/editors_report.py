"""Tables of what `editors.py` found: Markdown on standard output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuronwise.measure import Mean
from neuronwise.study import Evaluation, read_evaluation

COLUMNS = {
    "success_forced": "success, forced",
    "success_free": "success, free",
    "generality_forced": "paraphrase, forced",
    "generality_free": "paraphrase, free",
    "portability_forced": "portability",
    "locality_relation_specificity_forced": "same subject, other relation",
    "locality_neighborhood_forced": "other subjects",
    "others_unchanged_forced": "other facts",
    "overediting_forced": "over-editing",
    "unchanging_forced": "unchanging",
    "fluency": "fluency",
}
COSTS = {"cpu_seconds": "CPU seconds", "parameters_changed": "numbers changed"}


def shown(mean: Mean | None) -> str:
    return "–" if mean is None else f"{mean.mean:.2f} [{mean.low:.2f}, {mean.high:.2f}]"


def table(rows: Sequence[tuple[str, Evaluation]], title: str) -> str:
    """One line a contender; columns that no one has are left out."""
    found = [(name, run.means(), run.means("cost"), run) for name, run in rows]
    columns = [key for key in COLUMNS if any(key in means for _, means, _, _ in found)]
    head = [title, "cases", *(COLUMNS[key] for key in columns), *COSTS.values()]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, means, cost, run in found:
        failed = f" ({len(run.failed)} failed)" if run.failed else ""
        cells = [name, f"{len(run.rows)}{failed}", *(shown(means.get(key)) for key in columns)]
        cells.append(f"{cost['cpu_seconds'].mean:.1f}" if "cpu_seconds" in cost else "–")
        cells.append(f"{cost['parameters_changed'].mean:,.0f}" if "parameters_changed" in cost else "–")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def runs_in(folder: Path, order: Sequence[str]) -> list[tuple[str, Evaluation]]:
    """Finished and unfinished runs by their names, in ``order``, others behind; those of ``--first`` joined."""
    parts = [folder, *folder.parent.parent.glob(f"{folder.parent.name} from */{folder.name}")]
    names = {path.name for part in parts for path in part.iterdir() if (path / "manifest.json").is_file()}
    ordered = sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))
    return [(name, joined([part / name for part in parts if (part / name).is_dir()])) for name in ordered]


def joined(folders: Sequence[Path]) -> Evaluation:
    """Runs over different cases of one set as one."""
    runs = [read_evaluation(folder) for folder in folders]
    return Evaluation(runs[0].recipe, [row for run in runs for row in run.rows])


def searched(folder: Path) -> str:
    lines = ["| editor | tries | best settings | quality | at the preset |", "|---|---|---|---|---|"]
    for path in sorted(folder.glob("*.json")):
        rows: list[dict[str, Any]] = json.loads(path.read_text())
        best = max(rows, key=lambda row: row["quality"])
        changes = ", ".join(f"{key}={value}" for key, value in best["changes"].items()) or "the preset"
        lines.append(f"| {path.stem} | {len(rows)} | {changes} | {best['quality']:.2f} | {rows[0]['quality']:.2f} |")
    return "\n".join(lines)


def print_report(out: Path, order: Sequence[str]) -> None:
    """Every table that there is something for."""
    print("## The search\n\n" + searched(out / "search") + "\n")
    for part, title in (("compare", "The comparison"), ("ablate", "Ablations of FiNE"), ("sequential", "Many edits")):
        if (out / part).is_dir():
            print(f"## {title}\n")
            for folder in sorted((out / part).iterdir(), key=lambda path: (len(path.name), path.name)):
                name = f"{folder.name} at once" if part == "sequential" else folder.name
                print(f"### {name}\n\n{table(runs_in(folder, order), 'editor')}\n")
