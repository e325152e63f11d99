"""The command line: results on standard output, everything else on standard error."""

from __future__ import annotations

import sys

from neuronwise.cli import edit as _edit  # noqa: F401, its commands are registered by import
from neuronwise.cli import evaluate as _evaluate  # noqa: F401, its command is registered by import
from neuronwise.cli import statistics as _statistics  # noqa: F401, its command is registered by import
from neuronwise.cli import study as _study  # noqa: F401, its commands are registered by import
from neuronwise.cli.commands import app
from neuronwise.cli.output import silence_libraries
from neuronwise.errors import NeuronwiseError


def main() -> None:
    """Run the command line; what a user got wrong is one sentence on standard error and exit status 2."""
    silence_libraries()
    try:
        app()
    except NeuronwiseError as error:
        print(f"neuronwise: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("neuronwise: interrupted", file=sys.stderr)
        sys.exit(130)


__all__ = ["app", "main"]
