"""What the shell shows: results on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from neuronwise.neurons import ScoredNeuron

SHOWN = 10  # neurons of a word in a table


def note(text: str) -> None:
    """Print a remark on standard error."""
    print(f"neuronwise: {text}", file=sys.stderr)


def counted(number: int, noun: str) -> str:
    """ "1 layer", "2 layers"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def command_line() -> str:
    """The command as it was typed."""
    return shlex.join(["neuronwise", *sys.argv[1:]])


def print_finding(content: Mapping[str, Any], out: Path | None) -> None:
    """Print the text and a table of neurons for each word, and where the page or the photos are."""
    if content["text"]:
        print(content["text"])
    for concept in content["concepts"]:
        rows = [
            [
                str(ScoredNeuron.from_row(row)),
                f"{row['score']:.3f}",
                "" if row["activation"] is None else f"{row['activation']:.3f}",
                token_line(row["tokens"]),
            ]
            for row in concept["neurons"][:SHOWN]
        ]
        found = len(concept["neurons"])
        title = token_line([concept["word"]]) + (f" ({SHOWN} of {found})" if found > SHOWN else "")
        print_table(title, ["neuron", "score", "activation", "tokens"], rows)
    if out is not None:
        print(f"photos: {out}" if "photos" in content else f"page: {out / 'index.html'}")


def token_line(tokens: Sequence[str]) -> str:
    """Tokens in one line, with "·" for a space and escapes for what cannot be seen."""
    return " ".join(repr(token)[1:-1].replace(" ", "·") for token in tokens)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, as wide as the terminal or 160 characters."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("neuron", "score", "activation"))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def print_json(content: Mapping[str, object]) -> None:
    """Print one JSON object in one line."""
    print(json.dumps(content, ensure_ascii=False, allow_nan=False))


@contextlib.contextmanager
def stdout_kept() -> Iterator[None]:
    """Send what libraries print to standard error, so that standard output holds the result alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def silence_libraries() -> None:
    """Keep libraries' warnings and progress bars from the user; works before they are imported, and after."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers, too, reads it when it is imported
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore")
    for name in ("transformers", "huggingface_hub", "torchao", "bitsandbytes", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if (loaded := sys.modules.get("transformers.utils.logging")) is not None:
        loaded.disable_progress_bar()
