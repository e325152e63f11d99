"""The command that shows what neurons write."""

from __future__ import annotations

from typing import Annotated

from neuronwise.cli.app import Output, app, argument, command, option, refuse
from neuronwise.cli.options import ModelOption, Placement
from neuronwise.cli.output import people_see, print_table
from neuronwise.neurons import as_neurons


@command(app)
def decode(
    *,
    neurons: Annotated[list[str], argument("Neurons such as L23.U8083 or L4.E5.U80.")],
    model: ModelOption = None,
    k: Annotated[int, option("Tokens for each neuron.", "-k", min=1)] = 10,
    published: Annotated[bool, option("Read U·v as published, without norms and centering.", "--published")] = False,
    later_layers: Annotated[
        bool, option("Read through all later layers, linearized, not along the direct path alone.", "--later-layers")
    ] = False,
    placement: Placement,
) -> Output:
    """Show the tokens that neurons raise and lower when they fire positively; negatively, it is the other way round."""
    parsed = as_neurons(neurons)
    if published:
        refuse("with --published, which reads the value vector as it is", "later_layers")
    from neuronwise.read.decode import effects

    loaded = placement.load(model)
    form = "logits" if published else "cosine"
    through = "later layers" if later_layers else "direct path"
    read = list(zip(parsed, effects(loaded, parsed, k, form=form, through=through), strict=True))
    rows = [
        {**neuron.to_row(), "tokens": effect.raises, "raises": effect.raises, "lowers": effect.lowers}
        for neuron, effect in read
    ]
    content = {"schema": "neuronwise.decode/1", "model": loaded.name, "form": form, "through": through, "neurons": rows}
    table = [[str(neuron), *map(people_see, (one.raises, one.lowers))] for neuron, one in read]
    return Output(content, lambda: print_table("", ["neuron", "raises", "lowers"], table))
