"""Several photos, or texts: what is found in each, and the neurons that a word has in all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from neuronwise.errors import TargetError
from neuronwise.locate.joint import joined
from neuronwise.model.run import Run
from neuronwise.neurons import NeuronSet
from neuronwise.read.decode import Effect, decode_all, effects
from neuronwise.read.finding import Finding, FoundConcept, concept_row, find, finding_head

if TYPE_CHECKING:
    from neuronwise.model import Model


@dataclass(frozen=True)
class SharedConcept:
    """A word over the runs ``held_by`` whose texts name it: its neurons there, what they raise and lower."""

    word: str
    token_id: int
    held_by: tuple[str, ...]
    neurons: NeuronSet
    effects: list[Effect]
    tokens: list[list[str]]


@dataclass(frozen=True)
class Findings:
    """``each``: the finding of every photo or text, by its id; ``together``: the words that they share.

    ``files``: what the photos are called; None of texts. ``left_out``: in which nothing was found, with the reason.
    """

    each: Mapping[str, Finding] = field(repr=False)
    together: tuple[SharedConcept, ...]
    files: Mapping[str, str] | None
    left_out: Mapping[str, str]

    @property
    def of(self) -> str:
        """ "photos" or "texts"."""
        return "texts" if self.files is None else "photos"

    def to_dict(self) -> dict[str, Any]:
        """The findings as plain JSON values, in the form ``neuronwise.find/2`` with a list in place of one text."""
        first = next(iter(self.each.values()))
        model = first.run.model
        listed = [self._listed(name, one.to_dict()) for name, one in self.each.items()]
        rows = [
            concept_row(
                model, one.word, one.token_id, None, one.neurons, one.effects, one.tokens,
                **{self.of: list(one.held_by)},
            )
            for one in self.together
        ]  # fmt: skip
        note = {} if first.note is None else {"note": first.note}
        return {
            **finding_head(model, first.concepts[0].neurons.record, first.seed, first.top),
            **({"prompt": None} if self.files is None else {}),
            "text": None, "rendered": None, "form": first.form, **note, self.of: listed,
            "left_out": dict(self.left_out), "concepts": rows,
        }  # fmt: skip

    def _listed(self, name: str, own: Mapping[str, Any]) -> dict[str, Any]:
        called = {"prompt": own["prompt"]} if self.files is None else {"file": self.files[name]}
        return {"id": name, **called, **{key: own[key] for key in ("text", "rendered", "concepts")}}


def find_in_each(
    runs: Mapping[str, Run],
    words: Mapping[str, Mapping[str, str]],
    *,
    files: Mapping[str, str] | None,
    targets: Mapping[str, Sequence[str | int]] | None = None,
    at_least: int = 1,
    agree: str = "mean",
    left_out: Mapping[str, str] | None = None,
    form: str = "cosine",
    top: int = 100,
    **options: Any,
) -> Findings:
    """Find words in the captions of several photos, or in several texts, and what they share.

    ``words``: for each run by its id, concept → the word by which its text names it; ``targets``: tokens besides. A
    concept that ``at_least`` so many name, or a token, is scored together: by the mean of its scores, or by votes
    (``agree``, see ``locate``). ``options`` as for ``find``. Raises ``TargetError`` where no text names a word.
    """
    each: dict[str, Finding] = {}
    held: dict[str, dict[str, FoundConcept]] = {}
    for name, own in words.items():
        besides = () if targets is None else targets.get(name, ())
        if own or besides:
            found = find(runs[name].model, runs[name], list(own.values()), besides, top=top, form=form, **options)
            each[name] = found
            for one, called in zip(found.concepts, [*own, *(None for _ in besides)], strict=True):
                held.setdefault(one.word if called is None else called, {})[name] = one
    if not each:
        said = "; ".join(f"{name}: {run.text!r}" for name, run in runs.items())
        raise TargetError(f"No {'text' if files is None else 'caption'} names a word to look for ({said}).")
    model = next(iter(runs.values())).model
    together = [_shared(model, word, own, agree, top, form) for word, own in held.items() if len(own) >= at_least]
    return Findings(each, tuple(together), files, dict(left_out or {}))


def _shared(
    model: Model, concept: str, held: Mapping[str, FoundConcept], agree: str, top: int, form: str
) -> SharedConcept:
    members: Sequence[FoundConcept] = list(held.values())
    first = members[0]
    neurons = joined([one.scores for one in members if one.scores is not None], agree, top)
    neurons = NeuronSet(neurons.members, {**first.neurons.record, **neurons.record})
    read = effects(model, neurons)
    tokens = [one.raises for one in read] if form == "cosine" else decode_all(model, neurons, form=form)
    return SharedConcept(concept, first.target.token_id, tuple(held), neurons, read, tokens)
