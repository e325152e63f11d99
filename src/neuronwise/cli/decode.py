"""The command that shows what neurons write."""

from __future__ import annotations

from typing import Annotated

from neuronwise.cli.app import Output, app, argument, command, option
from neuronwise.cli.options import ModelOption, Placement
from neuronwise.cli.output import print_table, token_line
from neuronwise.neurons import as_neurons


@command(app)
def decode(
    *,
    neurons: Annotated[list[str], argument("Neurons such as L23.U8083 or L4.E5.U80.")],
    model: ModelOption = None,
    k: Annotated[int, option("Tokens for each neuron.", "-k", min=1)] = 10,
    bottom: Annotated[bool, option("Show the tokens that it lowers most instead.", "--bottom")] = False,
    through_norm: Annotated[bool, option("Apply the gain of the final norm.", "--through-norm")] = False,
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
