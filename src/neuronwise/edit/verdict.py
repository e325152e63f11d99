"""The verdict on an edit as it is applied: whether its targets hold, and whether the model still writes as before."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from neuronwise.answers.answers import BEYOND, OWN_TOKENS
from neuronwise.answers.forced import forced_as, log_probs, read_forced
from neuronwise.answers.free import begins_with, continued
from neuronwise.answers.request import forced
from neuronwise.data.facts import Fact
from neuronwise.data.texts import openings
from neuronwise.edit.edit import Edit
from neuronwise.errors import NeuronwiseError, NonFiniteError
from neuronwise.images import ImageLike
from neuronwise.model.batches import text_inputs
from neuronwise.model.lock import alone
from neuronwise.model.model import Model
from neuronwise.model.prompt import Inputs
from neuronwise.model.state import state_of

OPENINGS = openings()[::7]  # ten neutral prompts
TEXT = (
    "The road to the village follows the river for most of the way. In spring the water is high, and the fields "
    "beside it are wet until May. People who live there keep a few cows and grow apples, which they sell at the market "
    "on Saturday. The school has two rooms and a small garden. When it rains for several days, the bridge is closed, "
    "and everybody takes the longer way over the hill."
)
GIVEN = 8  # tokens of the text that are read and not predicted
# Our choice: half of the openings go on otherwise, or the text is a fifth less likely a token.
LEAST_SAME, MOST_PERPLEXITY = 5, 1.2
SHOWN = 3  # targets that a sentence names

_WANTED: ContextVar[bool] = ContextVar("verdict", default=True)


@contextlib.contextmanager
def without_verdict() -> Iterator[None]:
    """Editors give no verdict within the body: for studies, which measure every edit anyway."""
    token = _WANTED.set(False)
    try:
        yield
    finally:
        _WANTED.reset(token)


@dataclass(frozen=True)
class Aim:
    """A target of an edit: ``ids`` behind what ``asked()`` lays out, with the edit and without, and when it holds.

    ``met(rank, text)``: ``rank`` is the target's when it is forced, ``text`` what the model goes on with, None where
    it does not generate. ``free``: that text is asked for.
    """

    prompt: str | None
    target: str
    asked: Callable[[], Inputs]
    ids: Sequence[int]
    met: Callable[[int, str | None], bool]
    free: bool = True

    @classmethod
    def of(cls, model: Model, fact: Fact, image: ImageLike | None = None) -> Aim:
        """The aim of a fact, asked about ``image`` if there is one: the model says the new target."""
        run = forced(model, fact, image)

        def met(rank: int, text: str | None) -> bool:
            return rank == 1 and (text is None or begins_with(text, fact.target_new))

        def asked() -> Inputs:
            return forced(model, fact, image).prompted.inputs

        return cls(fact.text, fact.target_new, asked, run.output_ids, met)


@alone
def judged(model: Model, edit: Edit, aims: Iterable[Aim]) -> Edit:
    """The edit with its ``verdict`` in the record, and a warning where it does not hold or hurts the model.

    The weights are as they were, to the bit, when it returns. ``holds``: every target does. ``targets``: of each the
    probability ``p`` and the worst ``rank`` of its tokens (1 is the likeliest) when they are forced, and what the
    model ``says`` freely, before and with the edit. ``openings``: how ten neutral prompts go on, five tokens each.
    ``perplexity`` is that of a neutral text. ``hurts``: fewer than five openings go on as before, or the perplexity
    has grown by more than a fifth. ``error``, in place of all that: why the model gives no answers. Without aims it is
    about the rest alone; an edit that changes nothing has none.
    """
    if not _WANTED.get() or edit.empty:
        return edit
    verdict = _verdict(model, edit, list(aims))  # laid out only where they are wanted
    for sentence in complaints(verdict):
        warnings.warn(sentence, stacklevel=6)  # where the editor was called
    return replace(edit, record={**edit.record, "verdict": verdict})


def complaints(verdict: Mapping[str, Any]) -> list[str]:
    """What a user must hear of a verdict, a sentence each: none where the edit holds and nothing is hurt."""
    if "error" in verdict:
        return [f"The edit could not be judged: {verdict['error']}"]
    found = []
    failed = [row for row in verdict["targets"] if not row["holds"]]
    if failed:
        named = "; ".join(_told(row) for row in failed[:SHOWN])
        more = f"; and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
        found.append(f"The edit fails for {len(failed)} of {len(verdict['targets'])} targets: {named}{more}.")
    if verdict["hurts"]:
        found.append(f"The edit hurts the model: {neutral(verdict)}.")
    return found


def neutral(verdict: Mapping[str, Any]) -> str:
    """How the model writes what has nothing to do with the edit."""
    same = "" if verdict["same"] is None else f"; {verdict['same']} of {len(OPENINGS)} openings go on as before"
    return f"perplexity of a neutral text {verdict['perplexity_before']:.1f} → {verdict['perplexity']:.1f}{same}"


def _told(row: Mapping[str, Any]) -> str:
    says = "" if row["says"] is None else f", says {row['says']!r}"
    asked = "" if row["prompt"] is None else f"{row['prompt']!r} → "
    return f"{asked}{row['target']!r} (p {row['p']:.2g}, rank {row['rank']}{says})"


def _written(model: Model) -> tuple[list[str | None], float]:
    """What a model writes that has nothing to do with an edit: how the openings go on, and the text's perplexity."""
    prompts = [text_inputs(model, opening) for opening in OPENINGS]
    return _said(model, prompts, [OWN_TOKENS] * len(prompts)), neutral_perplexity(model)


