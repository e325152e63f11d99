"""Conformance of the tiny models of ``families``, and the table of it that the documentation shows.

python tests/conformed.py docs/results/conformance.md      # put the table between the page's marks
python tests/conformed.py                    # print it
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import families
from neuronwise.check import FAILED, NAMES, NOT_APPLICABLE, PASSED, Report, conform
from neuronwise.model import Model
from neuronwise.model.prompt import Prompted

SIGNS = {PASSED: "✓", FAILED: "**✗**", NOT_APPLICABLE: "–"}
MARKS = re.compile(r"(<!-- table: begin -->\n).*?(<!-- table: end -->)", re.DOTALL)
# With their own processors, see ``placing``: there attention writes nothing, and everything else is as it is.
PROCESSED = (
    "mllama", "vipllava", "idefics2", "smolvlm", "aya_vision", "mistral3", "pixtral", "ovis2", "glm4v", "janus",
    "deepseek_vl", "aria", "kosmos-2", "chameleon", "emu3",
)  # fmt: skip
WIDE = {"llava_next": (32, 16), "llava_onevision": (32, 16)}  # photos cut into tiles


def words() -> Any:
    """A tokenizer of ``families.VOCABULARY`` words, one token each."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"w{index}": index for index in range(families.VOCABULARY)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="w1", eos_token="w2", pad_token="w0")


def tiny(name: str, dtype: torch.dtype = torch.float32) -> tuple[Model, Prompted, Image.Image | None]:
    """A tiny model with a prompt, and a photo where it reads one."""
    module, inputs = families.tiny(name, dtype)
    photo = Image.new("RGB", WIDE.get(name, (16, 16))) if name in families.IMAGE_TEXT else None
    return Model(module, words(), name=name), Prompted("", False, inputs), photo


def conformed(name: str, dtype: torch.dtype = torch.float32) -> Report:
    return conform(*tiny(name, dtype))


def processed(name: str) -> Report:
    """The same of a tiny model that reads a photo through its own processor."""
    from placing import placing

    model, prompt = placing(name)
    model.name = f"{name}, own processor"
    colors = np.random.default_rng(0).integers(0, 2, (4, 6, 3))
    photo = Image.fromarray(np.kron(colors, np.ones((8, 8, 1))).astype(np.uint8) * 255)
    return conform(model, *model.prepare(photo, prompt))


def table(reports: list[Report]) -> str:
    """Architectures down, checks across; the reasons for every check that does not apply, or failed, below."""
    lines = ["| architecture | " + " | ".join(NAMES) + " |", "|---" * (len(NAMES) + 1) + "|"]
    reasons: dict[tuple[str, str], list[str]] = {}
    for report in reports:
        lines.append(f"| {report.model} | " + " | ".join(SIGNS[one.outcome] for one in report.results) + " |")
        for one in report.results:
            if one.outcome != PASSED:
                sign = "" if one.outcome == NOT_APPLICABLE else "failed: "
                reasons.setdefault((one.name, f"{sign}{one.detail}"), []).append(report.model)
    counts = {outcome: sum(report.count(outcome) for report in reports) for outcome in SIGNS}
    total = f"{len(reports)} architectures: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    lines += ["", f"{total}.", "", "Where a check does not apply:", ""]
    for (name, reason), models in sorted(reasons.items()):
        among = "all that read no photo" if name in ("span", "heat") and len(models) > 10 else ", ".join(models)
        lines.append(f"- `{name}`: {reason.rstrip(chr(46))} ({among}).")
    return "\n".join(lines) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    reports = []
    for name in families.NAMES:
        print(name, file=sys.stderr)  # noqa: T201
        reports.append(conformed(name))
    for name in PROCESSED:
        print(name, file=sys.stderr)  # noqa: T201
        reports.append(processed(name))
    text = table(reports)
    if len(sys.argv) > 1:
        page = Path(sys.argv[1])
        page.write_text(MARKS.sub(lambda found: f"{found[1]}{text}{found[2]}", page.read_text(encoding="utf-8")))
    else:
        print(text)  # noqa: T201


if __name__ == "__main__":
    main()
