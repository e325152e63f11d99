"""The API reference: one page for each room that has public names, each name on one page."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "neuronwise"
# Rooms in the order in which one meets them; the sentence of a page is the first of the package's docstring.
ROOMS = (
    "model", "locate", "read", "intervene", "edit", "measure", "study", "index", "neurons", "model.exchange",
    "view.slider", "data.facts", "data.photos", "images", "report", "check", "registry", "errors", "files",
)  # fmt: skip

# What docstrings name in brackets, by its number on arXiv.
PAPERS = {
    "MMN": "2311.07470", "FiNE": "2503.01090", "2S": "2503.22941", "SCH": "2308.01544", "KN": "2104.08696",
    "YU": "2312.12141", "ROME": "2202.05262", "R-ROME": "2403.07175", "MEMIT": "2210.07229", "EMMET": "2403.14236",
    "PMET": "2308.08742", "AlphaEdit": "2410.02355", "OVE": "2606.18767", "RelP": "2508.21258", "TRL": "2601.22594",
    "TAM": "2506.23270", "HN": "2512.01797",
}  # fmt: skip


@cache
def api_pages() -> dict[str, str]:
    """Each page of the reference by its name: the package's names first, then its rooms."""
    homes = {room: dict(sorted(public_names(room).items())) for room in ROOMS}
    owner: dict[str, str] = {}
    for room, names in homes.items():
        for home in names.values():
            if home not in owner or home.startswith(f"neuronwise.{room}."):
                owner[home] = room
    pages = {"api/README.md": face_page()}
    for room, names in homes.items():
        here = {name: home for name, home in names.items() if owner[home] == room}
        elsewhere = {name: home for name, home in names.items() if owner[home] != room}
        pages[f"api/neuronwise.{room}.md"] = room_page(room, here, elsewhere)
    return pages


def face_page() -> str:
    """What ``import neuronwise as nw`` gives, a line each."""
    rows = [f"| [`nw.{name}`][{home}] | {sentence(home)} |" for name, home in sorted(public_names("").items())]
    return "\n".join(
        [
            "# API reference",
            "",
            "`import neuronwise as nw` gives the names of this table. The pages beside it hold them and all other "
            "public names, by the room of the package that they are in: `nw.edit.rome`, `nw.intervene.scale`.",
            "",
            "Brackets name papers: "
            + ", ".join(f"[{name}](https://arxiv.org/abs/{number})" for name, number in PAPERS.items())
            + "; NAM: Fang et al., NeurIPS 2024.",
            "",
            "| name | what it is |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def room_page(room: str, here: dict[str, str], elsewhere: dict[str, str]) -> str:
    """The names that live in a room in full, and links to those that it passes on."""
    lines = [f"# neuronwise.{room}", "", first_sentence(docstring(f"neuronwise.{room}")), ""]
    if elsewhere:
        links = ", ".join(f"[`{name}`][{home}]" for name, home in elsewhere.items())
        lines += [f"Also here: {links}.", ""]
    for home in here.values():
        lines += [f"::: {home}", ""]
    return "\n".join(lines)


def public_names(room: str) -> dict[str, str]:
    """The public names of a room, each with the full name of its definition; modules are not among them."""
    module = f"neuronwise.{room}".rstrip(".")
    names = {name: f"{module}.{name}" for name in _listed(module) if not name.startswith("_")}
    return {name: home for name, path in names.items() if (home := definition(path)) is not None}


def _listed(module: str) -> Iterator[str]:
    file = file_of(module)
    assert file is not None, module
    tree = parsed(file)
    if file.suffix == ".pyi":
        yield from (alias.name for line in tree.body if isinstance(line, ast.ImportFrom) for alias in line.names)
        return
    for line in tree.body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "__all__":
            yield from ast.literal_eval(line.value)
            return
    for line in tree.body:
        if isinstance(line, ast.FunctionDef | ast.ClassDef) and not line.name.startswith("_"):
            yield line.name


def definition(path: str) -> str | None:
    """Where a name is defined, through the modules that pass it on; None for a module."""
    module, _, name = path.rpartition(".")
    file = file_of(module)
    if file is None:
        return None
    for line in parsed(file).body:
        if isinstance(line, ast.ImportFrom):
            if any(alias.name == name for alias in line.names):
                return definition(f"{line.module}.{name}") if f"{line.module}.{name}" != path else None
        elif name in _defined(line):
            return path
    return None


def _defined(line: ast.stmt) -> list[str]:
    if isinstance(line, ast.FunctionDef | ast.ClassDef):
        return [line.name]
    if isinstance(line, ast.AnnAssign):
        return [ast.unparse(line.target)]
    if isinstance(line, ast.Assign):
        return [ast.unparse(target) for target in line.targets]
    return []


def sentence(home: str) -> str:
    """The first sentence of what stands beside a definition."""
    module, _, name = home.rpartition(".")
    file = file_of(module)
    assert file is not None, home
    for line in reversed(parsed(file).body):  # the last of several is not an overload
        if isinstance(line, ast.FunctionDef | ast.ClassDef) and line.name == name:
            return first_sentence(ast.get_docstring(line) or "")
    return ""


def docstring(module: str) -> str:
    """Of a module; a lazy package has it in its ``__init__.py``, not in the stub."""
    file = file_of(module)
    assert file is not None, module
    return ast.get_docstring(parsed(file.with_suffix(".py"))) or ""


def first_sentence(text: str) -> str:
    """The first paragraph's first sentence, in one line, with Markdown's code marks and for a table's cell."""
    line = " ".join(text.split("\n\n")[0].split())
    end = line.find(". ")
    return (line if end < 0 else line[: end + 1]).replace("``", "`").replace("|", "\\|")


def file_of(module: str) -> Path | None:
    """The file that says a module's names: a stub before the code."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    for file in (path / "__init__.pyi", path / "__init__.py", path.with_suffix(".py")):
        if file.exists():
            return file
    return None


@cache
def parsed(file: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(file.read_text(encoding="utf-8"))
