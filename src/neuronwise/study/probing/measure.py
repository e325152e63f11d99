"""Probes of neurons on photos: hallucinated against true nouns of captions, and POPE's yes/no questions.

A case is one probe: what is asked, and by which features. One row for each part, with the columns

- ``asked``: "nouns" (is a noun of the caption hallucinated? as in CHAIR) or "pope" (is the object there?)
- ``features``: the name of a method, whose scores of all neurons where the noun, or the answer, is predicted are the
  features, or a control: "log p of the noun", "place in the caption", "yes over no", one number each
- ``part``: "held out" (each fold by probes of the others), "shuffled labels", "transfer" (photos of the other part), or
  of questions "the model's answer" (yes where its logit is above no's; nothing is fitted)
- ``labels``, ``probabilities``, ``photos``, ``kinds``: lists, one entry a case; kinds are of questions: "present", or
  how the absent object was chosen
- of "held out": ``strength``, ``neurons`` that the probe of all cases uses, ``weights``, and ``raises``: for the first
  ten what they push up (with a weight below 0 that speaks against)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from neuronwise.data.naming import mentions
from neuronwise.data.photos import Captioned
from neuronwise.data.photos.pope import object_questions
from neuronwise.errors import ImageError, NothingToStudy, TargetError
from neuronwise.locate.scores import Scores
from neuronwise.measure.judged import Judged
from neuronwise.measure.probe import Features, probe
from neuronwise.model.run import Run, Target
from neuronwise.read.decode import decode
from neuronwise.study.concept_photos import supported
from neuronwise.study.entries import each, name_of
from neuronwise.study.kind import Case
from neuronwise.study.probing.recipe import ProbeRecipe
from neuronwise.study.store import Row
from neuronwise.study.workspace import Workspace

Space = Workspace[ProbeRecipe]
CONTROLS = {"nouns": ("log p of the noun", "place in the caption"), "pope": ("yes over no",)}
READ = 10  # neurons whose tokens are noted
YES, NO = ("Yes", " Yes", "yes", " yes"), ("No", " No", "no", " no")


@dataclass(frozen=True)
class Item:
    """One thing to tell: where it is scored, the true label, and of which photo and kind it is."""

    photo: str
    run: Run
    target: Target
    label: bool
    kind: str = ""
    controls: tuple[float, ...] = ()


def cases(workspace: Space) -> list[Case]:
    """One for each question and kind of features."""
    names = [name_of(method) for method in each(workspace.recipe.methods)]
    return [
        Case(f"{asked}/{name}", {"asked": asked, "features": name}, asked)
        for asked in workspace.recipe.asked
        for name in (*names, *CONTROLS[asked])
    ]


def measure(workspace: Space, case: Case) -> list[Row]:
    """One row for each part."""
    recipe, asked, name = workspace.recipe, case.inputs["asked"], case.inputs["features"]
    fitted, judged = (
        workspace.memo((asked, part), lambda part=part: _items(workspace, asked, part)) for part in (0, 1)
    )
    labels, photos = [item.label for item in fitted], [item.photo for item in fitted]
    found = probe(
        _features(workspace, fitted, asked, name), labels, groups=photos, strengths=recipe.strengths,
        folds=recipe.folds, shuffles=recipe.shuffles, seed=recipe.seed,
    )  # fmt: skip
    rows = [
        {
            **_row("held out", found.held_out, fitted),
            "strength": found.strength,
            "neurons": [str(neuron) for neuron in found.neurons.neurons],
            "weights": [member.score for member in found.neurons],
            "raises": [decode(workspace.model, neuron, k=READ) for neuron in found.neurons.neurons[:READ]],
        }
    ]
    if found.shuffled is not None:
        rows.append(_row("shuffled labels", found.shuffled, fitted * recipe.shuffles))
    if judged:
        others = [item.photo for item in judged]
        moved = found.judge(_features(workspace, judged, asked, name), [item.label for item in judged], others)
        rows.append(_row("transfer", moved, judged))
    if name == "yes over no":
        rows.append(_answers("the model's answer", fitted))
    return rows


def _row(part: str, found: Judged, items: Sequence[Item]) -> Row:
    return {
        "part": part,
        "labels": list(found.labels),
        "probabilities": list(found.probabilities),
        "photos": [item.photo for item in items],
        "kinds": [item.kind for item in items],
    }


def _answers(part: str, items: Sequence[Item]) -> Row:
    """What the model says itself: the probability of yes among yes and no."""
    leads = np.array([item.controls[0] for item in items])
    return {
        "part": part,
        "labels": [item.label for item in items],
        "probabilities": (1 / (1 + np.exp(-leads))).tolist(),
        "photos": [item.photo for item in items],
        "kinds": [item.kind for item in items],
    }


def _features(workspace: Space, items: Sequence[Item], asked: str, name: str) -> Features:
    if name in CONTROLS[asked]:
        return np.array([[item.controls[CONTROLS[asked].index(name)]] for item in items])
    method = next(one for one in each(workspace.recipe.methods) if name_of(one) == name)
    found: list[Scores] = []
    for number, item in enumerate(items, 1):
        found += method.locating.score(workspace.model, item.run, [item.target], method.options)
        workspace.tell(f"{asked}, {name}", number, len(items))
    return found


def _items(workspace: Space, asked: str, transfer: int) -> list[Item]:
    photos = [photo for photo in workspace.photos if workspace.recipe.transfers(photo.path) == bool(transfer)]
    found = _nouns(workspace, photos) if asked == "nouns" else _questions(workspace, photos)
    if not found and not transfer:
        raise NothingToStudy(f"There is nothing to tell apart among {len(photos)} photos ({asked}).")
    return found


def _nouns(workspace: Space, photos: Sequence[Captioned]) -> list[Item]:
    """Each category that a caption names, at its first word; the label is that nothing supports it."""
    found = []
    for photo in photos:
        if photo.id not in workspace.captions:
            continue  # it cannot be opened
        run = workspace.run(photo)
        first = {mention.category: mention.text for mention in reversed(mentions(run.text)) if mention.category}
        for category, word in reversed(first.items()):
            try:
                target = run.target(word)
            except TargetError:
                continue
            logits = _logits(run, target.position)
            controls = (float(logits.log_softmax(-1)[target.token_id]), float(target.position))
            found.append(Item(photo.id, run, target, not supported(photo, category), controls=controls))
    return found


def _questions(workspace: Space, photos: Sequence[Captioned]) -> list[Item]:
    """POPE's questions; the scored token is the likeliest word for yes, where the model answers."""
    recipe, model = workspace.recipe, workspace.model
    by_id = {photo.id: photo for photo in photos}
    found = []
    for question in object_questions(photos, recipe.questions, recipe.negatives, recipe.seed):
        try:
            prompted, image = model.prepare(by_id[question.photo].path, question.prompt)
        except ImageError:
            continue
        run = Run.of(model, prompted, image=image)
        logits = _logits(run, 0)
        yes, no = (_first_tokens(run, words) for words in (YES, NO))
        best = max(yes, key=lambda token: float(logits[token]))
        lead = float(logits[best] - max(logits[token] for token in no))
        target = Target(best, 0, model.decode_ids([best]))
        found.append(Item(question.photo, run, target, question.present, question.negatives or "present", (lead,)))
    return found


def _first_tokens(run: Run, words: Sequence[str]) -> list[int]:
    return [run.model.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]


def _logits(run: Run, position: int) -> torch.Tensor:
    with torch.no_grad():
        return run.model.forward(run.forced_inputs(), rows=[run.row(position)])[0, 0].float()
