"""Figures of a study of neurons' properties: layers, invariance and specificity, noise, and heat on photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from neuronwise.drawing.style import CONTROLS, INK, Figure, band, legend_beside, plain_log, plotting, styles
from neuronwise.errors import ImageError
from neuronwise.files import below
from neuronwise.images import open_image
from neuronwise.measure.bootstrap import mean_interval
from neuronwise.read.photo_map import PhotoMap
from neuronwise.study.kind import Study
from neuronwise.study.properties.tables import specificity
from neuronwise.study.rows import Rows, by, where
from neuronwise.study.store import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

PHOTOS, PANELS = 6, 4  # photos a figure of heat shows, and methods beside each


def figures(study: Study) -> list[Figure]:
    """Layers, specificity, noise, and heat on photos."""
    rows = where(study.rows, part="neurons")
    if not rows:
        return []
    found = [_layers(rows)]
    if any(specificity(rows, name, study.recipe["images"], [0.1]) for name in by(rows, "method")):
        found.append(_specificity(rows, study.recipe))
    noise = where(study.rows, part="noise")
    if noise:
        found.append(_noise(noise))
    return found + _heat(rows, study)


def _layers(rows: Rows) -> Figure:
    return Figure(
        "layers",
        "Layers of the neurons",
        "One row of bars a method: the share of its neurons in each layer, mean over words.",
        partial(_draw_layers, rows),
        f"Share of the first {rows[0]['K']} neurons in each layer, mean over {len(by(rows, 'case'))} "
        "words. A dotted line marks an even share.",
    )


def _draw_layers(rows: Rows) -> Drawing:
    named = {name: own for name, own in by(rows, "method").items() if any(row["neurons"] for row in own)}
    looks = styles(list(by(rows, "method")))
    with plotting() as pyplot:
        figure, panels = pyplot.subplots(
            len(named), 1, figsize=(8, 0.9 * len(named) + 0.7), sharex=True, sharey=True, squeeze=False
        )
        for panel, (name, own) in zip(panels[:, 0], named.items(), strict=True):
            layers = [np.array(row["layers"]) for row in own if sum(row["layers"])]
            share = np.mean([each / each.sum() for each in layers], axis=0)
            panel.bar(range(len(share)), share, color=looks[name]["color"], width=0.8)
            panel.axhline(1 / len(share), color=INK, linestyle=":", linewidth=0.8)
            panel.set_title(name, fontsize=8.5, pad=3)
            panel.set_xlim(-0.6, len(share) - 0.4)
            panel.grid(visible=False, axis="x")
            panel.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        panels[-1, 0].set_xlabel("layer")
        panels[-1, 0].xaxis.get_major_locator().set_params(integer=True)
        figure.supylabel("share of the neurons", fontsize=9)
    return figure


def _specificity(rows: Rows, recipe: Row) -> Figure:
    return Figure(
        "specificity",
        "Specificity",
        "Lines over κ, one a method: the share of a word's neurons that are crucial for other words with probability "
        "below κ. The numbers are in the table.",
        partial(_draw_specificity, rows, recipe),
        "Share of a word's neurons that are crucial for other words with probability below κ, mean over words; bands "
        "are 95 % bootstrap intervals over words.",
    )


def _draw_specificity(rows: Rows, recipe: Row) -> Drawing:
    looks = styles(list(by(rows, "method")))
    with plotting() as pyplot:
        figure, panel = pyplot.subplots(figsize=(7.4, 3.6))
        for name in by(rows, "method"):
            found = specificity(rows, name, recipe["images"], recipe["kappas"])
            if found is not None:
                points = [mean_interval(values) for values in found.below.values()]
                band(panel, [100 * kappa for kappa in recipe["kappas"]], points, name, looks[name])
        panel.set(xlabel="κ, %", ylabel="share of the neurons")
        legend_beside(figure, panel)
    return figure


def _noise(rows: Rows) -> Figure:
    return Figure(
        "noise",
        "Noise on the neurons' value vectors",
        "Four panels: how much log p of the word drops, and how often the word stays the first choice, over the noise "
        "and over the number of neurons, one line a method. The numbers are in the tables.",
        partial(_draw_noise, rows),
        "Means over photos; bands are 95 % bootstrap intervals. Gray and broken: random neurons.",
    )


def _draw_noise(rows: Rows) -> Drawing:
    names = list(by(rows, "method"))
    looks = styles(names)
    with plotting() as pyplot:
        figure, panels = pyplot.subplots(2, 2, figsize=(9.4, 6), sharex="col", sharey="row", squeeze=False)
        for column, sweep in enumerate(("sigma", "K")):
            own = where(rows, sweep=sweep)
            ticks = sorted(by(own, sweep))
            for name in names:
                for line, value in enumerate(("drop", "first")):
                    cells = [[float(row[value]) for row in where(own, method=name, **{sweep: x})] for x in ticks]
                    band(panels[line, column], ticks, [mean_interval(cell) for cell in cells], name, looks[name])
            if ticks and min(ticks) > 0:
                panels[1, column].set_xscale("log")
                plain_log(panels[1, column].xaxis, ticks)
            fixed = {"sigma": "K", "K": "sigma"}[sweep]
            value = f"{own[0][fixed]:g}" if own else ""
            panels[0, column].set_title({"sigma": f"{value} neurons", "K": f"noise of σ = {value}"}[sweep])
        unit = "" if rows[0]["unit"] == 1 else ", in spreads of value vectors"
        panels[1, 0].set_xlabel(f"noise, σ{unit}")
        panels[1, 1].set_xlabel("neurons, K")
        panels[0, 0].set_ylabel("log p lost, nats")
        panels[1, 0].set_ylabel("still the first choice (share)")
        panels[1, 0].set_ylim(-0.04, 1.04)
        legend_beside(figure, panels[0, 0])
    return figure


def _heat(rows: Rows, study: Study) -> list[Figure]:
    """Photos of different words, if the data are still where the study read them."""
    shown: dict[str, tuple[Image.Image, dict[str, Row]]] = {}
    for row in rows:
        if row["grid"] and row["heat_iou"] is not None and len(shown) < PHOTOS and not _has_word(shown, row["word"]):
            photo = _photo(study, row["file"])
            if photo is not None:
                own = {one["method"]: one for one in where(rows, case=row["case"]) if one["grid"]}
                shown[row["case"]] = (photo, own)
    if not shown:
        return []
    names = list(by(rows, "method"))
    chosen = [name for name in names if name not in CONTROLS][: PANELS - 1]
    chosen += [name for name in names if name in CONTROLS][-1:]
    return [
        Figure(
            "heat",
            "Where the neurons fire",
            "Photos, each beside copies with the heat of the neurons of several methods laid over it.",
            partial(_draw_heat, list(shown.values()), chosen),
            "The mean activation of the first neurons over the image's tokens, hot in yellow; below each its "
            "intersection over union with the object, and what scattered pixels would reach.",
        )
    ]


def _has_word(shown: Mapping[str, tuple[Image.Image, dict[str, Row]]], word: str) -> bool:
    return any(one["word"].lower() == word.lower() for _, rows in shown.values() for one in rows.values())


def _photo(study: Study, file: str) -> Image.Image | None:
    folder = study.manifest.get("data", {}).get("folder")
    if not isinstance(folder, str):
        return None
    path = below(Path(folder), file)  # a damaged study opens no other files
    try:
        return None if path is None else open_image(path)
    except ImageError:
        return None


def _draw_heat(shown: Sequence[tuple[Image.Image, Mapping[str, Row]]], chosen: Sequence[str]) -> Drawing:
    with plotting() as pyplot:
        figure, panels = pyplot.subplots(
            len(shown), 1 + len(chosen), figsize=(2.3 * (1 + len(chosen)), 2.05 * len(shown) + 0.4), squeeze=False
        )
        for line, (photo, rows) in zip(panels, shown, strict=True):
            for panel in line:
                panel.set_axis_off()
            line[0].imshow(photo)
            line[0].set_title(next(iter(rows.values()))["word"], fontsize=9)
            for panel, name in zip(line[1:], chosen, strict=True):
                if name in rows:
                    row = rows[name]
                    panel.imshow(_overlay(photo, row))
                    iou = f"IoU {row['heat_iou']:.2f} (chance {row['heat_chance']:.2f})"
                    panel.text(0.5, -0.04, iou, transform=panel.transAxes, ha="center", va="top", fontsize=7.5)
        for panel, name in zip(panels[0][1:], chosen, strict=True):
            panel.set_title(name, fontsize=8.5, wrap=True)
    return figure


def _overlay(photo: Image.Image, row: Row) -> Image.Image:
    grid = np.array(row["grid"], dtype=np.float32).reshape(row["grid_rows"], -1)
    left, top, right, bottom = row["box"]
    return PhotoMap(grid, (left, top, right, bottom), photo).overlay(0.75)
