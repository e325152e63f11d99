"""KnowEdit (Zhang et al. 2024, arXiv:2401.01286): WikiData counterfact and recent, ZsRE and WikiBio in its form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from neuronwise.data.facts.counterfact import beside
from neuronwise.data.facts.fact import LOCALITY, PORTABILITY, FactCase, Probe
from neuronwise.data.facts.fields import Record, RecordError
from neuronwise.data.facts.form import Form


def is_knowedit(fields: Mapping[str, object]) -> bool:
    """Whether a record has KnowEdit's fields, or those that WikiBio has in their place."""
    wikibio = {"text", "labels", "concept"} <= fields.keys()
    flat = {"prompt", "target_new"} <= fields.keys()
    return wikibio or (flat and bool({"portability", "locality", "rephrase"} & fields.keys()))


def knowedit_case(record: Record, identity: str) -> FactCase:
    """``prompt``, ``subject``, ``target_new`` with ``portability`` and ``locality`` probes by their published kinds.

    WikiBio calls the first three ``text``, ``concept`` and ``labels``. An answer is a text, a list, or a list of
    answers each with its aliases: all count as right. A portability probe without an answer is left out and noted;
    one of locality stays, since what the model says before the edit can be kept without knowing what is right.
    """
    true = record.maybe("ground_truth")
    fact = record.fact(
        record.text("prompt", "text"),
        record.text("subject", "concept"),
        record.text("target_new", "labels"),
        true[0] if true else None,
    )
    portability = _by_kind(record, "portability", PORTABILITY)
    for kind, probes in portability.items():
        for probe in probes:
            if not probe.answers:
                record.notes.append(f"its portability {kind} probe {probe.prompt!r} has no answer.")
    portability = {kind: tuple(probe for probe in probes if probe.answers) for kind, probes in portability.items()}
    locality = _by_kind(record, "locality", LOCALITY)
    for kind, probes in beside(record).items():
        locality[kind] = (*locality.get(kind, ()), *probes)
    return FactCase(
        identity,
        fact,
        record.maybe("rephrase", "rephrase_prompt", "rephrase_prompts"),
        {kind: probes for kind, probes in portability.items() if probes},
        {kind: probes for kind, probes in locality.items() if probes},
    )


def _by_kind(record: Record, name: str, kinds: tuple[str, ...]) -> dict[str, tuple[Probe, ...]]:
    groups = record.fields.get(name)
    if groups is None:
        return {}
    if not isinstance(groups, Mapping):
        record.notes.append(f"its {name} is not an object with kinds of probes.")
        return {}
    found: dict[str, tuple[Probe, ...]] = {}
    for published, probes in groups.items():
        kind = str(published).lower()
        if probes is None:
            continue
        if kind not in kinds:
            record.notes.append(f"its {name} has the unknown kind {published!r}; known are {', '.join(kinds)}.")
            continue
        found[kind] = (*found.get(kind, ()), *_probes(record, f"{name} {published}", probes))
    return found


def _probes(record: Record, name: str, probes: object) -> Iterator[Probe]:
    """Probes as a list of ``{"prompt", "ground_truth"}``, or as one such object whose values are lists side by side."""
    listed: list[object]
    if isinstance(probes, list):
        listed = probes
    elif not isinstance(probes, Mapping):
        record.notes.append(f"its {name} is not a list of probes.")
        return
    else:
        prompts, answers = probes.get("prompt"), probes.get("ground_truth")
        if not isinstance(prompts, list):
            listed = [probes]
        elif isinstance(answers, list) and len(answers) == len(prompts):
            listed = [{"prompt": p, "ground_truth": a} for p, a in zip(prompts, answers, strict=True)]
        else:
            record.notes.append(f"its {name} does not have as many answers as prompts.")
            return
    for number, probe in enumerate(listed, 1):
        if not isinstance(probe, Mapping) or probe.get("prompt") is None:
            record.notes.append(f"its {name} probe {number} has no prompt.")
            continue
        try:
            yield from record.probes(f"{name} {number}", probe["prompt"], probe.get("ground_truth"))
        except RecordError as error:
            record.notes.append(str(error))


FORM = Form(is_knowedit, knowedit_case)
