"""Yes/no questions about objects, after POPE (Li et al. 2023, arXiv 2305.10355), made of annotations."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeAlias, get_args

from neuronwise.data.naming import objects_named
from neuronwise.data.photos.photo import Captioned
from neuronwise.data.words import COCO_CATEGORIES
from neuronwise.files.kinds import a

Negatives: TypeAlias = Literal["random", "popular", "adversarial"]
NEGATIVES: tuple[Negatives, ...] = get_args(Negatives)


@dataclass(frozen=True)
class ObjectQuestion:
    """Whether a photo shows an object. ``present`` is the true answer; ``negatives``: how an absent one was chosen."""

    photo: str
    category: str
    present: bool
    negatives: Negatives | None = None

    @property
    def prompt(self) -> str:
        """ "Is there a dog in the image?" """
        return f"Is there {a(self.category)} in the image?"


def object_questions(
    photos: Iterable[Captioned], count: int = 3, negatives: Sequence[Negatives] = NEGATIVES, seed: int = 0
) -> list[ObjectQuestion]:
    """For each annotated photo up to ``count`` objects that it shows, and as many absent ones of each kind.

    "random": any; "popular": those that most photos show; "adversarial": for each object that is asked for, the one
    that most photos show beside it. An object is absent where it is neither annotated nor named by a reference caption;
    none is asked for twice. Photos without an annotated object are left out.
    """
    annotated = [photo for photo in photos if photo.categories()]
    popular = Counter(category for photo in annotated for category in photo.categories())
    beside = Counter(pair for photo in annotated for pair in combinations(sorted(photo.categories()), 2))
    found: list[ObjectQuestion] = []
    for photo in annotated:
        draw = random.Random(f"{seed}/{photo.id}")
        shown = sorted(photo.categories())
        asked = draw.sample(shown, min(count, len(shown)))
        named = {category for caption in photo.captions for category in objects_named(caption)}
        absent = [one for one in COCO_CATEGORIES if one not in shown and one not in named]
        found += [ObjectQuestion(photo.id, category, True) for category in asked]
        for kind in negatives:
            for object_there in asked:
                draw.shuffle(absent)  # equals are chosen by chance
                if kind == "random" or not absent:
                    chosen = absent[:1]
                elif kind == "popular":
                    chosen = [max(absent, key=lambda one: popular[one])]
                else:
                    chosen = [max(absent, key=lambda one, there=object_there: beside[_pair(one, there)])]
                found += [ObjectQuestion(photo.id, category, False, kind) for category in chosen]
                absent = [one for one in absent if one not in chosen]
    return found


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)
