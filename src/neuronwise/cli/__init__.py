"""The command line: results on standard output, everything else on standard error."""

from __future__ import annotations

import os
import sys

from typer import Abort

# Each registers its commands by being imported; --help lists them in this order.
from neuronwise.cli import find, evidence, lens, trace, circuit, decode, suppress  # noqa: F401  # isort: skip
from neuronwise.cli import edit, evaluate, statistics, index, explain, study, view  # noqa: F401  # isort: skip
from neuronwise.cli import neurons, models, methods, check, presets, convert, sbu  # noqa: F401  # isort: skip
from neuronwise.cli.app import app
from neuronwise.cli.output import note, ready_streams, silence_libraries
from neuronwise.errors import NeuronwiseError, is_out_of_memory, reason

MISUSED = 2
UNREAD = 141  # 128 + SIGPIPE
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main() -> None:
    """Run the command line; user errors print one sentence on standard error and exit with status 2."""
    silence_libraries()
    ready_streams()
    try:
        status = app(standalone_mode=False)
        sys.stdout.flush()
        if status == INTERRUPTED:  # typer makes a status of it
            raise KeyboardInterrupt
        sys.exit(status or 0)
    except NeuronwiseError as error:
        note(str(error))
        sys.exit(MISUSED)
    except (KeyboardInterrupt, Abort):
        note("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # who read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(UNREAD)
    except OSError as error:  # of the file system or of standard output
        named = "" if error.filename is None else f"'{os.fsdecode(error.filename)}': "
        note(f"{named}{reason(error)}.")
        sys.exit(MISUSED)
    except Exception as error:
        if is_out_of_memory(error):
            note("out of memory: take a smaller model or photo, --dtype bfloat16, or --device-map auto.")
            sys.exit(MISUSED)
        if not hasattr(error, "format_message"):
            raise
        _print_misuse(error)
        sys.exit(MISUSED)


def _print_misuse(error: Exception) -> None:
    """Print a click error of usage; typer may bring its own copy of click, so it is known by its methods alone."""
    text = str(getattr(error, "format_message")())  # noqa: B009
    if type(error).__name__ == "NoArgsIsHelpError":
        print(text, file=sys.stderr)
        return
    context = getattr(error, "ctx", None)
    hint = "" if context is None else f" See {context.command_path} --help."
    sentence = " ".join(text.split())
    note(sentence + ("" if sentence.endswith((".", "?")) else ".") + hint)


__all__ = ["app", "main"]
