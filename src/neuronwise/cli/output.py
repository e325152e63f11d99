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

from neuronwise.errors import one_line
from neuronwise.files import shareable
from neuronwise.neurons import ScoredNeuron

SHOWN = 10  # neurons of a word in a table
TOKENS = 8  # of a neuron there
ENDS = ("raises", "lowers")
SOMETIMES = ("adds", "own", "usually")  # columns that are left out where no neuron has them


def note(text: str) -> None:
    """Print a remark on standard error, in one line."""
    with contextlib.suppress(OSError):  # which may be full or gone
        print(f"neuronwise: {one_line(text)}", file=sys.stderr)


def counted(number: int, noun: str) -> str:
    """ "1 layer", "2 layers"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def command_line() -> str:
    """The command as it was typed, without the folders of this machine: it is part of what is shared."""
    return shlex.join(["neuronwise", *map(shareable, sys.argv[1:])])


def print_finding(content: Mapping[str, Any], out: Path | None) -> None:
    """Print the text, or each of several, a table of neurons for each word, and where the page is."""
    if content["text"]:
        print(content["text"])
    several = content.get("photos") or content.get("texts")
    for one in several if isinstance(several, list) else ():
        print(f"{one['id']}: {one['text']}" if "prompt" not in one else _text_line(one))
    for concept in content["concepts"]:
        print_concept(concept, published=content.get("form") == "logits")
    if out is not None:
        page = out / "index.html"
        print(f"page: {page}" if page.exists() else f"photos: {out}")


def _text_line(one: Mapping[str, Any]) -> str:
    """A text of several, with what was looked for in it."""
    said = " ".join(filter(None, (one["prompt"].strip(), one["text"])))
    return f"{one['id']}: {said} ({token_line([concept['word'].strip() for concept in one['concepts']])})"


def print_concept(concept: Mapping[str, Any], *, published: bool) -> None:
    """Print a word's first neurons: their score, what they add, activation, what they usually do, and their tokens."""
    shown: Sequence[Mapping[str, Any]] = concept["neurons"][:SHOWN]
    columns = {
        "neuron": [str(ScoredNeuron.from_row(row)) for row in shown],
        "score": [_number(row["score"]) for row in shown],
        "adds": [_number(row.get("adds")) for row in shown],
        "own": [_number(row.get("own")) for row in shown],
        "activation": [_number(row["activation"]) for row in shown],
        "usually": [_number(row.get("baseline")) for row in shown],
        **{end: [people_see(row[end]) for row in shown] for end in (("tokens",) if published else ENDS)},
    }
    columns = {name: cells for name, cells in columns.items() if name not in SOMETIMES or any(cells)}
    found = len(concept["neurons"])
    title = token_line([concept["word"]]) + (f" ({SHOWN} of {found})" if found > SHOWN else "")
    print_table(title, list(columns), list(zip(*columns.values(), strict=True)))
    if concept.get("heads"):
        rows = [
            [f"L{row['layer']}.H{row['head']}", _number(row["score"]), *(people_see(row[end]) for end in ENDS)]
            for row in concept["heads"][:SHOWN]
        ]
        print_table("", ["head", "score", *ENDS], rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def people_see(tokens: Sequence[str]) -> str:
    """The first tokens of a neuron in one line, those that differ in case and blanks alone once."""
    from neuronwise.read.decode import merged

    return token_line(merged(tokens)[:TOKENS])


def token_line(tokens: Sequence[str]) -> str:
    """Tokens in one line, with "·" for a space and escapes for what cannot be seen."""
    return " ".join(repr(token)[1:-1].replace(" ", "·") for token in tokens)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, as wide as the terminal or 160 characters."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(
            column, overflow="fold", no_wrap=column in ("neuron", "head", "score", "activation", *SOMETIMES)
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 160)
    if title:  # not the table's own, which would be folded to its width
        console.print(Text(title, style="italic"))
    console.print(table)


def print_json(content: Mapping[str, object]) -> None:
    """Print one JSON object in one line, with escapes for what standard output cannot hold."""
    line = json.dumps(content, ensure_ascii=False, allow_nan=False)
    try:
        line.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        line = json.dumps(content, allow_nan=False)
    print(line)


def ready_streams() -> None:
    """Characters that a stream cannot hold are written as escapes; a stream that is closed takes everything."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (as long as the process)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


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
