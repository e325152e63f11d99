"""The command that shows what neurons write."""

from __future__ import annotations

from typing import Annotated

import typer

from neuronwise.cli.app import Output, app, command
from neuronwise.cli.options import ModelOption, Placement
from neuronwise.cli.output import print_table, token_line
from neuronwise.neurons import as_neurons


@command(app)
def decode(
    *,
    neurons: Annotated[list[str], typer.Argument(help="Neurons such as L23.U8083 or L4.E5.U80.")],
    model: ModelOption = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Tokens for each neuron.")] = 10,
    bottom: Annotated[bool, typer.Option("--bottom", help="Show the tokens that it lowers most instead.")] = False,
    through_norm: Annotated[bool, typer.Option("--through-norm", help="Apply the gain of the final norm.")] = False,
    placement: Placement,
) -> Output:
    """Show the tokens that neurons write."""
    parsed = as_neurons(neurons)
    from neuronwise.read import decode_all

    loaded = placement.load(model)
    read = list(zip(parsed, decode_all(loaded, parsed, k, bottom=bottom, through_norm=through_norm), strict=True))
    rows = [{**neuron.to_row(), "tokens": tokens} for neuron, tokens in read]
    content = {"schema": "neuronwise.decode/1", "model": loaded.name, "bottom": bottom, "neurons": rows}
    table = [[str(neuron), token_line(tokens)] for neuron, tokens in read]
    return Output(content, lambda: print_table("", ["neuron", "tokens"], table))
