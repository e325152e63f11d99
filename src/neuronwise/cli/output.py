"""What the shell sees: results on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def print_notes(content: dict[str, Any]) -> None:
    for concept in content["concepts"]:
        if concept.get("note"):
            print(f"neuronwise: {concept['note']}", file=sys.stderr)


def print_finding(content: dict[str, Any], out: Path | None) -> None:
    from neuronwise.neurons import ScoredNeuron

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
            for row in concept["neurons"][:10]
        ]
        left = len(concept["neurons"]) - len(rows)
        title = token_line([concept["word"]]) + (f" (10 of {left + len(rows)})" if left else "")
        print_table(title, ["neuron", "score", "activation", "tokens"], rows)
    if out is not None:
        print(f"page: {out / 'index.html'}")


def token_line(tokens: list[str]) -> str:
    return " ".join(repr(token)[1:-1].replace(" ", "·") for token in tokens)


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("neuron", "score", "activation"))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, ensure_ascii=False, allow_nan=False))


@contextlib.contextmanager
def stdout_kept() -> Iterator[None]:
    """What libraries print within the body goes to standard error, so that standard output holds the result alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def status(what: str) -> Iterator[None]:
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


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
