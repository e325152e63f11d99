"""What a text command costs from a cold start, over importing torch and transformers and loading the same weights.

    python benchmarks/cold_start.py

Each turn is a process of its own; processor seconds of it and its children, one thread, turns alternating.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile

PLAIN = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
AutoModelForCausalLM.from_pretrained(sys.argv[1])
AutoTokenizer.from_pretrained(sys.argv[1])
"""
TEXT = "The capital of France is"


def seconds(command: list[str]) -> float:
    """Processor seconds of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile() as output:
        subprocess.run(command, stdout=output, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(folder: str, repeats: int) -> dict[str, list[float]]:
    """Seconds of every turn after one that is not counted."""
    commands = {
        "import and load": [sys.executable, "-c", PLAIN, folder],
        "find --text": [sys.executable, "-m", "neuronwise", "find", "--text", TEXT, "--model", folder, "--json"],
    }
    turns = [{name: seconds(command) for name, command in commands.items()} for _ in range(repeats + 1)]
    return {name: [turn[name] for turn in turns[1:]] for name in commands}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder; the built-in text model when left out")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    found = measure(options.model or builtin_folder(), options.repeats)
    middle = {name: statistics.median(turns) for name, turns in found.items()}
    print("| | processor seconds, median | ratio |\n|---|---|---|")
    for name, value in middle.items():
        print(f"| {name} | {value:.2f} | {value / middle['import and load']:.2f} |")


def builtin_folder() -> str:
    """Where the built-in text model lies, made when it is missing."""
    script = "from neuronwise.model.source import checkpoint_of; print(checkpoint_of('builtin-text')[0])"
    return subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
