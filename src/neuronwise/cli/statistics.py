"""The command that gathers key statistics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from neuronwise.cli.app import Output, app, argument, command, option, refuse
from neuronwise.cli.options import ModelOption, Placement, parse_layers
from neuronwise.cli.output import counted, note
from neuronwise.cli.progress import progress_bar
from neuronwise.data.texts import KINDS, text_files
from neuronwise.errors import NeuronwiseError, reason

if TYPE_CHECKING:
    from datasets import IterableDataset


@command(app)
def statistics(
    *,
    text: Annotated[str, argument("A .txt or .jsonl file, a folder of them, or a dataset of the datasets library.")],
    layers: Annotated[str, option("Layers such as 5, 4-8 or 3,5,7.")],
    out: Annotated[Path, option("The folder to write; interrupted reading resumes there.")],
    model: ModelOption = None,
    tokens: Annotated[int, option("Read at most this many positions.", min=1)] = 100_000,
    field: Annotated[str, option("The text's field in .jsonl or a dataset.")] = "text",
    split: Annotated[str, option("The split of a dataset.")] = "train",
    length: Annotated[int, option("Tokens in one passage.", min=1)] = 512,
    batch: Annotated[int, option("Passages in one pass.", min=1)] = 8,
    placement: Placement,
) -> Output:
    """Gather second moments of W_down's inputs over a text, for the editors of ROME's family."""
    chosen = parse_layers(layers)
    source = _source(text, split)
    from neuronwise.edit.memory.gather import gather_statistics, statistics_size
    from neuronwise.edit.memory.keys import critical_layers

    loaded = placement.load(model, "builtin-text")
    size = statistics_size(loaded, critical_layers(loaded, chosen, (0, 0)))
    note(f"{size / 1e6:.3g} MB for {counted(len(chosen), 'layer')} in '{out}'")
    with progress_bar("reading") as progress:
        found = gather_statistics(
            loaded, source, chosen, out,
            tokens=tokens, field=field, length=length, batch=batch, name=text, progress=progress,
        )  # fmt: skip
    summary = f"{found.tokens} tokens of {text}, layers {', '.join(map(str, found.layers))}: {out}"
    return Output({**found.about, "folder": str(out), "bytes": size}, lambda: print(summary))


def _source(text: str, split: str) -> Path | IterableDataset:
    """A path as it is, or a dataset by name (``name`` or ``name:configuration``), streamed."""
    path = Path(text)
    if path.exists() or path.suffix in KINDS:
        refuse("without a dataset of the datasets library", "split")
        if all(file.suffix != ".jsonl" for file in text_files(path)):
            refuse("without a .jsonl file or a dataset", "field")
        return path
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise NeuronwiseError(
            f"There is no file or folder '{text}'; to read a dataset of that name, pip install datasets."
        ) from error
    name, _, configuration = text.partition(":")
    try:
        return load_dataset(name, configuration or None, split=split, streaming=True)
    except Exception as error:  # whatever the library, the hub or the network raise
        raise NeuronwiseError(f"There is no file or folder '{text}', and no dataset: {reason(error)}") from error
