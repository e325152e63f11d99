"""The command that reads a token in the residual stream, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from neuronwise.cli.app import Output, app, command, option
from neuronwise.cli.options import (
    FIGURES,
    Ask,
    ModelOption,
    PhotoArgument,
    Placement,
    TextOption,
    TokenOption,
    WordOption,
    parse_positions,
    require_file,
)
from neuronwise.cli.output import command_line, note, print_table, token_line
from neuronwise.cli.progress import status


@command(app)
def lens(
    *,
    image: PhotoArgument = None,
    text: TextOption = None,
    model: ModelOption = None,
    concept: WordOption = None,
    target: TokenOption = None,
    positions: Annotated[
        str, option("text (all but an image's tokens), image, all, predicting, or positions such as 3 or 0-4,7.")
    ] = "text",
    ask: Ask,
    out: Annotated[Path | None, option("Write a figure (.svg, .png) or the numbers (.json).")] = None,
    placement: Placement,
) -> Output:
    """Show how likely a word already is in the residual stream behind each layer, read through the final norm."""
    ask.require_one(image, text)
    ask.require_word(image, concept, target)
    rows = parse_positions(positions)
    require_file(out, *FIGURES)
    from neuronwise.read import lens as read_lens

    loaded = placement.load(model, "builtin" if text is None else "builtin-text")
    run = ask.run(loaded, image, text, look=bool(concept))
    token = run.answer if concept is None and target is None else target
    with status("reading the layers"):
        found = read_lens(loaded, run, concept, target=token, positions=rows)
    if out is not None:
        found.save(out)
    if "note" in found.record:
        note(found.record["note"])
    shown = [
        [str(layer), token_line([found.likeliest[layer][-1]]), f"{found.log_probs[layer, -1]:.2f}", str(rank)]
        for layer, rank in enumerate(found.ranks[:, -1])
    ]
    title = f"{token_line([found.target.text])} at position {found.positions[-1]} ({token_line([found.tokens[-1]])})"
    content = {**found.to_dict(), "command": command_line()}
    return Output(content, lambda: print_table(title, ["layer", "likeliest", "log p", "rank"], shown))
