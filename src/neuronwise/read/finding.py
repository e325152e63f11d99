"""A finding: for each word of a text its neurons, what they mean and where they fire, in one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from neuronwise.errors import MethodError, PromptError, TargetError
from neuronwise.locate.locating import describe
from neuronwise.locate.methods import METHODS
from neuronwise.model.run import Run, Target
from neuronwise.neurons import NeuronSet
from neuronwise.read.decode import decode_all
from neuronwise.read.heatmap import Heatmap, heatmaps

if TYPE_CHECKING:
    from neuronwise.model import Model

SCHEMA = "neuronwise.find/1"


@dataclass(frozen=True)
class FoundConcept:
    """One word (or target) with its ranked neurons, their tokens (n × 10) and, for an image, its heatmap."""

    word: str
    target: Target
    spans: tuple[tuple[int, int], ...]
    neurons: NeuronSet
    tokens: list[list[str]]
    heat: Heatmap | None = None
    heat_note: str | None = None


@dataclass(frozen=True)
class Finding:
    """What ``find`` found in one run; ``to_dict`` is the object that the shell prints with --json."""

    run: Run = field(repr=False)
    method: str
    options: dict[str, Any]
    top: int
    seed: int
    concepts: tuple[FoundConcept, ...]

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain JSON values, in the form ``neuronwise.find/1``."""
        record = describe(self.run.model, self.run, self.concepts[0].target, self.method, self.options)
        method = METHODS[self.method]
        return {
            "schema": SCHEMA,
            "model": record["model"],
            "prompt": self.run.prompt,
            "chat": self.run.chat,
            "text": self.run.text,
            "method": method.name,
            "meaning": method.meaning,
            "source": method.source,
            "options": record["options"],
            "activation": record["activation"],
            "seed": self.seed,
            "top": self.top,
            "num_layers": self.run.model.num_layers,
            "versions": record["versions"],
            "concepts": [_concept_dict(self.run, concept) for concept in self.concepts],
        }


def find(
    model: Model,
    run: Run,
    concepts: Sequence[str] | None = None,
    targets: Sequence[str | int] = (),
    *,
    method: str = "contribution",
    top: int = 100,
    seed: int = 0,
    heat: bool = True,
    position: int | None = None,
    **options: Any,
) -> Finding:
    """Locate and read the neurons behind words of a run's text: all its nouns, or the named ``concepts``.

    ``targets`` are scored besides, whether they were said or not, at ``position`` where it is given. All words share
    their passes. Raises ``TargetError`` when there is nothing to score.
    """
    words = [run.concept(word) for word in concepts] if concepts is not None else ([] if targets else run.concepts)
    wanted = [run.target(concept) for concept in words] + [
        run.target(target=target, position=position) for target in targets
    ]
    if not wanted:
        hint = "name a word with a concept or a target" if run.text else "nothing was said, so name a target"
        raise TargetError(f"The text {run.text!r} has no noun to look for; {hint}.")
    chosen = METHODS[method]
    if "seed" in chosen.options:
        options = {**options, "seed": seed}
    scored = chosen.score(model, run, wanted, chosen.for_top(top, options))
    sets = [
        scores.top(top, describe(model, run, target, method, options))
        for scores, target in zip(scored, wanted, strict=True)
    ]
    tokens = iter(decode_all(model, [member for one in sets for member in one]))
    maps, note = _heat(model, run, sets) if heat and run.image is not None else ([None] * len(sets), None)
    offset = len(model.decode_ids(run.output_ids)) - len(model.decode_ids(run.output_ids).lstrip())
    found = []
    for index, target in enumerate(wanted):
        spans: tuple[tuple[int, int], ...] = ()
        if index < len(words):
            spans = tuple((o.start - offset, o.end - offset) for o in words[index].occurrences)
        own = [next(tokens) for _ in sets[index]]
        found.append(FoundConcept(target.text, target, spans, sets[index], own, maps[index], note))
    return Finding(run, method, options, top, seed, tuple(found))


def _heat(model: Model, run: Run, sets: list[NeuronSet]) -> tuple[list[Heatmap | None], str | None]:
    """Heatmaps where the model has a grid; else none, and the reason."""
    try:
        maps = heatmaps(model, run, sets)
    except (PromptError, MethodError) as error:
        return [None] * len(sets), str(error)
    return list(maps), maps[0].note


def _concept_dict(run: Run, concept: FoundConcept) -> dict[str, Any]:
    generated = bool(run.output_ids)
    row: dict[str, Any] = {
        "word": concept.word,
        "token": run.model.tokenizer.decode([concept.target.token_id], clean_up_tokenization_spaces=False),
        "token_id": concept.target.token_id,
        "position": concept.target.position if generated else None,
        "occurrences": [list(span) for span in concept.spans],
    }
    if concept.target.note:
        row["note"] = concept.target.note
    row["neurons"] = [
        {**member.to_row(), "tokens": tokens} for member, tokens in zip(concept.neurons, concept.tokens, strict=True)
    ]
    return row
