"""A finding: for each word of a text its neurons, what they mean and where they fire, in one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from neuronwise.errors import MethodError, PromptError, TargetError
from neuronwise.locate.locating import describe
from neuronwise.locate.methods import METHODS
from neuronwise.locate.positions import keeps_positions
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
    options: Mapping[str, object]
    top: int
    seed: int
    concepts: tuple[FoundConcept, ...]

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain JSON values, in the form ``neuronwise.find/1``."""
        head = finding_head(self.run.model, self.concepts[0].neurons.record, self.seed, self.top)
        return {**head, "concepts": [self._row(concept) for concept in self.concepts]}

    def _row(self, concept: FoundConcept) -> dict[str, Any]:
        target = concept.target
        more: dict[str, object] = {"occurrences": [list(span) for span in concept.spans]}
        if "note" in concept.neurons.record:
            more["note"] = concept.neurons.record["note"]
        position = target.position if self.run.output_ids else None
        model = self.run.model
        return concept_row(model, concept.word, target.token_id, position, concept.neurons, concept.tokens, **more)


def find(
    model: Model,
    run: Run,
    concepts: str | Sequence[str] | None = None,
    targets: str | int | Sequence[str | int] = (),
    *,
    method: str = "contribution",
    top: int = 100,
    seed: int = 0,
    heat: bool = True,
    position: int | None = None,
    **options: object,
) -> Finding:
    """Locate and read the neurons behind words of a run's text: all its nouns, or the named ``concepts``.

    ``targets`` are tokens to score as well, generated or not, at ``position`` if it is given. All words share their
    passes; ``positions`` of a method that scores each are added up. Raises ``TargetError`` when there is nothing to
    score.
    """
    concepts = [concepts] if isinstance(concepts, str) else concepts
    targets = [targets] if isinstance(targets, str | int) else targets
    words = [run.concept(word) for word in concepts] if concepts is not None else ([] if targets else run.concepts)
    wanted = [run.target(concept) for concept in words] + [
        run.target(target=target, position=position) for target in targets
    ]
    if not wanted:
        hint = "name a concept or a target" if run.text else "the model generated nothing, so name a target"
        raise TargetError(f"The text {run.text!r} has no noun to look for; {hint}.")
    chosen = METHODS[method]
    if "seed" in chosen.options:
        options = {**options, "seed": seed}
    if "reduce" in chosen.options and keeps_positions(options.get("positions")):
        options = {"reduce": "sum", **options}  # a finding has each neuron once
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


def finding_head(model: Model, record: Mapping[str, Any], seed: int, top: int) -> dict[str, Any]:
    """What every finding says first: how it was made, from the record of its neurons."""
    method = METHODS[record["method"]]
    return {
        "schema": SCHEMA,
        **{key: record[key] for key in ("model", "prompt", "chat", "text", "method")},
        "meaning": method.meaning,
        "source": method.source,
        **{key: record[key] for key in ("options", "activation")},
        "seed": seed,
        "top": top,
        "num_layers": model.num_layers,
        "versions": record["versions"],
    }


def concept_row(
    model: Model,
    word: str,
    token_id: int,
    position: int | None,
    neurons: NeuronSet,
    tokens: Sequence[Sequence[str]],
    **more: object,
) -> dict[str, Any]:
    """One concept of a finding as plain JSON values: its token, then ``more``, and a row for each neuron."""
    token = model.tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
    rows = [{**member.to_row(), "tokens": list(own)} for member, own in zip(neurons, tokens, strict=True)]
    return {"word": word, "token": token, "token_id": token_id, "position": position, **more, "neurons": rows}
