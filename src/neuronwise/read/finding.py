"""A finding: for each word of a text its neurons, what they mean and where they fire, in one object."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from neuronwise.errors import MethodError, PromptError, TargetError
from neuronwise.locate.default import Scored, default_scores
from neuronwise.locate.locating import describe, plain
from neuronwise.locate.methods import METHODS
from neuronwise.locate.positions import keeps_positions
from neuronwise.locate.scores import Scores
from neuronwise.locate.specific import less, mean_size
from neuronwise.model import Model
from neuronwise.model.concepts import Concept
from neuronwise.model.modes import computes
from neuronwise.model.run import Run, Target
from neuronwise.model.state import settled
from neuronwise.neurons import HeadSet, NeuronSet, snippet
from neuronwise.read.decode import Effect, decode_all, effects
from neuronwise.read.evidence import Evidence, evidences
from neuronwise.read.heatmap import Heatmap, heatmaps
from neuronwise.read.lens import Lens

SCHEMA = "neuronwise.find/2"
WORDS = 5  # that a notebook shows


@dataclass(frozen=True)
class FoundConcept:
    """One word (or target) with its ranked neurons, what they raise and lower here and, for an image, its heatmap.

    ``tokens`` are what the neurons raise, or under ``form="logits"`` the published form. ``heat`` is where the neurons
    fire, ``evidence`` what of the photo the word depends on. Beside other words, ``own`` holds each neuron's score less
    the mean size of its scores for them, ``also`` the words that have it among their neurons.

    ``heads`` are attention heads, with what each raises here, and ``lens`` reads the word layer by layer, both where
    they were asked for.
    """

    word: str
    target: Target
    spans: tuple[tuple[int, int], ...]
    neurons: NeuronSet
    effects: list[Effect]
    tokens: list[list[str]]
    heat: Heatmap | None = None
    heat_note: str | None = None
    scores: Scores | None = field(default=None, repr=False, compare=False)
    evidence: Evidence | None = None
    own: list[float] | None = None
    also: list[list[str]] | None = None
    heads: HeadSet | None = None
    head_effects: tuple[Effect, ...] = ()
    lens: Lens | None = None

    def __repr__(self) -> str:
        return f"FoundConcept({self.word!r}: {self.neurons!r})"

    def _repr_html_(self) -> str:
        """For notebooks."""
        return _table(self)


@dataclass(frozen=True)
class Finding:
    """What ``find`` found in one run; ``to_dict`` is the object that the shell prints with --json.

    ``note`` says what of the default score the architecture does not have, and why there is no evidence.
    """

    run: Run = field(repr=False)
    method: str
    options: Mapping[str, object]
    top: int
    seed: int
    concepts: tuple[FoundConcept, ...]
    note: str | None = None
    form: str = "cosine"

    def __repr__(self) -> str:
        words = ", ".join(repr(one.word) for one in self.concepts[:5]) + (", …" if len(self.concepts) > 5 else "")
        return f"Finding({self.run.text or self.run.prompt!r:.60}: {words} by {self.method})"

    def _repr_html_(self) -> str:
        """For notebooks: each word's first neurons with what they raise and lower here."""
        title = self.run.text or self.run.prompt
        return snippet.line(title, f"{self.run.model.name}, {self.method}") + "".join(
            _table(one) for one in self.concepts[:WORDS]
        )

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain JSON values, in the form ``neuronwise.find/2`` (find.schema.json)."""
        head = finding_head(self.run.model, self.concepts[0].neurons.record, self.seed, self.top)
        note = {} if self.note is None else {"note": self.note}
        rows = [self._row(concept) for concept in self.concepts]
        return {
            **head,
            "file": self.run.file,
            "rendered": self.run.rendered,
            "form": self.form,
            **note,
            "concepts": rows,
        }

    def _row(self, concept: FoundConcept) -> dict[str, Any]:
        target = concept.target
        more: dict[str, object] = {"occurrences": [list(span) for span in concept.spans]}
        if "note" in concept.neurons.record:
            more["note"] = concept.neurons.record["note"]
        if concept.evidence is not None:
            more["evidence"] = concept.evidence.to_dict()
        if concept.heads is not None:
            pairs = zip(concept.heads, concept.head_effects, strict=True)
            more["heads"] = [{**head.to_row(), "raises": end.raises, "lowers": end.lowers} for head, end in pairs]
        if concept.lens is not None:
            more["lens"] = concept.lens.cells()
        position = target.position if self.run.output_ids else None
        row = concept_row(
            self.run.model, concept.word, target.token_id, position, concept.neurons, concept.effects, concept.tokens,
            **more,
        )  # fmt: skip
        if concept.own is not None and concept.also is not None:
            for neuron, own, also in zip(row["neurons"], concept.own, concept.also, strict=True):
                neuron |= {"own": own, "also": also}
        return row


@computes
@settled
def find(
    model: Model,
    run: Run,
    concepts: str | Sequence[str] | None = None,
    targets: str | int | Sequence[str | int] = (),
    *,
    method: str | None = None,
    top: int = 100,
    seed: int = 0,
    heat: bool = True,
    evidence: str | None = None,
    form: str = "cosine",
    position: int | None = None,
    specific: float = 0.0,
    **options: object,
) -> Finding:
    """Locate and read the neurons behind words of a run's text: all its nouns, or the named ``concepts``.

    Without a ``method`` neurons are scored by ``contribution`` with ``normalize``, ``contrast=10``, ``baseline="self"``
    and ``focus=3.5``: what each adds here beyond what it usually adds, weighed by how much its value vector is aimed at
    the word; ``options`` change single ones of these.
    Where the architecture lacks one of them, ``Finding.note`` says so. A named method has its own options alone.

    ``evidence``: a name of ``EVIDENCE``, for a map of what of the photo each word depends on; where there is none,
    ``Finding.note`` says why.

    ``specific``: each word's neurons are ranked by their score less so many times the mean size of their scores for the
    other words (see ``specific_neurons``).

    ``targets`` are tokens to score as well, generated or not, at ``position`` if it is given. ``form="logits"`` gives
    ``tokens`` in the published form (see ``effects``). All words share their passes; ``positions`` of a method that
    scores each are added up. Raises ``TargetError`` when there is nothing to score.
    """
    words, wanted = _wanted(run, concepts, targets, position)
    scored = _scored(model, run, wanted, method, top, seed, options)
    named, options = method or "contribution", scored.options
    records = [describe(model, run, target, named, options) for target in wanted]
    sets = _ranked(scored.scores, records, top, specific)
    apart = _apart(scored.scores, wanted, sets)
    members = [member for one in sets for member in one]
    read = effects(model, members)
    published = decode_all(model, members, form=form) if form != "cosine" else [effect.raises for effect in read]
    both = iter(zip(read, published, strict=True))
    maps, note = _heat(model, run, sets) if heat and run.image is not None else ([None] * len(sets), None)
    shown, lacking = _evidence(model, run, wanted, evidence)
    offset = len(model.decode_ids(run.output_ids)) - len(model.decode_ids(run.output_ids).lstrip())
    found = []
    for index, target in enumerate(wanted):
        spans: tuple[tuple[int, int], ...] = ()
        if index < len(words):
            spans = tuple((o.start - offset, o.end - offset) for o in words[index].occurrences)
        own = [next(both) for _ in sets[index]]
        ends, tokens = [effect for effect, _ in own], [listed for _, listed in own]
        one = FoundConcept(target.text, target, spans, sets[index], ends, tokens, maps[index], note)
        own_share, also = apart[index]
        found.append(replace(one, scores=scored.scores[index], evidence=shown[index], own=own_share, also=also))
    plainly = {name: plain(value) for name, value in options.items()}
    notes = "; ".join(filter(None, (scored.note, lacking))) or None
    return Finding(run, named, plainly, top, seed, tuple(found), notes, form)


def _table(concept: FoundConcept) -> str:
    """A word's first neurons with what they raise and lower here, as HTML."""
    rows = (
        [snippet.text(one), snippet.text(one.score), snippet.chips(end.raises), snippet.chips(end.lowers)]
        for one, end in zip(concept.neurons, concept.effects, strict=True)
    )
    return snippet.table(concept.word, ("neuron", "score", "raises", "lowers"), rows, len(concept.neurons))


