"""The commands that hand sets of neurons to other tools, and take them from there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuronwise.cli.app import Names, Output, app, argument, command, option
from neuronwise.cli.options import MODEL, MODELS, require_file
from neuronwise.cli.output import counted, print_table
from neuronwise.cli.progress import status
from neuronwise.model.exchange.forms import FORMS

if TYPE_CHECKING:
    from neuronwise.model import Model

SHOWN = 10  # rows of a table

neurons_app = typer.Typer(
    no_args_is_help=True,
    help="Sets of neurons in the names of other tools: TransformerLens, nnsight, nnterp, Neuronpedia.",
)
app.add_typer(neurons_app, name="neurons")

NamedModel = Annotated[
    str | None, option(f"Needed for module paths; its weights are not read. {MODEL}", "--model", "-m"), MODELS
]


@command(neurons_app)
def export(
    *,
    neurons: Annotated[str, argument("A saved set, what find --json printed of one word, or an address.")],
    form: Annotated[str, option("The tool's form, listed below."), Names("Forms of neurons", FORMS)],
    out: Annotated[Path | None, option("The JSON file to write.")] = None,
    model: NamedModel = None,
    model_id: Annotated[str | None, option("What Neuronpedia calls the model, such as gpt2-small.")] = None,
) -> Output:
    """Name neurons as another tool does."""
    chosen = FORMS[form]
    require_file(out)
    from neuronwise.files import write_json
    from neuronwise.model.exchange import exported
    from neuronwise.neurons import NeuronSet

    found = NeuronSet.of(neurons)  # before a model is opened
    content = exported(found, form, model=_outline(model), model_id=model_id)
    if out is not None:
        write_json(out, content)

    def show() -> None:
        rows = content["neurons"]
        assert isinstance(rows, list)
        keys = [key for key in rows[0] if rows[0][key] is not None] if rows else []
        print_table("", keys, [[_cell(row.get(key, "")) for key in keys] for row in rows[:SHOWN]])
        if chosen.reading:
            placed = any(row.get("pos") is not None for row in rows)
            print("in Python:", chosen.reading if placed else chosen.reading.replace('row["pos"]', ":"))
        if out is not None:
            print(f"{counted(len(rows), 'neuron')}: {out}")

    return Output(content, show)


@command(neurons_app)
def import_(
    *,
    file: Annotated[Path, argument("A JSON file that names neurons as another tool does.")],
    out: Annotated[Path | None, option("The set of neurons to write, which every command takes.")] = None,
    form: Annotated[
        str | None,
        option("The tool's form, listed below.", show_default="the one that recognizes the first row"),
        Names("Forms of neurons", FORMS),
    ] = None,
    model: NamedModel = None,
) -> Output:
    """Read neurons that another tool names."""
    if form is not None:
        FORMS[form]  # refuses an unknown name before anything is opened
    require_file(out)
    from neuronwise.model.exchange import import_neurons

    found = import_neurons(file, form, model=_outline(model))
    if out is not None:
        found.save(out)

    def show() -> None:
        print_table("", ["neuron", "score"], [[str(member), f"{member.score:.3g}"] for member in found[:SHOWN]])
        if out is not None:
            print(f"{counted(len(found), 'neuron')}: {out}")

    return Output(found.to_dict(), show)


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _outline(model: str | None) -> Model | None:
    if model is None:
        return None
    from neuronwise.model.load import outline

    with status(f"reading the configuration of {model}"):
        return outline(model)
