"""The report of a study: tables, figures and one self-contained page, from its folder alone."""

from __future__ import annotations

import os
from pathlib import Path

from neuronwise.drawing.page import Drawn, figure_section, list_section, page, table_section
from neuronwise.drawing.style import rendered
from neuronwise.drawing.tables import csv_text, latex, markdown
from neuronwise.errors import StudyError, told
from neuronwise.files import make_folder, shareable, write_bytes
from neuronwise.study.kind import Kind, Study
from neuronwise.study.kinds import KINDS
from neuronwise.study.results import read_study

FOLDER = "report"


def write_report(folder: str | os.PathLike[str]) -> Path:
    """Write ``report/`` into a study's folder, finished or not, and return its page ``report/index.html``.

    Beside the page, which holds everything and loads nothing: ``report.md``, ``tables/NAME.md|.csv|.tex`` and
    ``figures/NAME.svg|.png``. Every file is written whole or not at all. Raises ``StudyError`` for a folder that is
    not a study's, or one without a finished case, and ``NeuronwiseError`` where nothing can be written.
    """
    with told(StudyError, f"'{folder}' cannot be reported; its rows may be damaged"):
        return _written(folder)


def _written(folder: str | os.PathLike[str]) -> Path:
    study = read_study(folder)
    if study.kind not in KINDS:
        raise StudyError(f"There is no report for studies of the kind {study.kind!r}; choose {', '.join(KINDS)}.")
    if len(study.failed) == study.cases:
        failed = f"; {len(study.failed)} failed, first: {next(iter(study.failed.values()))}" if study.failed else ""
        raise StudyError(f"'{folder}' has no finished case to report yet{failed}.")
    kind = KINDS[study.kind]
    tables, figures = kind.tables(study), kind.figures(study)
    drawn = [Drawn(figure, *rendered(figure)) for figure in figures]
    out = Path(folder) / FOLDER
    for table in tables:
        for end, write in (("md", markdown), ("csv", csv_text), ("tex", latex)):
            _write(out / "tables" / f"{table.name}.{end}", write(table).encode())
    for one in drawn:
        _write(out / "figures" / f"{one.figure.name}.svg", one.svg)
        _write(out / "figures" / f"{one.figure.name}.png", one.png)
    name, lines = title(study, kind), about(study, kind)
    parts = [f"# {name}", "\n".join(f"- {line}" for line in lines)]
    parts += [f"## {figure.title}\n\n![{figure.alt}](figures/{figure.name}.svg)\n\n{figure.note}" for figure in figures]
    parts += [f"## {table.title}\n\n{markdown(table)}" for table in tables]
    _write(out / "report.md", ("\n\n".join(part.strip() for part in parts) + "\n").encode())
    sections = [*map(figure_section, drawn), *map(table_section, tables)]
    left = {"Failed cases": study.failed, "Left out": study.skipped}
    sections += [list_section(heading, found) for heading, found in left.items() if found]
    whole = page(name, lines, sections, study.recipe, study.manifest.get("versions", {}))
    return _write(out / "index.html", whole.encode())


def title(study: Study, kind: Kind) -> str:
    """The recipe's title, else that of its kind."""
    return str(study.recipe.get("title") or kind.title)


def about(study: Study, kind: Kind) -> list[str]:
    """What a reader must know before any number."""
    recipe = study.recipe
    of = f" of {study.total}" if study.total is not None and not study.finished else ""
    failed = f", {len(study.failed)} of them failed" if study.failed else ""
    count = study.manifest.get("data", {}).get(kind.data, recipe.get("cases", "?"))
    state = f"{study.cases}{of} cases{failed}."
    if not study.finished:
        state += " The study is not finished: everything below is about the cases so far."
    return [
        kind.sentence,
        f"{state} Model {shareable(recipe['model'])} in {recipe.get('weights_dtype') or recipe.get('dtype')}, seed "
        f"{recipe['seed']}; {count} {kind.data}.",
        f"One model and these {kind.data}: what is shown here need not hold for others. Intervals are 95 % percentile "
        "bootstrap intervals: they cover chance in the choice of cases, not in that of the model.",
    ]


def _write(path: Path, content: bytes) -> Path:
    make_folder(path.parent)
    write_bytes(path, content)
    return path