def _wanted(
    run: Run, concepts: str | Sequence[str] | None, targets: str | int | Sequence[str | int], position: int | None
) -> tuple[Sequence[Concept], list[Target]]:
    """The words that are looked for, and what is scored: they first, then the targets."""
    concepts = [concepts] if isinstance(concepts, str) else concepts
    targets = [targets] if isinstance(targets, str | int) else targets
    words = [run.concept(word) for word in concepts] if concepts is not None else ([] if targets else run.concepts)
    wanted = [run.target(concept) for concept in words] + [
        run.target(target=target, position=position) for target in targets
    ]
    if not wanted:
        hint = "name a concept or a target" if run.text else "the model generated nothing, so name a target"
        raise TargetError(f"The text {run.text!r} has no noun to look for; {hint}.")
    return words, wanted


def _scored(
    model: Model,
    run: Run,
    wanted: Sequence[Target],
    method: str | None,
    top: int,
    seed: int,
    options: Mapping[str, Any],
) -> Scored:
    if method is None:
        return default_scores(model, run, wanted, options)
    chosen = METHODS[method]
    own = {**options, "seed": seed} if "seed" in chosen.options else dict(options)
    if "reduce" in chosen.options and keeps_positions(own.get("positions")):
        own = {"reduce": "sum", **own}  # a finding has each neuron once
    return Scored(chosen.score(model, run, wanted, chosen.for_top(top, own)), own)


