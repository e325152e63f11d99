"""The command that makes a published checkpoint an ordinary folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from neuronwise.architectures.convert.converters import CONVERTERS
from neuronwise.cli.app import Output, app, argument, command, option
from neuronwise.cli.options import DtypeOption
from neuronwise.cli.output import counted, note
from neuronwise.cli.progress import progress_bar


@command(app)
def convert(
    *,
    name: Annotated[str, argument(f"The converter: {', '.join(CONVERTERS)}.")],
    parts: Annotated[list[Path], argument("The files and folders as they were downloaded, in any order.")],
    out: Annotated[Path, option("The folder to write; an interrupted conversion resumes there.")],
    dtype: DtypeOption = None,
) -> Output:
    """Convert a published checkpoint that transformers cannot open into an ordinary Hugging Face folder."""
    from neuronwise.architectures.convert import convert as make
    from neuronwise.model.weights import precision

    chosen = None if dtype is None else precision(dtype)

    with progress_bar("converting") as progress:
        made = make(name, parts, out, dtype=chosen, progress=progress)
    for line in made["notes"]:
        note(line)
    if made["resumed_shards"]:
        note(f"resumed after {counted(made['resumed_shards'], 'finished file')}")
    summary = (
        f"{made['variant']}: {made['parameters']:,} parameters in {made['tensors']} tensors, {made['dtype']}, "
        f"{made['bytes'] / 1e9:.3g} GB, {counted(len(made['shards']), 'file')}: {out}"
    )
    return Output({"schema": "neuronwise.convert/1", **made}, lambda: print(summary))
