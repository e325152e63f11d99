"""One fact with a photo asked in three ways: by photo and text together, by text alone, by the photo alone.

Edits made jointly can revert when one modality is queried alone (DECODE, arXiv 2606.17057), so a multi-modal edit is
made and measured in each of them.
"""

from __future__ import annotations

import re
from dataclasses import replace

from neuronwise.data.facts import Fact
from neuronwise.errors import MethodError, PromptError

MODALITIES = ("joint", "text", "image")
_ARTICLE = re.compile(r"(?:(?<=\s)|^)(?:a|an|the)\s+$", re.IGNORECASE)
UNNAMED = "the object in the photo"


def asked(fact: Fact, modality: str, unnamed: str = UNNAMED) -> Fact:
    """The fact as it is asked in one of ``MODALITIES``; any editor of facts takes the result, any measure asks it.

    "joint": photo and prompt. "text": the prompt without the photo. "image": the photo with the prompt whose subject
    is replaced by ``unnamed`` (in place of its article too, with a capital where that opens the prompt), so that only
    the photo shows what it is about (our choice: without any text there would be nothing that the target answers).
    With a photo the model's chat template is applied, text alone is read as it is: see ``answers.request.forced``.
    Raises ``PromptError`` for a fact without a photo and ``MethodError`` for another modality.
    """
    if modality not in MODALITIES:
        raise MethodError(f"There is no modality {modality!r}; choose one of {', '.join(MODALITIES)}.")
    if fact.image is None:
        raise PromptError("This fact has no photo; give it one: Fact(..., image='photo.jpg').")
    if modality == "joint":
        return fact
    if modality == "text":
        return replace(fact, image=None)
    before, place, after = fact.prompt.partition("{}")
    before = _ARTICLE.sub("", before)
    subject = unnamed if before.strip() or not fact.text[:1].isupper() else unnamed[:1].upper() + unnamed[1:]
    return replace(fact, prompt=before + place + after, subject=subject)
