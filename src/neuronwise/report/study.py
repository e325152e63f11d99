"""The report of a study: tables, figures and one self-contained page, from its folder alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from neuronwise.drawing.style import Figure, rendered
from neuronwise.drawing.tables import Table, csv_text, latex, markdown
from neuronwise.errors import StudyError
from neuronwise.files import make_folder, write_bytes
from neuronwise.report import (
    study_localization,
    study_properties,
    study_properties_figures,
    study_suppression,
    study_suppression_figures,
)
from neuronwise.report.study_page import Drawn, page
from neuronwise.study.results import Study, read_study

FOLDER = "report"
PARTS: dict[str, tuple[ModuleType, ModuleType]] = {  # kind → where its tables and its figures come from
    "suppression": (study_suppression, study_suppression_figures),
    "properties": (study_properties, study_properties_figures),
    "localization": (study_localization, study_localization),
}


def write_report(folder: str | os.PathLike[str]) -> Path:
    """Write ``report/`` into a study's folder, finished or not, and return its page ``report/index.html``.

    Beside the page, which holds everything and loads nothing: ``report.md``, ``tables/NAME.md|.csv|.tex`` and
    ``figures/NAME.svg|.png``. Every file is written whole or not at all. Raises ``StudyError`` for a folder that is no
    study's, or one without a finished case, and ``NeuronwiseError`` where nothing can be written.
    """
    study = read_study(folder)
    if study.kind not in PARTS:
        raise StudyError(f"There is no report of a study of the kind {study.kind!r}; there is of {', '.join(PARTS)}.")
    if not study.rows:
        failed = f"; {len(study.failed)} failed, first: {next(iter(study.failed.values()))}" if study.failed else ""
        raise StudyError(f"'{folder}' has no finished case to report yet{failed}.")
    tables, figures = made(study)
    drawn = [Drawn(figure, *rendered(figure)) for figure in figures]
    out = Path(folder) / FOLDER
    for table in tables:
        for end, write in (("md", markdown), ("csv", csv_text), ("tex", latex)):
            _write(out / "tables" / f"{table.name}.{end}", write(table).encode())
    for one in drawn:
        _write(out / "figures" / f"{one.figure.name}.svg", one.svg)
        _write(out / "figures" / f"{one.figure.name}.png", one.png)
    _write(out / "report.md", whole_markdown(study, tables, figures).encode())
    return _write(out / "index.html", page(study, tables, drawn).encode())


def made(study: Study) -> tuple[list[Table], list[Figure]]:
    """The tables and figures of a study, by its kind."""
    of_tables, of_figures = PARTS[study.kind]
    tables: Callable[[Study], list[Table]] = of_tables.tables
    figures: Callable[[Study], list[Figure]] = of_figures.figures
    return tables(study), figures(study)


def whole_markdown(study: Study, tables: list[Table], figures: list[Figure]) -> str:
    """All tables and figures as one Markdown text, the figures as files beside it."""
    from neuronwise.report.study_page import about, title

    parts = [f"# {title(study)}", "\n".join(f"- {line}" for line in about(study))]
    parts += [f"## {figure.title}\n\n![{figure.alt}](figures/{figure.name}.svg)\n\n{figure.note}" for figure in figures]
    parts += [f"## {table.title}\n\n{markdown(table)}" for table in tables]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _write(path: Path, content: bytes) -> Path:
    make_folder(path.parent)
    write_bytes(path, content)
    return path
