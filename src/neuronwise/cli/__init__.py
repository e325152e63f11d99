"""The command line: results on standard output, everything else on standard error."""

from __future__ import annotations

import sys
from typing import Any

from typer import Abort

# Each registers its commands by being imported; --help lists them in this order.
from neuronwise.cli import commands, edit, evaluate, statistics, study, check, presets, convert  # noqa: F401  # isort: skip
from neuronwise.cli.app import app
from neuronwise.cli.output import silence_libraries
from neuronwise.errors import NeuronwiseError

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main() -> None:
    """Run the command line; what a user got wrong is one sentence on standard error and exit status 2."""
    silence_libraries()
    try:
        status = app(standalone_mode=False)
        if status == INTERRUPTED:  # typer makes a status of it
            raise KeyboardInterrupt
        sys.exit(status or 0)
    except NeuronwiseError as error:
        print(f"neuronwise: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, Abort):
        print("neuronwise: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:  # click's errors of usage, whose class typer may bring along itself
        say: Any = getattr(error, "format_message", None)
        if say is None:
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            print(say(), file=sys.stderr)
        else:
            context: Any = getattr(error, "ctx", None)
            hint = f" See {context.command_path} --help." if context is not None else ""
            print(f"neuronwise: {' '.join(say().split()).rstrip('.?')}.{hint}", file=sys.stderr)
        sys.exit(2)


__all__ = ["app", "main"]
