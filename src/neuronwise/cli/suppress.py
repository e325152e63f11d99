"""The command that shows what a model writes without a word's neurons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from neuronwise.cli.app import Output, app, argument, command, option
from neuronwise.cli.options import MOST, Ask, ModelOption, Placement, Scoring, require_photos
from neuronwise.cli.output import note, print_table
from neuronwise.cli.progress import status
from neuronwise.errors import NeuronwiseError


@command(app)
def suppress(
    *,
    image: Annotated[Path, argument("A photo.")],
    concept: Annotated[str, option("A word of the caption, whose neurons are suppressed.")],
    model: ModelOption = None,
    scoring: Scoring,
    top: Annotated[int, option("Neurons to suppress.", min=1, max=MOST)] = 50,
    to: Annotated[str, option("zero, or mean: activations are set to what they usually are, their baseline.")] = "zero",
    ask: Ask,
    placement: Placement,
) -> Output:
    """Show what the model writes while a word's neurons are suppressed, beside two random controls of the same size."""
    scoring.checked()
    if to not in ("zero", "mean"):
        raise NeuronwiseError(f"--to is {to!r}; choose zero or mean.")
    require_photos([image])
    from neuronwise.intervene import texts_without
    from neuronwise.locate import locate

    loaded = placement.load(model)
    run = ask.photo(loaded, image)
    found = scoring.locate(loaded, run, concept, top)
    if "nearest" in found.record:
        note(found.record["nearest"])
    sets = {
        "suppressed": found,
        "random": locate(loaded, run, concept, method="random", top=top, seed=scoring.seed),
        "random_same_layers": locate(
            loaded, run, concept, method="random_same_layers", top=top, among=found, seed=scoring.seed
        ),
    }
    named = None if scoring.baseline == "none" else scoring.baseline
    means = (named or "self") if to == "mean" else None
    with status("asking again without them"):
        texts = {"before": run.text, **texts_without(loaded, run, sets, means)}
    content = {
        "schema": "neuronwise.suppress/1",
        **dict(found.record),
        "top": top,
        "to": to,
        "seed": scoring.seed,
        "texts": texts,
        "neurons": {name: [str(neuron) for neuron in one.neurons] for name, one in sets.items()},
    }
    rows = [[name, text] for name, text in texts.items()]
    return Output(content, lambda: print_table("", ["neurons suppressed", "text"], rows))