def _verdict(model: Model, edit: Edit, aims: Sequence[Aim]) -> dict[str, Any]:
    try:
        # Edits made one after another begin with the same model.
        state = state_of(model), str(getattr(model.module, "generation_config", None))
        openings_before, perplexity_before = model.latest("neutral", state, lambda: _written(model))
        before = _answers(model, aims)
        with edit.applied(model):
            (openings_after, perplexity), after = _written(model), _answers(model, aims)
    except NeuronwiseError as error:
        return {"holds": False, "hurts": True, "error": str(error)}
    rows = [
        {
            "prompt": aim.prompt, "target": aim.target, "p_before": first[0], "p": then[0],
            "rank_before": first[1], "rank": then[1], "says_before": said, "says": says,
            "holds": aim.met(then[1], says),
        }
        for aim, (first, said), (then, says) in zip(aims, before, after, strict=True)
    ]  # fmt: skip
    pairs = list(zip(OPENINGS, openings_before, openings_after, strict=True))
    same = None if None in openings_before else sum(said == says for _, said, says in pairs)
    few = same is not None and same < LEAST_SAME
    return {
        "holds": all(row["holds"] for row in rows),
        "hurts": few or perplexity > MOST_PERPLEXITY * perplexity_before,
        "targets": rows,
        "openings": [{"prompt": prompt, "before": said, "after": says} for prompt, said, says in pairs],
        "same": same,
        "perplexity_before": perplexity_before,
        "perplexity": perplexity,
    }


def _answers(model: Model, aims: Sequence[Aim]) -> list[tuple[tuple[float, int], str | None]]:
    """Of each aim the target's p and rank when it is forced, and the text that the model goes on with."""
    inputs = [aim.asked() for aim in aims]
    targets = forced_as(model, [(one, aim.ids) for one, aim in zip(inputs, aims, strict=True)], _probability)
    texts: list[str | None] = [None] * len(aims)
    asked = [number for number, aim in enumerate(aims) if aim.free]
    lengths = [len(aims[number].ids) + BEYOND for number in asked]
    for number, text in zip(asked, _said(model, [inputs[n] for n in asked], lengths), strict=True):
        texts[number] = text
    return list(zip(targets, texts, strict=True))


def neutral_perplexity(model: Model) -> float:
    """The perplexity of the verdict's neutral text, as far as the model has positions for it, behind what
    edits put before it.

    Raises ``NonFiniteError`` where the model gives no finite probabilities.
    """
    words = TEXT.split()
    text = " ".join(words if model.longest is None else words[: model.longest // 2])
    read = model.prepare(prompt=text, chat=False, bare=True)[0].input_ids[GIVEN:]
    begun = {name: value[:, : -len(read)] for name, value in text_inputs(model, text).items()}
    (reading,) = read_forced(model, [(begun, read)])
    return math.exp(min(-reading.log_prob, 700))  # larger has no float


def _probability(logits: Tensor, ids: Sequence[int]) -> tuple[float, int]:
    """The probability of all ``ids`` together, and the worst of their ranks."""
    said, own = log_probs(logits, ids)
    return float(own.sum().exp()), 1 + int((said > own).sum(-1).max())


def _said(model: Model, prompts: Sequence[Inputs], lengths: Sequence[int]) -> list[str | None]:
    """What the model goes on with; None for one that does not generate, and where its positions end."""
    try:
        return [model.decode_ids(ids) for ids in continued(model, prompts, lengths)]
    except NonFiniteError:
        raise
    except NeuronwiseError:
        return [None] * len(prompts)
