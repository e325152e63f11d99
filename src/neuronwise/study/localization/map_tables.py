"""Tables of how maps over photos fare: on the object, and by what the word loses without their hottest part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean

from neuronwise.drawing.tables import Cell, Estimate, Table
from neuronwise.measure.bootstrap import Mean, mean_interval
from neuronwise.study.kind import Study
from neuronwise.study.rows import Rows, by, where
from neuronwise.study.store import Row

TEXTS = {"own": "the model's own captions", "reference": "annotators' captions, forced"}
NOTE = (
    "Means over photos with 95 % bootstrap intervals that resample photos. Pointing: the hottest pixel is on the "
    "object. IoU: of the object with the hottest part of the photo that is as large. Loss: nats of log p of the word "
    "without the hottest cells (mean over the shares {shares}), by the mean image token or painted gray. Controls: "
    "chance, random cells, random neurons' heat, the photo's center, and beside each figure another word's map of the "
    "same kind, judged as if it were the word's."
)
BEYOND = (
    "Each map's figure less that of the photo's center, and less that of another word's map of the same kind, paired "
    "over words, means over photos with 95 % bootstrap intervals. Where the interval reaches down to 0, the map does "
    "not beat that control and shows nothing about this word."
)
CONTROLS = ("center", "random cells")  # maps that know neither the word nor the model
Figure = Callable[[Row], float | None]


def map_tables(study: Study) -> list[Table]:
    """One table for each text that words were taken from."""
    rows = [row for row in study.rows if row["what"] == "map"]
    return [
        table
        for text, own in by(rows, "text").items()
        for table in (_figures(own, text, study.recipe["shares"]), _beyond(own, text))
    ]


FIGURES: dict[str, Figure] = {
    "pointing": lambda row: float(row["pointing"]),
    "IoU": lambda row: row["iou"],
    "loss by mean token": lambda row: None if row["fill"] is None else row["before"] - fmean(row["fill"]),
    "loss painted gray": lambda row: row["before"] - fmean(row["gray"]),
}


def _figures(rows: Rows, text: str, shares: Sequence[float]) -> Table:
    body: list[list[Cell]] = []
    for name, own in by(rows, "map").items():
        of = [where(own, of=word) for word in ("word", "another word")]
        body.append([name, *(Estimate.of(over_photos(one, figure)) for figure in FIGURES.values() for one in of)])
    any_map = where(rows, map=rows[0]["map"], of="word")
    blind = [Estimate.of(over_photos(any_map, lambda row, key=key: row[key])) for key in ("object_share", "chance")]
    body.append(["chance", blind[0], None, blind[1], None, None, None, None, None])
    columns = ("map", *(f"{figure}{of}" for figure in FIGURES for of in ("", ", another word")))
    title = f"Maps over {len(by(any_map, 'photo'))} photos, {len(any_map)} words of {TEXTS[text]}"
    return Table(f"maps-{text}", title, columns, body, NOTE.format(shares=", ".join(f"{share:g}" for share in shares)))


def _beyond(rows: Rows, text: str) -> Table:
    judged = {(row["case"], row["map"], row["of"]): row for row in rows}

    def less(figure: Figure, control: tuple[str, str], row: Row) -> float | None:
        beside = judged.get((row["case"], *control))
        own, other = figure(row), None if beside is None else figure(beside)
        return None if own is None or other is None else own - other

    body: list[list[Cell]] = []
    for name, own in by(where(rows, of="word"), "map").items():
        if name not in CONTROLS:
            controls = (("center", "word"), (name, "another word"))
            means = [over_photos(own, partial(less, figure, one)) for figure in FIGURES.values() for one in controls]
            body.append([name, *map(Estimate.of, means)])
    columns = [f"{figure} − {control}" for figure in FIGURES for control in ("center", "another word")]
    return Table(f"beyond-{text}", f"Maps less their controls, words of {TEXTS[text]}", ("map", *columns), body, BEYOND)


def over_photos(rows: Rows, figure: Figure) -> Mean | None:
    """The mean over photos of a figure's mean over each photo's words; None where no row has it."""
    photos: dict[str, list[float]] = {}
    for row in rows:
        value = figure(row)
        if value is not None:
            photos.setdefault(row["photo"], []).append(value)
    return mean_interval(fmean(values) for values in photos.values())
