"""The command that lists architectures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from neuronwise.cli.app import Output, app, argument, command
from neuronwise.cli.output import print_table
from neuronwise.cli.progress import progress_bar

if TYPE_CHECKING:
    from neuronwise.architectures.survey import Architecture


@command(app)
def models(
    *,
    name: Annotated[str | None, argument("A model type such as llama.", show_default="all")] = None,
) -> Output:
    """List the architectures of the installed transformers, and where their neurons are."""
    import transformers

    from neuronwise.architectures.survey import survey

    with progress_bar("building architectures") as progress:
        rows = survey(name, progress)
    content = {
        "schema": "neuronwise.models/1",
        "transformers": transformers.__version__,
        "architectures": [row.to_dict() for row in rows],
    }
    columns = ["architecture", "kind", "neurons in", "d", "L"]
    return Output(content, lambda: print_table("", columns, [_cells(row) for row in rows]))


def _cells(row: Architecture) -> list[str]:
    writers = f"{row.decoder}: {'; '.join(map(str, row.writers))}"
    neurons = writers if row.addressable else f"{row.status}: {row.reason}"
    return [row.name, row.kind, neurons, str(row.hidden_size or ""), str(row.layers or "")]
