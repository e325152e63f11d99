"""The command that makes a published checkpoint an ordinary folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from neuronwise.cli.app import JsonOption, app
from neuronwise.cli.output import print_json, progress_bar, stdout_kept
from neuronwise.errors import NeuronwiseError

DTYPES = ("float32", "bfloat16", "float16")


@app.command()
def convert(
    name: Annotated[str, typer.Argument(help="minigpt4 or mplug_owl2.")],
    parts: Annotated[list[Path], typer.Argument(help="The files and folders as they were downloaded, in any order.")],
    out: Annotated[Path, typer.Option(help="The folder to make; one that was begun is gone on with.")],
    dtype: Annotated[
        str | None, typer.Option(help=f"{', '.join(DTYPES)}; that of the language model's part by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a published checkpoint that transformers cannot open an ordinary Hugging Face folder."""
    if dtype is not None and dtype not in DTYPES:
        raise NeuronwiseError(f"There is no dtype '{dtype}'; use {', '.join(DTYPES[:-1])} or {DTYPES[-1]}.")
    with stdout_kept():
        import torch

        from neuronwise.architectures.convert import convert as make

        with progress_bar("converting") as progress:
            chosen: Any = None if dtype is None else getattr(torch, dtype)
            made = make(name, parts, out, dtype=chosen, progress=progress)
    for note in made["notes"]:
        print(f"neuronwise: {note}", file=sys.stderr)
    if as_json:
        print_json({"schema": "neuronwise.convert/1", **made})
        return
    if made["resumed_shards"]:
        print(f"gone on after {made['resumed_shards']} finished files", file=sys.stderr)
    print(
        f"{made['variant']}: {made['parameters']:,} parameters in {made['tensors']} tensors, {made['dtype']}, "
        f"{made['bytes'] / 1e9:.3g} GB, {len(made['shards'])} {'file' if len(made['shards']) == 1 else 'files'}: {out}"
    )
