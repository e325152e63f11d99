"""The command that draws the circuit behind a word of a caption, or behind the answer to a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuronwise.cli.app import Output, app, command
from neuronwise.cli.options import (
    Ask,
    ModelOption,
    PhotoArgument,
    Placement,
    TextOption,
    TokenOption,
    WordOption,
    parse_contrast,
    require_folder,
)
from neuronwise.cli.output import command_line, note, print_table, token_line
from neuronwise.cli.progress import status

if TYPE_CHECKING:
    from neuronwise.locate.graph import Circuit, Edge

LISTED = 10


@command(app)
def circuit(
    *,
    image: PhotoArgument = None,
    text: TextOption = None,
    model: ModelOption = None,
    concept: WordOption = None,
    target: TokenOption = None,
    nodes: Annotated[int, typer.Option(min=1, help="Neurons, each at its position.")] = 100,
    heads: Annotated[
        int,
        typer.Option(min=0, help="Attribute edges to this many pairs of a node and an attention head, the strongest."),
    ] = 100,
    contrast: Annotated[
        list[str] | None, typer.Option(help="As for find.", show_default="the mean of all tokens")
    ] = None,
    ask: Ask,
    out: Annotated[Path | None, typer.Option(help="Write a page (index.html) and circuit.json there.")] = None,
    placement: Placement,
) -> Output:
    """Draw the circuit behind a word: neurons at their positions, and how much of the logit each passes to others."""
    ask.require_one(image, text)
    ask.require_word(image, concept, target)
    require_folder(out)
    alternatives = parse_contrast(contrast) if contrast else None
    from neuronwise.locate import circuit as find_circuit

    loaded = placement.load(model, "builtin" if text is None else "builtin-text")
    run = ask.run(loaded, image, text, look=bool(concept))
    token = run.answer if concept is None and target is None else target
    with status("tracing the circuit"):
        found = find_circuit(loaded, run, concept, target=token, nodes=nodes, heads=heads, contrast=alternatives)
    if out is not None:
        found.page(out)
    if "note" in found.record:
        note(found.record["note"])
    content = {**found.to_dict(), "command": command_line()}
    rows = [
        [_with_token(edge.source, found), edge.target, f"{edge.weight:.3f}", _by_heads(edge)]
        for edge in found.edges[:LISTED]
    ]
    title = f"{len(found.nodes)} nodes, {len(found.edges)} edges"
    return Output(content, lambda: print_table(title, ["from", "to", "logits", "by heads"], rows))


def _with_token(place: str, circuit: Circuit) -> str:
    """A place of the circuit; of a position of the prompt also the token there, or that it is a patch of the photo."""
    leaf = next((leaf for leaf in circuit.leaves if place == f"@{leaf.position}"), None)
    if leaf is None:
        return place
    return f"{place} {'patch' if leaf.kind == 'image' else token_line([leaf.label])}"


def _by_heads(edge: Edge) -> str:
    """The three heads that carry most of an edge."""
    return ", ".join(f"{head} {weight:.3f}" for head, weight in list(edge.heads.items())[:3])
