"""The command that gathers key statistics."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from neuronwise.cli.app import DeviceOption, DtypeOption, JsonOption, ModelOption, app, load_model
from neuronwise.cli.output import print_json, progress_bar, stdout_kept
from neuronwise.errors import NeuronwiseError


@app.command()
def statistics(
    text: Annotated[
        str, typer.Argument(help="A .txt or .jsonl file, a folder of them, or a data set of the datasets library.")
    ],
    layers: Annotated[str, typer.Option(help="Such as 5, 4-8 or 3,5,7.")],
    out: Annotated[Path, typer.Option(help="The folder to write; one that was begun is gone on with.")],
    model: ModelOption = None,
    tokens: Annotated[int, typer.Option(min=1, help="Positions to read at most.")] = 100_000,
    field: Annotated[str, typer.Option(help="Where the text stands in a row of .jsonl or a data set.")] = "text",
    split: Annotated[str, typer.Option(help="The split of a data set.")] = "train",
    length: Annotated[int, typer.Option(min=1, help="Tokens read at a time, as one passage.")] = 512,
    batch: Annotated[int, typer.Option(min=1, help="Passages in one pass.")] = 8,
    dtype: DtypeOption = None,
    device_map: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Gather second moments of W_down's inputs over a text, for rome, memit, pmet and alphaedit."""
    chosen = parse_layers(layers)
    with stdout_kept():
        source = _source(text, split)
        if isinstance(source, Path) and not source.exists():
            raise NeuronwiseError(f"There is no file or folder of text '{text}'.")
        from neuronwise.edit.memory.gather import gather_statistics, statistics_size
        from neuronwise.edit.memory.keys import critical_layers

        loaded = load_model("builtin-text" if model is None else model, dtype, device_map)
        size = statistics_size(loaded, critical_layers(loaded, chosen, (0, 0)))
        print(
            f"neuronwise: {size / 1e6:.3g} MB for {len(chosen)} {'layer' if len(chosen) == 1 else 'layers'} in '{out}'",
            file=sys.stderr,
        )
        with progress_bar("reading") as progress:
            found = gather_statistics(
                loaded, source, chosen, out,
                tokens=tokens, field=field, length=length, batch=batch, name=text, progress=progress,
            )  # fmt: skip
    content = {**found.about, "folder": str(out), "bytes": size}
    if as_json:
        print_json(content)
    else:
        print(f"{found.tokens} tokens of {text}, layers {', '.join(map(str, found.layers))}: {out}")


def parse_layers(text: str) -> list[int]:
    """Layers written as "5", "4-8" or "3,5-7"; raises ``NeuronwiseError`` for anything else."""
    chosen: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if found is None or (found[2] is not None and int(found[2]) < int(found[1])):
            raise NeuronwiseError(f"--layers is {text!r}; write layers such as 5, 4-8 or 3,5,7.")
        chosen += range(int(found[1]), int(found[2] or found[1]) + 1)
    return sorted(set(chosen))


def _source(text: str, split: str) -> Any:
    """A path as it is, else a data set by name (``name`` or ``name:configuration``), streamed."""
    if Path(text).exists() or Path(text).suffix in (".txt", ".jsonl", ".md"):
        return Path(text)
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise NeuronwiseError(
            f"There is no file or folder '{text}'; to read a data set of that name, pip install datasets."
        ) from error
    name, _, configuration = text.partition(":")
    try:
        return load_dataset(name, configuration or None, split=split, streaming=True)
    except Exception as error:  # whatever the library, the hub or the network say
        raise NeuronwiseError(f"There is no file or folder '{text}', and no data set: {error}") from error
