"""The questions beside a fact, by their kinds, as KnowEdit and EasyEdit write them in any of their forms."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from neuronwise.data.facts.fact import Probe
from neuronwise.data.facts.fields import Record, RecordError, checked

Kinds = dict[str, tuple[Probe, ...]]
QUESTION = "nq question: "  # how zsRE marks the unrelated questions that come from Natural Questions


def portability_of(record: Record) -> Kinds:
    """The field ``portability`` by its kinds, published or not; a probe without an answer is left out and noted.

    EasyEdit's ``New Question`` with its ``New Answer``, in its place, is of the kind "one_hop".
    """
    found = by_kind(record, "portability")
    for kind, probes in found.items():
        for probe in probes:
            if not probe.answers:
                record.notes.append(f"its portability {kind} probe {probe.prompt!r} has no answer.")
    return present({kind: tuple(probe for probe in probes if probe.answers) for kind, probes in found.items()})


def locality_of(record: Record) -> Kinds:
    """The field ``locality`` by its kinds, published or not, and the single question of ``beside``."""
    found = by_kind(record, "locality")
    for kind, probes in beside(record).items():
        found[kind] = (*found.get(kind, ()), *probes)
    return present(found)


def present(kinds: Kinds) -> Kinds:
    """The kinds that have probes."""
    return {kind: probes for kind, probes in kinds.items() if probes}


def kind_name(published: object) -> str:
    """The name of a kind in figures: "Subject_Aliasing" is "subject_aliasing", "2-hop" is "2_hop"."""
    return re.sub(r"\W+", "_", str(published).strip().lower()).strip("_")


def beside(record: Record) -> Kinds:
    """``locality_prompt`` and its answer: another subject in the same relation, or (from zsRE) something unrelated."""
    if not record.has("locality_prompt"):
        return {}
    answers = record.fields.get("locality_ground_truth")
    found = tuple(record.probes("locality_prompt", record.fields["locality_prompt"], answers))
    if not found:
        return {}
    return {"unrelated" if found[0].prompt.startswith(QUESTION) else "neighborhood": found}


def by_kind(record: Record, name: str) -> Kinds:
    """The probes of a field, kind by kind."""
    groups = record.fields.get(name)
    if groups is None:
        return {}
    if not isinstance(groups, Mapping):
        record.notes.append(f"its {name} is not an object with kinds of probes.")
        return {}
    found: Kinds = {}
    if "New Question" in groups:
        asked, answers = groups["New Question"], groups.get("New Answer")
        found["one_hop"] = tuple(record.probes(f"{name} New Question", asked, answers))
    for published in groups:
        kind = kind_name(published)
        if kind in _SINGLE or groups[published] is None:
            continue
        if not kind or kind.endswith("first"):  # "…_first" names figures of an answer, not of a kind
            record.notes.append(f"its {name} has a kind {published!r}, which names no figure; name it otherwise.")
            continue
        found[kind] = (*found.get(kind, ()), *_probes(record, f"{name} {published}", groups[published]))
    return found


_SINGLE = ("new_question", "new_answer", "recalled_relation")


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
            image = probe.get("image")
            photo = None if image is None else record.photo_of(checked(image, "image"), "image")
            yield from record.probes(f"{name} {number}", probe["prompt"], probe.get("ground_truth"), photo)
        except RecordError as error:
            record.notes.append(str(error))
