"""MC-MKE (Zhang et al. 2025, arXiv:2406.13219): what a photo shows, what is true of it, and both in words alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from neuronwise.data.facts.fact import Fact, FactCase, Probe
from neuronwise.data.facts.fields import Record, RecordError, template
from neuronwise.data.facts.form import Form
from neuronwise.data.facts.probes import present


@dataclass(frozen=True)
class _Kind:
    """The names that one kind of edit gives its fields; the first that is there counts.

    ``question`` and ``answer`` are those of locality; ``consistency`` is another way to the same knowledge: the fields
    of its photo (None: without), its prompt and its answer.
    """

    number: str
    cloze: tuple[str, ...]
    new: str
    true: tuple[str, ...]
    paraphrases: tuple[str, ...]
    question: str
    answer: str
    consistency: tuple[str | None, str, str]
    photo: bool = True


KINDS = (
    _Kind(
        "ie_edit_input_idx", ("ie_cloze", "input_cloze"), "new_e_ent", ("e_ent", "orig_e"),
        ("ie_question", "ie_question_paraphrases"), "ie_question", "orig_loc_ent",
        ("consistency_iro_image", "consistency_iro_input_cloze", "consistency_iro_output"),
    ),
    _Kind(
        "iro_edit_input_idx", ("iro_cloze",), "new_o", ("o",), ("iro_question", "iro_question_paraphrases"),
        "iro_question", "orig_loc_output_ent", (None, "consistency_sro_cloze", "new_o"),
    ),
    _Kind(
        "sro_edit_input_idx", ("cloze", "sro_cloze"), "new_o", ("o",),
        ("question", "para_question", "para_cloze", "sro_question_paraphrases"), "sro_question", "orig_loc_output_ent",
        ("consistency_data_image", "consistency_data_irocloze", "consistency_new_o"), photo=False,
    ),
)  # fmt: skip
# Numbers of other records, and what repeats another field.
_REFERENCES = (
    "locality_test", "ie_idxs", "mq_idxs", "consistency_sro_edit_idx", "consistency_iro_edit_input_idx", "r", "s",
    "consistency_image", "new_e_ent_alias", "new_o_alias",
)  # fmt: skip


def is_mcmke(fields: Mapping[str, object]) -> bool:
    """Whether a record has the number of one of the three kinds of edits."""
    return any(kind.number in fields for kind in KINDS)


def mcmke_case(record: Record, identity: str) -> FactCase:
    """An edit of what a photo shows (IE), of what is true of it (IRO), or of the same without a photo (SRO).

    Of the files of a folder the lines with one number are one record; the file of the edits alone will do too. The
    first photo is the fact's, the others are portability "image_generality"; "consistency" asks for the same knowledge
    in another way. Locality is "unrelated_image", without photos "unrelated". Subjects of photos are in the photo: the
    whole prompt is the subject.
    """
    kind = next((kind for kind in KINDS if record.has(kind.number)), None)
    if kind is None:
        raise RecordError(f"it has no field {' or '.join(repr(kind.number) for kind in KINDS)}.")
    for name in (*_REFERENCES, *kind.cloze):
        record.has(name)
    prompt, target = record.text(*kind.cloze), record.text(kind.new)
    true = record.maybe(*kind.true)
    photos = [text for name in ("images", "generality_images") for text in record.maybe(name)]
    if kind.photo:
        first = record.text("image") if record.has("image") else next(iter(photos), None)
        if first is None:
            raise RecordError("it has no field 'image' or 'images'.")
        image = record.photo_of(first, "image")
        fact = Fact("{}", prompt, target, true[0] if true else None, str(image))
        others = [text for text in dict.fromkeys(photos) if text != first]
    else:
        record.has("image")  # it is empty
        subject = record.text("s") if record.has("s") else prompt
        fact, others = Fact(template(prompt, subject), subject, target, true[0] if true else None), []
    answers = [target, *_aliases(record, kind.new)]
    portability = {
        "image_generality": _asked(record, "generality_images", ((prompt, answers, text) for text in others)),
        "consistency": _asked(record, "consistency", _other_way(record, kind)),
    }
    local = _asked(record, "locality_test_dict", _unrelated(record, kind))
    locality = {"unrelated_image" if kind.photo else "unrelated": local}
    return FactCase(identity, fact, _paraphrases(record, kind), present(portability), present(locality))


Asked = tuple[object, object, str | None]  # a prompt, its answers, and the path of a photo


def _asked(record: Record, name: str, listed: Iterable[Asked]) -> tuple[Probe, ...]:
    """A probe for each; one whose photo is missing is left out and noted."""
    found: list[Probe] = []
    for prompt, answers, photo in listed:
        try:
            found += record.probes(name, prompt, answers, record.photo_of(photo, name) if photo else None)
        except RecordError as error:
            record.notes.append(str(error))
    return tuple(found)


def _aliases(fields: Record | Mapping[str, object], name: str) -> list[object]:
    inner = fields.fields if isinstance(fields, Record) else fields
    value = inner.get(f"{name}_alias") or []
    return list(value) if isinstance(value, list) else [value]


def _paraphrases(record: Record, kind: _Kind) -> tuple[str, ...]:
    """All wordings; the file of the edits has them with their question in an object."""
    found: list[str] = []
    for name in kind.paraphrases:
        value = record.fields.get(name)
        for one in value.values() if isinstance(value, Mapping) else [value]:
            found += record.texts(name, one) if one is not None else []
    return tuple(dict.fromkeys(found))


def _other_way(record: Record, kind: _Kind) -> list[Asked]:
    photo, prompt, answer = kind.consistency
    if not record.has(prompt):
        return []
    answers = [record.text(answer), *_aliases(record, answer)]
    return [(record.fields[prompt], answers, None if photo is None else record.text(photo))]


def _unrelated(record: Record, kind: _Kind) -> list[Asked]:
    listed = record.fields.get("locality_test_dict") or {}
    if not isinstance(listed, Mapping):
        record.notes.append("its locality_test_dict is not an object with questions by their numbers.")
        return []
    found: list[Asked] = []
    for number, one in listed.items():
        if not isinstance(one, Mapping) or one.get(kind.question) is None or one.get(kind.answer) is None:
            record.notes.append(f"its locality_test_dict {number} has no {kind.question} with {kind.answer}.")
            continue
        image = one.get("image") or None
        answers = [one[kind.answer], *_aliases(one, kind.answer)]
        found.append((one[kind.question], answers, image if isinstance(image, str) else None))
    return found


FORM = Form(is_mcmke, mcmke_case, numbers=tuple(kind.number for kind in KINDS))
