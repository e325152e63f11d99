"""The command that shows which settings the editors take for a model, and where they were published."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuronwise.cli.app import JsonOption, app
from neuronwise.cli.output import print_json, print_table, status, stdout_kept
from neuronwise.edit import EDITORS

if TYPE_CHECKING:
    from neuronwise.model import Model

SCHEMA = "neuronwise.presets/1"


@app.command()
def presets(
    model: Annotated[str, typer.Argument(help="A hub id, a folder, or builtin-text; its weights are not read.")],
    editor: Annotated[str | None, typer.Option(help="One editor, with all its settings; all in short.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which preset each editor takes for a model, where it was published, and the settings."""
    with stdout_kept():
        from neuronwise.edit.presets import lineage
        from neuronwise.model.outline import outline

        if editor is not None:
            EDITORS[editor]  # an unknown name is refused before anything is opened
        with status(f"reading the configuration of {model}"):
            opened = outline(model)
        families = lineage(opened)
        rows = [_row(opened, name) for name in ([editor] if editor else EDITORS)]
    content = {"schema": SCHEMA, "model": model, "layers": opened.num_layers, "families": list(families)}
    if as_json:
        print_json({**content, "editors": rows})
        return
    print(f"{model}: {opened.num_layers} layers, of the family {' → '.join(families)}")
    if editor:
        print(f"{editor} takes the preset '{rows[0]['preset']}' ({rows[0]['source']}{_moved(rows[0])}):")
        print_table("", ["setting", "value"], [[name, str(value)] for name, value in rows[0]["settings"].items()])
    else:
        names = ["editor", "preset", "layers", "other than by default", "published"]
        shown = [[r["editor"], r["preset"], r["layers"], r["changed"], r["source"] + _moved(r)] for r in rows]
        print_table("", names, shown)


def _row(model: Model, editor: str) -> dict[str, Any]:
    from neuronwise.edit.presets import chosen

    found = chosen(model, EDITORS[editor].presets)
    others = EDITORS[editor].changed(found.settings)
    return {
        "editor": editor,
        "preset": found.name,
        "source": found.source,
        "depth": found.depth,
        "layers": EDITORS[editor].layers_taken(found.settings),
        "changed": ", ".join(f"{name}={value}" for name, value in others.items()) or "–",
        "settings": asdict(found.settings),
    }


def _moved(row: dict[str, Any]) -> str:
    return "" if row["depth"] is None else f"; layers carried over from a model of {row['depth']}"
