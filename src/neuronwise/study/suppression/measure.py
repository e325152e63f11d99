"""Which method's neurons, when they are silenced, take a concept out of captions and nothing else ([2S] §6).

A case is one concept, one method, one intervention and one K; neurons are found on some photos of the concept and
tested on those, on held-out photos of it, and on photos without it. With ``photos`` a case is one photo of a concept:
neurons are found on it, and it is asked again. One row a photo, with the columns

- ``concept``, ``method``, ``intervention`` (their names in the recipe: "suppress", "mean_ablate", "scale 0.5", "swap"),
  ``K`` (null for K "found": all that the method's filter let through; for the others as many as the first filter of
  the recipe let through), ``neurons`` (how many were changed: fewer than K where a filter found fewer)
- ``photo`` (its id), ``role``: "found_on", "held_out", "without" (a photo without the concept), of hallucinated
  concepts "supported" (a photo that has it, and whose caption names it), or "asked": a further ``prompt`` about a photo
  of the concept, with ``before`` and ``after`` its answers
- ``before``, ``after``: the captions; ``unchanged``: whether they are the same
- ``suppressed``: of a caption that named the concept before, whether it no longer does (null for "without");
  ``named``: whether ``after`` names it; ``retained``: the share of the other nouns of ``before`` that are still named
  (null where there were none)
- ``mentions``, ``unsupported``: COCO categories that ``after`` names, and those of them that neither annotations nor
  references support; ``mentions_before``, ``unsupported_before``: the same of ``before`` (CHAIR sums them up over rows)
- ``to_before.METRIC``: ``after`` against ``before``; ``to_references.METRIC``: ``after`` against the references;
  ``to_references_before.METRIC``: ``before`` against the references (null without references); METRIC one of
  ``measure.captions.METRICS``, or "bertscore" and "mover_score"; ``clipscore``, ``clipscore_before`` (the last four
  where the recipe names their models)
- ``length``: words of ``after``; ``repeated``: the share of its word pairs that occurred before in it (broken speech)
- where an intervention swaps: ``target``, the word that is to come in; ``word``: how ``before`` named the concept;
  ``word_gone``; ``entered``: whether ``after`` names the target and ``before`` did not; ``swapped``: whether it names
  the target and no longer the word

Kept beside them (``Study.notes``): "found", by "concept/method", {"neurons": [[layer, unit] or [layer, unit, expert],
best first], "funnel": of two_stage, as in its record, else null}; "split", by concept, {"found_on", "held_out",
"without": ids of photos}; "noted", by case, {"norm": of a swap's change as a share of the value vectors' norm, "steps",
"success"}. For a single photo "dog 17" stands in place of the concept.
"""

from __future__ import annotations

from neuronwise.answers.naming import mentions, names, swapped
from neuronwise.data.photos import Captioned
from neuronwise.study.kind import Case
from neuronwise.study.store import Row
from neuronwise.study.suppression.caption_rows import caption_rows
from neuronwise.study.suppression.trials import Space, Trial, changed, neurons_of, route_of, split_of, target_of, trials


def cases(workspace: Space) -> list[Case]:
    """One case for each concept (or photo), method, intervention and K."""
    return [
        Case(name, _inputs(workspace, trial), route_of(workspace, trial)) for name, trial in trials(workspace).items()
    ]


def _inputs(workspace: Space, trial: Trial) -> Row:
    target = target_of(workspace, trial.group)
    return {
        "concept": trial.group.shown.name,
        "method": trial.method.called,
        "intervention": trial.intervention.called,
        "K": trial.count,
        **({} if target is None else {"target": target}),
    }


def measure(workspace: Space, case: Case) -> list[Row]:
    """One row for each photo of a case, and for each further prompt about it."""
    recipe, trial = workspace.recipe, trials(workspace)[case.id]
    concept, split = trial.group.shown.name, split_of(workspace, trial.group)
    photos = [(role, photo) for role, ids in split.items() for photo in workspace.photos_of(ids)]
    own = [photo for role, photo in photos if role in ("found_on", "held_out")]
    asked = [(prompt, photo) for prompt in recipe.prompts or () for photo in own]
    answers = [_answer_before(workspace, photo, prompt) for prompt, photo in asked]
    neurons = neurons_of(workspace, trial.group, trial.method, trial.count)
    swaps = trial.intervention.intervening.swaps

    def say() -> list[str]:
        with changed(workspace, trial) as noted:
            if swaps:
                workspace.kept("noted", trial.id, lambda: dict(noted))
            said = workspace.say_all([photo for _, photo in photos])
            return said + workspace.answers(asked)

    key = trial.group.id, trial.intervention.called, frozenset(neurons.neurons)
    said = say() if swaps else workspace.recent(key, say)
    before = [workspace.captions[photo.id] for _, photo in photos]
    of_model = recipe.metric_models.given()
    captions, replies = said[: len(photos)], said[len(photos) :]
    rows = caption_rows([photo for _, photo in photos], before, captions, concept, recipe.metrics, of_model)
    more = caption_rows([photo for _, photo in asked], answers, replies, concept, [])
    heads = [{"neurons": len(neurons), "photo": photo.id, "role": role} for role, photo in photos]
    heads += [{"neurons": len(neurons), "photo": photo.id, "role": "asked", "prompt": p} for p, photo in asked]
    return [{**head, **row, **_swap_columns(row, case)} for head, row in zip(heads, [*rows, *more], strict=True)]


def _answer_before(workspace: Space, photo: Captioned, prompt: str) -> str:
    return workspace.kept("answer", f"{photo.id}/{prompt}", lambda: workspace.answers([(prompt, photo)])[0])


def _swap_columns(row: Row, case: Case) -> Row:
    """What became of the word and of the target, in a study that swaps."""
    target, before, after = case.inputs.get("target"), row["before"], row["after"]
    if target is None:
        return {}
    word = next((mention.text for mention in mentions(before, case.inputs["concept"])), None)
    return {
        "word": word,
        "word_gone": None if word is None else not names(after, word),
        "entered": names(after, target) and not names(before, target),
        "swapped": None if word is None else swapped(after, word, target),
    }
