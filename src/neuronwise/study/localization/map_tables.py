"""Tables of how maps over photos fare: on the object, and by what the word loses without their hottest part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from neuronwise.drawing.tables import Cell, Estimate, Table
from neuronwise.measure.bootstrap import Mean, mean_interval
from neuronwise.study.kind import Study
from neuronwise.study.store import Row

TEXTS = {"own": "the model's own captions", "reference": "annotators' captions, forced"}
NOTE = (
    "Means over photos with 95 % bootstrap intervals that resample photos. Pointing: the hottest pixel is on the "
    "object. IoU: of the object with the hottest part of the photo that is as large. Loss: nats of log p of the word "
    "without the hottest cells (mean over the shares {shares}), by the mean image token or painted gray. Controls: "
    "chance, random cells, random neurons' heat, the photo's center, and beside each figure another word's map of the "
    "same kind, judged as if it were the word's. A map that does not beat center and another word shows nothing about "
    "this word."
)


def map_tables(study: Study) -> list[Table]:
    """One table for each text that words were taken from."""
    rows = [row for row in study.rows if row["what"] == "map"]
    return [_table([row for row in rows if row["text"] == text], text, study.recipe["shares"])
            for text in TEXTS if any(row["text"] == text for row in rows)]  # fmt: skip


FIGURES: dict[str, Callable[[Row], float | None]] = {
    "pointing": lambda row: float(row["pointing"]),
    "IoU": lambda row: row["iou"],
    "loss by mean token": lambda row: None if row["fill"] is None else row["before"] - fmean(row["fill"]),
    "loss painted gray": lambda row: row["before"] - fmean(row["gray"]),
}


def _table(rows: Sequence[Row], text: str, shares: Sequence[float]) -> Table:
    body: list[list[Cell]] = []
    for name in dict.fromkeys(row["map"] for row in rows):
        cells: list[Cell] = [name]
        for figure in FIGURES.values():
            for of in ("word", "another word"):
                own = [row for row in rows if row["map"] == name and row["of"] == of]
                cells.append(Estimate.of(over_photos(own, figure)))
        body.append(cells)
    any_map = [row for row in rows if row["map"] == rows[0]["map"] and row["of"] == "word"]
    blind = [Estimate.of(over_photos(any_map, lambda row, key=key: row[key])) for key in ("object_share", "chance")]
    body.append(["chance", blind[0], None, blind[1], None, None, None, None, None])
    columns = ("map", *(f"{figure}{of}" for figure in FIGURES for of in ("", ", another word")))
    title = f"Maps over the photo, {len(any_map)} words of {TEXTS[text]}"
    return Table(f"maps-{text}", title, columns, body, NOTE.format(shares=", ".join(f"{share:g}" for share in shares)))


def over_photos(rows: Sequence[Row], figure: Callable[[Row], float | None]) -> Mean | None:
    """The mean over photos of a figure's mean over each photo's words; None where no row has it."""
    photos: dict[str, list[float]] = {}
    for row in rows:
        value = figure(row)
        if value is not None:
            photos.setdefault(row["photo"], []).append(value)
    return mean_interval(fmean(values) for values in photos.values())
