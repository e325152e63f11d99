"""What ``find`` does with many texts, one a line of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronwise.cli.options import CONTINUED, Ask, Scoring, Words
from neuronwise.cli.output import command_line, note
from neuronwise.cli.photos import joining
from neuronwise.cli.progress import progress_bar
from neuronwise.data.texts import read_lines
from neuronwise.errors import NeuronwiseError, TargetError

if TYPE_CHECKING:
    from neuronwise.model import Model, Run
    from neuronwise.model.halving import BatchSize


def find_in_texts(
    file: Path,
    load: Callable[[], Model],
    words: Words,
    scoring: Scoring,
    ask: Ask,
    size: BatchSize,
    out: Path | None,
) -> dict[str, Any]:
    """Find words, tokens or the answer in each of several texts and in all of them together: what is printed."""
    from neuronwise.read.findings import find_in_each

    texts = read_lines(file)
    options, agree = joining(scoring)
    model = load()
    runs, left_out = _runs(model, texts, words, ask, size)
    concepts = {name: _named(run, words.concepts, left_out, name) for name, run in runs.items()}
    answered = not words.targets and not words.concepts
    asked: dict[str, list[str | int]] = {
        name: [run.answer] if answered else [*words.targets] for name, run in runs.items()
    }
    if not any([*concepts.values(), *asked.values()]):
        why = "; ".join(f"line {name}: {reason}" for name, reason in left_out.items())
        raise TargetError(f"No text has a word to look for ({why}).")
    scoring.gather(model, options)
    found = find_in_each(
        runs, concepts, files=None, targets=asked, left_out=left_out, agree=agree, at_least=2, form=scoring.form,
        heat=False, top=words.top, seed=scoring.seed, method=None if scoring.by_default else scoring.chosen,
        position=words.position, **options,
    )  # fmt: skip
    content = {**found.to_dict(), "command": command_line()}
    for name, why in left_out.items():
        note(f"line {name} is left out: {why}")
    if not found.together:
        note("the texts share no word; " + ("each has its own page" if out else "--json or --out DIR has each text's"))
    if out is not None:
        from neuronwise.report import write_findings

        write_findings(out, found, content)
    return content


def _runs(
    model: Model, texts: dict[str, str], words: Words, ask: Ask, size: BatchSize
) -> tuple[dict[str, Run], dict[str, str]]:
    """The runs of texts by their lines, and why others have none."""
    length = (CONTINUED if words.concepts else 0) if ask.max_new_tokens is None else ask.max_new_tokens
    with progress_bar("reading texts") as bar:
        made = model.run_many(
            prompts=list(texts.values()), max_new_tokens=length, chat=bool(ask.chat), batch_size=size, errors="return",
            progress=bar,
        )  # fmt: skip
    named = list(zip(texts, made, strict=True))
    failed = {name: str(one) for name, one in named if isinstance(one, NeuronwiseError)}
    return {name: one for name, one in named if not isinstance(one, NeuronwiseError)}, failed


def _named(run: Run, concepts: list[str], left_out: dict[str, str], name: str) -> dict[str, str]:
    """The words that the continuation has; why a text has none of them is noted."""
    found: dict[str, str] = {}
    for concept in concepts:
        try:
            found[concept] = run.concept(concept).word
        except TargetError as error:
            left_out.setdefault(name, str(error))
    if found:
        left_out.pop(name, None)
    return found
