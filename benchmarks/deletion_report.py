"""Tables, a JSON summary and the figure of deletion curves, from the rows that deletion.py wrote."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuronwise.files import write_json

SHOWN = (1, 5, 10, 20, 50, 100, 200, 1000)


def bootstrap(values: Sequence[float], draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95 % interval of the mean, resampling the facts."""
    array = np.asarray(values, dtype=float)
    picks = np.random.default_rng(seed).integers(0, len(array), (draws, len(array)))
    low, high = np.percentile(array[picks].mean(1), [2.5, 97.5])
    return float(array.mean()), float(low), float(high)


def curve_area(counts: Sequence[int], losses: Sequence[float], upto: int) -> float:
    """Area under loss over log K from the first count to ``upto``, as a share of the whole (1: all lost at once)."""
    kept = [(math.log(k), loss) for k, loss in zip(counts, losses, strict=True) if k <= upto]
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(kept))
    return area / (kept[-1][0] - kept[0][0])


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For each method: per count the mean loss with its interval, on the facts and on the others; areas; seconds."""
    summary: dict[str, Any] = {}
    common = set.intersection(*({tuple(place) for place in row["places"]} for row in rows))
    for name in rows[0]["seconds"]:
        counts = sorted(k for method, k in common if method == name)
        own: dict[int, list[float]] = {k: [] for k in counts}
        side: dict[int, list[float]] = {k: [] for k in counts}
        for row in rows:
            for place, (method, k) in enumerate(row["places"]):
                if method == name and k in own:
                    lost = [1 - one["after"][place] / one["before"] for one in row["measured"]]
                    own[k].append(lost[0])
                    side[k].append(float(np.mean(lost[1:])))
        means = [float(np.mean(own[k])) for k in counts]
        areas = [a for a in (200, 1000) if a <= counts[-1]]
        summary[name] = {
            "lost": {k: bootstrap(own[k]) for k in counts},
            "lost_by_others": {k: bootstrap(side[k]) for k in counts},
            "area": {a: curve_area(counts, means, a) for a in areas},
            "area_others": {
                a: curve_area(counts, [float(np.mean(side[k])) for k in counts], a) for a in areas
            },
            "seconds": float(np.mean([row["seconds"][name] for row in rows])),
        }  # fmt: skip
    return summary


def report(rows: Sequence[dict[str, Any]], about: dict[str, Any], path: Path, figure: Path | None) -> str:
    """Write the summary (and the figure) and return the tables as Markdown."""
    summary = summarize(rows)
    content = {"about": {**about, "facts": len(rows)}, "methods": summary}
    write_json(path, content)
    if figure is not None:
        draw(summary, figure)
    title = ", ".join(f"{name}: {value}" for name, value in content["about"].items())
    return "\n\n".join(
        [
            title,
            "Share of the answer's probability lost, mean over facts with 95 % interval:\n\n" + table(summary, "lost"),
            "Share lost by other facts:\n\n" + table(summary, "lost_by_others"),
            "Area under the curve over log K (others: the same of the side effect), and cost:\n\n" + areas(summary),
        ]
    )


def table(summary: dict[str, Any], part: str) -> str:
    lines = ["| method | " + " | ".join(f"K = {k}" for k in SHOWN) + " |", "|---|" + "---|" * len(SHOWN)]
    for name, found in summary.items():
        cells = [_cell(found[part].get(k)) for k in SHOWN]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(estimate: tuple[float, float, float] | None) -> str:
    if estimate is None:
        return "–"
    mean, low, high = (0.0 if abs(value) < 0.005 else value for value in estimate)
    return f"{mean:.2f} ({low:.2f}–{high:.2f})"


def areas(summary: dict[str, Any]) -> str:
    head = ("method", "to K = 200", "to K = 1000", "others, to 200", "others, to 1000", "s / fact")
    lines = [f"| {' | '.join(head)} |", "|---|" + "---|" * 5]
    for name, found in summary.items():
        cells = [
            f"{found[part][upto]:.2f}" if upto in found[part] else "–"
            for part in ("area", "area_others")
            for upto in (200, 1000)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {found['seconds']:.2f} |")
    return "\n".join(lines)


def draw(summary: dict[str, Any], path: Path) -> None:
    """Two panels: what the fact loses and what other facts lose, over K. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "neuronwise", "font.size": 9})
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.2), sharey=True)
    palette: Any = pyplot.get_cmap("tab10")
    colors = itertools.cycle([palette(number) for number in range(10) if number != 7] + ["navy"])
    for name, found in summary.items():
        control = name.startswith("random")
        style: dict[str, Any] = {"color": "black", "linestyle": ":" if name == "random" else "--"}
        if not control:
            style = {"color": next(colors), "linestyle": "-"}
        for panel, part in zip(panels, ("lost", "lost_by_others"), strict=True):
            counts = list(found[part])
            mean, low, high = zip(*found[part].values(), strict=True)
            panel.plot(counts, mean, marker="o", markersize=2.5, linewidth=1.3, label=name, **style)
            panel.fill_between(counts, low, high, color=style["color"], alpha=0.08, linewidth=0)
    titles = ("the fact's own answer", "the answers of other facts")
    for panel, title in zip(panels, titles, strict=True):
        panel.set(xscale="log", xlabel="neurons zeroed at the last position", title=title)
        panel.xaxis.set_major_formatter("{x:.0f}")
        panel.grid(alpha=0.25)
    panels[0].set_ylabel("share of the probability lost")
    panels[1].legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
