"""The command that shows which regions of a photo a word of its caption depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from neuronwise.cli.app import Names, Output, app, argument, command, option
from neuronwise.cli.options import Ask, ModelOption, Placement, SetOption, parse_settings, require_file, require_photos
from neuronwise.cli.output import command_line, note, print_table
from neuronwise.cli.progress import status
from neuronwise.errors import NeuronwiseError
from neuronwise.read.evidence.table import EVIDENCE


@command(app)
def evidence(
    *,
    image: Annotated[Path, argument("A photo.")],
    model: ModelOption = None,
    concept: Annotated[str | None, option("A word of the caption.")] = None,
    target: Annotated[str | None, option("Any token instead, generated or not, such as ' dog'.")] = None,
    by: Annotated[
        str, option("The kind of evidence, listed below."), Names("Kinds of evidence", EVIDENCE)
    ] = "occlusion",
    settings: SetOption = None,
    ask: Ask,
    out: Annotated[Path | None, option("Write the photo with the map laid over it, such as dog.png.")] = None,
    placement: Placement,
) -> Output:
    """Show which regions of a photo a word of its caption depends on."""
    if (concept is None) == (target is None):
        raise NeuronwiseError("Name a word of the caption: --concept WORD, or any token: --target TOKEN.")
    options = parse_settings(settings)
    EVIDENCE[by].check(options)
    require_photos([image])
    require_file(out)
    if out is not None:
        from neuronwise.images.open import format_of

        format_of(out)
    from neuronwise.read import evidence as find_evidence

    loaded = placement.load(model)
    run = ask.photo(loaded, image)
    with status(f"evidence by {by}"):
        found = find_evidence(loaded, run, concept, target=target, by=by, **options)
    if out is not None:
        found.save(out)
    head = {"schema": "neuronwise.evidence/1", "model": loaded.name, "prompt": run.prompt, "text": run.text}
    word = {"word": found.target.text, "token_id": found.target.token_id, "position": found.target.position}
    content = {**head, **word, **found.to_dict(), "command": command_line()}
    for remark in filter(None, (found.target.note, found.note)):
        note(remark)
    rows = [[f"{value:.2f}" for value in row] for row in found.grid]
    meaning = EVIDENCE[by].meaning.format(token=repr(found.target.text))
    return Output(content, lambda: print_table(f"{run.text}\n{meaning} ({found.unit})", [""] * len(rows[0]), rows))