def _ranked(
    scored: Sequence[Scores], records: Sequence[Mapping[str, object]], top: int, specific: float
) -> list[NeuronSet]:
    """The best neurons of each word; with ``specific`` by what is left of their scores beside the other words'."""
    if not 0 <= specific < math.inf:
        raise MethodError(f"specific is {specific}; give a number from 0.")
    if not specific:
        return [scores.top(top, record) for scores, record in zip(scored, records, strict=True)]
    if len(scored) < 2:
        raise MethodError("specific compares the words of a text; find two or more, or use nw.specific_neurons.")
    return [
        less(own, mean_size(_without(scored, place)), specific).top(top, {**records[place], "specific": specific})
        for place, own in enumerate(scored)
    ]


def _apart(
    scored: Sequence[Scores], wanted: Sequence[Target], sets: Sequence[NeuronSet]
) -> list[tuple[list[float] | None, list[list[str]] | None]]:
    """Of each word's neurons: the score less the mean size of those for the others, and which others have them."""
    if len(scored) < 2:
        return [(None, None)]
    found: list[tuple[list[float] | None, list[list[str]] | None]] = []
    for place, own in enumerate(scored):
        alone = less(own, mean_size(_without(scored, place)), 1.0)
        others = [(target.text, one) for at, (target, one) in enumerate(zip(wanted, sets, strict=True)) if at != place]
        also = [[text for text, one in others if neuron in one] for neuron in sets[place].neurons]
        found.append(([alone.of(neuron) for neuron in sets[place].neurons], also))
    return found


def _without(scored: Sequence[Scores], place: int) -> list[Scores]:
    return [*scored[:place], *scored[place + 1 :]]


def _heat(model: Model, run: Run, sets: list[NeuronSet]) -> tuple[list[Heatmap | None], str | None]:
    """Heatmaps where the model has a grid; else none, and the reason."""
    try:
        maps = heatmaps(model, run, sets)
    except (PromptError, MethodError) as error:
        return [None] * len(sets), str(error)
    return list(maps), maps[0].note


def _evidence(
    model: Model, run: Run, wanted: Sequence[Target], by: str | None
) -> tuple[Sequence[Evidence | None], str | None]:
    """A map for each word where there is one; else none, and the reason."""
    nothing = [None] * len(wanted)
    if by is None or run.image is None:
        return nothing, None
    try:
        return evidences(model, run, wanted, by=by), None
    except (PromptError, MethodError) as error:
        return nothing, f"there is no evidence by {by}: {error}"


def finding_head(model: Model, record: Mapping[str, Any], seed: int, top: int) -> dict[str, Any]:
    """What every finding says first: how it was made, from the record of its neurons."""
    method = METHODS[record["method"]]
    surplus = " beyond what it usually adds" if record["options"].get("baseline") else ""
    focus = ", weighed by how much its value vector is aimed at {token}" if record["options"].get("focus") else ""
    weight = record.get("specific")
    specific = f", less {weight:g} × the mean size of its scores for the other words" if weight else ""
    return {
        "schema": SCHEMA,
        **{key: record[key] for key in ("model", "prompt", "chat", "text", "method")},
        "meaning": method.meaning + surplus + focus + specific,
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
    ends: Sequence[Effect],
    tokens: Sequence[Sequence[str]] | None = None,
    **more: object,
) -> dict[str, Any]:
    """One concept of a finding as plain JSON values: its token, then ``more``, and a row for each neuron.

    ``tokens``: of each neuron, what it raises unless they are given.
    """
    token = model.tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
    if "usual" in neurons.record:
        more["usual"] = neurons.record["usual"]
    rows = [
        {
            **member.to_row(),
            "baseline": member.baseline,
            "tokens": list(own),
            "raises": end.raises,
            "lowers": end.lowers,
        }
        for member, own, end in zip(neurons, tokens or [end.raises for end in ends], ends, strict=True)
    ]
    return {"word": word, "token": token, "token_id": token_id, "position": position, **more, "neurons": rows}
