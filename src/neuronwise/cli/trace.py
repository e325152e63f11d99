"""The command that traces where a model keeps what it knows of a subject."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from neuronwise.cli.app import Output, app, command, option, refuse
from neuronwise.cli.options import (
    FIGURES,
    Ask,
    ModelOption,
    PhotoArgument,
    Placement,
    SeedOption,
    TextOption,
    TokenOption,
    WordOption,
    parse_layers,
    parse_positions,
    require_file,
)
from neuronwise.cli.output import command_line, note, print_table, token_line
from neuronwise.cli.progress import progress_bar
from neuronwise.errors import NeuronwiseError


@command(app)
def trace(
    *,
    image: PhotoArgument = None,
    text: TextOption = None,
    subject: Annotated[
        str | None, option("The part of the prompt that is corrupted.", show_default="the photo's tokens")
    ] = None,
    model: ModelOption = None,
    concept: WordOption = None,
    target: TokenOption = None,
    restore: Annotated[str, option("What is restored: states, feed-forward or attention.")] = "states",
    window: Annotated[int, option("Layers whose feed-forward or attention is restored together.", min=1)] = 10,
    layers: Annotated[str | None, option("Layers such as 0-29 or 0,5,10.", show_default="all")] = None,
    positions: Annotated[
        str, option("text (and the photo as one), image, all, or positions such as 3 or 0-4,7.")
    ] = "text",
    noise: Annotated[float, option("Noise in standard deviations of embeddings, above 0.")] = 3.0,
    samples: Annotated[int, option("Draws of the noise.", min=1)] = 10,
    seed: SeedOption = 0,
    ask: Ask,
    out: Annotated[Path | None, option("Write a figure (.svg, .png) or the numbers (.json).")] = None,
    placement: Placement,
) -> Output:
    """Corrupt a subject and show which hidden states, restored one by one, bring the answer back."""
    ask.require_one(image, text)
    ask.require_word(image, concept, target)
    if text is not None and subject is None:
        raise NeuronwiseError("Name the part of the text that is corrupted: --subject France.")
    if restore == "states":
        refuse("on states, which are restored one layer at a time", "window")
    chosen, rows = None if layers is None else parse_layers(layers), parse_positions(positions)
    require_file(out, *FIGURES)
    from neuronwise.read import causal_trace

    loaded = placement.load(model, "builtin" if text is None else "builtin-text")
    run = ask.run(loaded, image, text, look=bool(concept))
    token = run.answer if concept is None and target is None else target
    with progress_bar("restoring") as tell:
        found = causal_trace(
            loaded, run, concept, target=token, subject=subject, restore=restore, window=window, layers=chosen,
            positions=rows, noise=noise, samples=samples, seed=seed, tell=tell,
        )  # fmt: skip
    if out is not None:
        found.save(out)
    if "note" in found.record:
        note(found.record["note"])
    best = found.effects.argmax(0)
    table = [
        [token_line([label]), str(found.layers[layer]), f"{found.effects[layer, column]:.3f}"]
        for column, (label, layer) in enumerate(zip(found.tokens, best, strict=True))
    ]
    title = f"{token_line([found.target.text])}: p {found.clean:.3f}, {found.corrupted:.3f} corrupted"
    content = {**found.to_dict(), "command": command_line()}
    return Output(content, lambda: print_table(title, ["token", "best layer", "p regained"], table))
