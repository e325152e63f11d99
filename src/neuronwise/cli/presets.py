"""The command that shows which settings the editors use for a model, and where they were published."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypedDict

from neuronwise.cli.app import Output, app, argument, command, option
from neuronwise.cli.output import print_table
from neuronwise.cli.progress import status
from neuronwise.edit.editors import EDITORS

if TYPE_CHECKING:
    from neuronwise.model import Model

SCHEMA = "neuronwise.presets/1"


class Row(TypedDict):
    """One editor's preset for a model."""

    editor: str
    preset: str
    source: str
    depth: int | None
    layers: str
    changed: str
    settings: dict[str, object]


@command(app)
def presets(
    *,
    model: Annotated[str, argument("A hub id, a folder, or builtin-text; its weights are not read.")],
    editor: Annotated[
        str | None, option("Show all settings of this editor.", show_default="a line for each editor")
    ] = None,
) -> Output:
    """Show which preset each editor uses for a model, where it was published, and its settings."""
    if editor is not None:
        EDITORS[editor]  # refuses an unknown name before anything is opened
    from neuronwise.edit.presets import lineage
    from neuronwise.model.load import outline

    with status(f"reading the configuration of {model}"):
        opened = outline(model)
    families = list(lineage(opened))
    rows = [_row(opened, name) for name in ([editor] if editor else EDITORS)]
    content = {
        "schema": SCHEMA, "model": model, "layers": opened.num_layers, "families": families, "editors": rows,
    }  # fmt: skip

    def show() -> None:
        print(f"{model}: {opened.num_layers} layers, of the family {' → '.join(families)}")
        if editor:
            _show_one(rows[0])
        else:
            names = ["editor", "preset", "layers", "other than by default", "published"]
            print_table("", names, [[r["editor"], r["preset"], r["layers"], r["changed"], _published(r)] for r in rows])

    return Output(content, show)


def _row(model: Model, editor: str) -> Row:
    from neuronwise.edit.presets import chosen

    found = chosen(model, EDITORS[editor].presets)
    changed = EDITORS[editor].changed(found.settings)
    return {
        "editor": editor,
        "preset": found.name,
        "source": found.source,
        "depth": found.depth,
        "layers": EDITORS[editor].layers_taken(found.settings),
        "changed": ", ".join(f"{name}={value}" for name, value in changed.items()) or "–",
        "settings": asdict(found.settings),
    }


def _show_one(row: Row) -> None:
    print(f"{row['editor']} uses the preset '{row['preset']}' ({_published(row)}):")
    print_table("", ["setting", "value"], [[name, str(value)] for name, value in row["settings"].items()])


def _published(row: Row) -> str:
    moved = "" if row["depth"] is None else f"; layers carried over from a model of {row['depth']}"
    return row["source"] + moved
