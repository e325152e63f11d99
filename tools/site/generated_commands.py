"""The page of the command line, from the commands themselves; neither torch nor transformers is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from neuronwise.cli.app import app

INTRODUCTION = """# Command line

Results go to standard output, everything else to standard error. `--json` prints one JSON object, described by a
[schema](schemas.md), in place of the table. User errors print one sentence and exit with status 2.
`neuronwise --install-completion` sets up completion in your shell.
"""


def commands_page() -> str:
    """Every command with its arguments and options."""
    import neuronwise.cli  # noqa: F401 (registers the commands)

    return "\n".join([INTRODUCTION, *_group(typer.main.get_command(app), "neuronwise", 2)])


def _group(group: Any, path: str, level: int) -> Iterator[str]:
    for name, command in group.commands.items():
        full = f"{path} {name}"
        yield f"{'#' * level} {full}\n"
        yield f"{command.help}\n"
        if hasattr(command, "commands"):
            yield from _group(command, full, level + 1)
        else:
            yield from _command(command, full)


def _command(command: Any, path: str) -> Iterator[str]:
    context = typer.Context(command, info_name=path)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```\n{path} {usage}\n```\n"
    yield "| | |\n|---|---|"
    for parameter in command.params:
        names, text = parameter.get_help_record(context)
        yield f"| `{_cell(names)}` | {_cell(text).replace('<', '&lt;')} |"
    yield ""
    for line in (command.epilog or "").split("\n\n"):
        if line:
            title, _, listed = line.partition(": ")
            yield f"{title}: {', '.join(f'`{name}`' for name in listed.rstrip('.').split(', '))}.\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
