"""How all figures of studies look: colors that color-blind readers can tell apart, one style, saved as SVG and PNG."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from neuronwise.drawing.tables import Interval
from neuronwise.errors import NeuronwiseError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure as Drawing

INK, PAPER, GRID, QUIET = "#1f1d1a", "#fcfbf9", "#d9d5cd", "#6f6a61"
DARK = {INK: "#ece8e1", PAPER: "#171614", GRID: "#3d3a34", QUIET: "#a49d92"}  # the same at night
COLORS = (  # the first six from Okabe and Ito
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7b61c4", "#6b8e23", "#b5495b", INK,
    "#b0a000",
)  # fmt: skip
MARKERS = "osD^vPX<>*ph"
Look: TypeAlias = dict[str, Any]
"""Keyword arguments of matplotlib's ``plot``."""
CONTROLS = ("random", "random_same_layers")


@dataclass(frozen=True)
class Figure:
    """``draw`` makes it; ``name``: of its files; ``alt``: what it shows, for those who cannot see it.

    ``note``: how to read it."""

    name: str
    title: str
    alt: str
    draw: Callable[[], Drawing]
    note: str = ""


def styles(names: Sequence[str]) -> dict[str, Look]:
    """A color, marker and line for each method, the same in all figures; controls are gray and broken."""
    found: dict[str, Look] = {}
    looks = itertools.cycle(zip(COLORS, MARKERS, strict=True))
    rounds = 0
    for name in names:
        if name in CONTROLS:
            line = ":" if name == "random" else "--"
            found[name] = {"color": QUIET, "linestyle": line, "marker": "", "linewidth": 1.8}
            continue
        color, marker = next(looks)
        line = "-" if rounds < len(COLORS) else "-."
        rounds += 1
        found[name] = {"color": color, "marker": marker, "linestyle": line, "linewidth": 1.4, "markersize": 4}
    return found


@contextmanager
def plotting() -> Iterator[ModuleType]:
    """pyplot in this style; raises ``NeuronwiseError`` without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise NeuronwiseError("Figures need matplotlib: pip install 'neuronwise[study]'.") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    style: Any = {
        "svg.fonttype": "path", "svg.hashsalt": "neuronwise", "font.size": 9, "font.family": "DejaVu Sans",
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": QUIET, "xtick.color": INK, "ytick.color": INK,
        "axes.titlesize": 9.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "figure.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.facecolor": PAPER, "legend.frameon": False,
        "figure.constrained_layout.use": True, "axes.formatter.use_mathtext": False, "text.parse_math": False,
    }  # fmt: skip
    with pyplot.rc_context(style):
        yield pyplot


def rendered(figure: Figure) -> tuple[bytes, bytes]:
    """The figure as SVG, which follows the reader's light or dark scheme, and as PNG."""
    with plotting() as pyplot:
        drawn = figure.draw()
        try:
            svg, png = BytesIO(), BytesIO()
            drawn.savefig(svg, format="svg", metadata={"Date": None})
            drawn.savefig(png, format="png", dpi=160, metadata={"Software": None})
        finally:
            pyplot.close(drawn)
    return _following(svg.getvalue().decode()).encode(), png.getvalue()


def _following(svg: str) -> str:
    """With the colors of the dark scheme, where the reader has chosen that."""
    rules = "".join(
        f'[style*="{part}: {light}"]{{{part}:{dark}!important}}'
        for light, dark in DARK.items()
        for part in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    place = svg.index(">", svg.index("<svg")) + 1
    return svg[:place] + style + svg[place:]


def band(
    axes: Axes, at: Sequence[float], points: Sequence[Interval | None], name: str, look: Look, alpha: float = 0.12
) -> None:
    """One line of means over ``at`` with a band for its intervals; points that are None are left out."""
    kept = [(place, point) for place, point in zip(at, points, strict=True) if point is not None]
    places = [place for place, _ in kept]
    axes.plot(places, [point.mean for _, point in kept], label=name, **look)
    lows, highs = [point.low for _, point in kept], [point.high for _, point in kept]
    axes.fill_between(places, lows, highs, color=look["color"], alpha=alpha, linewidth=0)


def legend_beside(figure: Drawing, axes: Axes) -> None:
    """One legend for all panels, to the right of them, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, handlelength=2.6, labelspacing=0.55)


def plain_log(axis: Axis, counts: Sequence[float]) -> None:
    """An axis, most often a logarithmic one, whose ticks are these numbers, as they are written."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axis.set_major_locator(FixedLocator(list(counts)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")
