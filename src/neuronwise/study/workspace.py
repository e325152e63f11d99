"""What the cases of a study work with: the model, the photos, and the captions before anything is changed."""

from __future__ import annotations

import random
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from PIL import Image

from neuronwise.answers.naming import names
from neuronwise.data.photos import Captioned, Photos
from neuronwise.data.words import COCO_CATEGORIES
from neuronwise.errors import ImageError, NeuronwiseError, NothingToStudy, StudyError
from neuronwise.images.masks import Mask
from neuronwise.model.halving import BatchSize, most_members
from neuronwise.model.model import Model
from neuronwise.model.run import Run
from neuronwise.study.concept_photos import ConceptPhotos, lacks, word_for
from neuronwise.study.failures import reasons_of
from neuronwise.study.notes import Notes, Row
from neuronwise.study.pictures import Pictures
from neuronwise.study.progress import Progress, silent
from neuronwise.study.recipe_fields import PhotoRecipe

RUNS = 48  # runs that are held at once
RECENT = 32  # answers to the last interventions that are held
P = TypeVar("P", bound=PhotoRecipe)
T = TypeVar("T")


class Workspace(Generic[P]):
    """``model``, ``recipe`` and ``photos`` of a study, and what several cases need, made once.

    ``captions`` {photo's id: caption before anything is changed}, ``concepts`` {name: ``ConceptPhotos``},
    ``run(photo)`` (the run of that caption, cheap), ``say(photo)`` and ``say_all(photos)`` (new captions, under an
    intervention), ``mask(photo, concept)``, ``inpainted(photo, concept)``, ``without(concept, count)``,
    ``random(*key)`` (a seeded generator), ``kept(part, key, make)`` for plain values that survive an interruption and
    ``memo(key, make)`` for those that are made anew. ``notes`` hold what is kept, ``folder`` inpainted photos; without
    either everything is in memory alone. ``masks``, by photos' ids, override the annotations.
    """

    def __init__(
        self,
        model: Model,
        recipe: P,
        photos: Photos,
        *,
        notes: Notes | None = None,
        folder: Path | None = None,
        masks: Mapping[str, Mask] | None = None,
        tell: Progress = silent,
    ) -> None:
        self.model, self.recipe, self.photos, self.tell = model, recipe, photos, tell
        self._notes = Notes() if notes is None else notes
        self._memo: dict[object, Any] = {}
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._recent: OrderedDict[object, list[str]] = OrderedDict()
        self.pictures = Pictures(recipe, None if folder is None else folder / "inpainted", masks)
        self.by_id = {photo.id: photo for photo in photos}
        if len(self.by_id) < len(photos):
            raise StudyError(f"Two photos of {photos.source} have the same id; each needs its own.")

    def kept(self, part: str, key: str, make: Callable[[], T]) -> T:
        """What ``make()`` gives (plain JSON values), made once in the whole study, interruptions included."""
        return self._notes.kept(part, key, make)

    def memo(self, key: object, make: Callable[[], T]) -> T:
        """What ``make()`` gives, made once in this process: the same in every process, and not worth a note."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]

    def random(self, *key: object) -> random.Random:
        """A generator that depends on the recipe's seed and this key alone."""
        return random.Random("/".join(map(str, (self.recipe.seed, *key))))

    def seed(self, *key: object) -> int:
        """A seed that depends on the recipe's and this key alone, the same on every machine."""
        return self.recipe.seed + zlib.crc32("/".join(map(str, key)).encode())

    @cached_property
    def captions(self) -> dict[str, str]:
        """What the model says of every photo, by the photo's id, before anything is changed; asked once, first.

        Photos that cannot be opened are left out, see ``unread``.
        """
        return self.captions_of(self.photos)

    def captions_of(self, photos: Iterable[Captioned]) -> dict[str, str]:
        """As ``captions``, of some photos."""
        ids = [photo.id for photo in photos]
        unasked = [name for name in ids if not self._notes.holds("caption", name)]
        self._notes.ask("captions before", self._notes.dealt(unasked), self._caption, self.tell, self._portion)
        said = {name: self._said(self.by_id[name]) for name in ids}
        return {
            name: self.model.decode_ids(one["output_ids"]).strip() for name, one in said.items() if "reason" not in one
        }

    def _caption(self, ids: Sequence[str]) -> None:
        """Ask about photos by their ids, in batches, but for those that another shard has asked about meanwhile."""
        ids = [name for name in ids if not self._notes.holds("caption", name)]
        if not ids:
            return
        runs = self._asked([self.by_id[name].path for name in ids], self.recipe.prompt, errors="return")
        for name, run in zip(ids, runs, strict=True):
            if isinstance(run, Run):
                self.kept("caption", name, lambda ids=run.output_ids: {"output_ids": ids})
            elif isinstance(run, ImageError):
                self.kept("caption", name, lambda why=str(run): {"reason": why})
            else:
                raise run

    def _asked(
        self, images: Sequence[Path | None], prompts: str | Sequence[str | None] | None, **how: Any
    ) -> list[Run | NeuronwiseError]:
        return self.model.run_many(
            images, prompts, max_new_tokens=self.recipe.max_new_tokens, batch_size=self._size, record=False, **how
        )

    @property
    def _size(self) -> BatchSize:
        """Photos that are asked about together at most; see ``PhotoRecipe``."""
        coarse = any(one.is_floating_point() and one.dtype.itemsize < 4 for one in self.model.module.parameters())
        return 1 if self.recipe.batch == "auto" and coarse else self.recipe.batch

    @property
    def _portion(self) -> int:
        """Photos that are opened, and kept, together."""
        return most_members(self.model, self._size)

    @property
    def unread(self) -> dict[str, str]:
        """Why photos could not be captioned, by their id."""
        said = self._notes.of("caption")
        return {name: one["reason"] for name, one in said.items() if "reason" in one}

    def _said(self, photo: Captioned) -> Row:
        if not self._notes.holds("caption", photo.id):
            self._caption([photo.id])
        return self.kept("caption", photo.id, dict)  # it is

    def run(self, photo: Captioned) -> Run:
        """The run that captioned a photo, made again from its tokens without generating."""
        if photo.id in self._runs:
            self._runs.move_to_end(photo.id)
            return self._runs[photo.id]
        ids = self._said(photo)["output_ids"]
        prompted, image = self.model.prepare(photo.path, self.recipe.prompt)
        run = Run.of(self.model, prompted, ids, image, max_new_tokens=self.recipe.max_new_tokens)
        self._runs[photo.id] = run
        if len(self._runs) > RUNS:
            self._runs.popitem(last=False)
        return run

    def say(self, photo: Captioned) -> str:
        """The caption of a photo now, under the intervention in force."""
        return self.say_all([photo])[0]

    def say_all(self, photos: Sequence[Captioned]) -> list[str]:
        """What the model says of photos now, in batches."""
        return self._texts([photo.path for photo in photos], [self.recipe.prompt] * len(photos))

    def answers(self, asked: Sequence[tuple[str, Captioned]]) -> list[str]:
        """What the model says now to other prompts about photos, in batches.

        A prompt with {} is asked without the photo, with the photo's caption before any change in that place.
        """
        images = [None if "{}" in prompt else photo.path for prompt, photo in asked]
        return self._texts(images, [prompt.replace("{}", self.captions[photo.id]) for prompt, photo in asked])

    def _texts(self, images: Sequence[Path | None], prompts: Sequence[str | None]) -> list[str]:
        size = self._portion
        parts = [self._asked(images[n : n + size], prompts[n : n + size]) for n in range(0, len(images), size)]
        return [run.text for part in parts for run in part if isinstance(run, Run)]

    def recent(self, key: object, say: Callable[[], list[str]]) -> list[str]:
        """What ``say()`` gave for the same key a few calls ago, or gives now: two cases may change the same neurons."""
        if key not in self._recent:
            self._recent[key] = say()
            if len(self._recent) > RECENT:
                self._recent.popitem(last=False)
        return self._recent[key]

    @cached_property
    def _concepts(self) -> tuple[dict[str, ConceptPhotos], dict[str, str]]:
        auto = self.recipe.concepts == "auto"
        found: dict[str, ConceptPhotos] = {}
        skipped: dict[str, str] = {}
        for concept in COCO_CATEGORIES if auto else self.recipe.concepts:
            said = [p for p in self.photos if names(self.captions.get(p.id, ""), concept)]
            seen = [photo for photo in said if self.recipe.takes(photo, concept)]
            least = self.recipe.at_least
            if len(seen) >= least:
                found[concept] = self._shown(concept, seen)
            elif not said and not auto:
                skipped[concept] = "no caption names it"
            elif said:
                skipped[concept] = (
                    f"{len(said)} captions name it, {len(seen)} of photos that show it; at_least is {least}"
                )
        if not found:
            why = reasons_of(skipped) or "no caption names any"
            raise NothingToStudy(
                f"No concept has enough photos among the {len(self.captions)} captioned ones ({why}); give more photos "
                "or a lower at_least."
            )
        return found, skipped

    @property
    def concepts(self) -> dict[str, ConceptPhotos]:
        """The concepts of the study by their names, each with its photos; raises ``StudyError`` when there is none."""
        return self._concepts[0]

    @property
    def skipped(self) -> dict[str, str]:
        """Why concepts are left out: of the recipe's, or, for "auto", of those that any caption names.

        Empty for a kind of study that never asked for ``concepts``.
        """
        return self._concepts[1] if "_concepts" in self.__dict__ else {}

    def skip(self, concept: str, why: str) -> None:
        """Leave a concept out, with the reason."""
        if self.concepts.pop(concept, None) is not None:
            self.skipped[concept] = why

    def _shown(self, concept: str, photos: list[Captioned]) -> ConceptPhotos:
        self.random("photos", concept).shuffle(photos)
        chosen = tuple(photos[: self.recipe.most])
        words = tuple(word_for(self.captions[photo.id], concept) for photo in chosen)
        masked = tuple(photo for photo in chosen if self.pictures.known(photo, concept))
        return ConceptPhotos(concept, chosen, words, masked)

    def without(self, concept: str, count: int, *key: object) -> list[Captioned]:
        """``count`` photos on which nothing speaks for a concept, drawn by the seed (fewer where there are not)."""
        there = [p for p in self.photos if p.id in self.captions and lacks(p, self.captions[p.id], concept)]
        return self.random("without", concept, *key).sample(there, min(count, len(there)))

    def mask(self, photo: Captioned, concept: str) -> Mask:
        """(H, W) of booleans: where the concept is on a photo, not dilated; raises ``ImageError`` where not known."""
        return self.pictures.mask(photo, concept)

    def inpainted(self, photo: Captioned, concept: str) -> Image.Image:
        """The photo without the concept; raises ``ImageError`` where it cannot be taken out."""
        return self.pictures.inpainted(photo, concept)

    def photos_of(self, ids: Sequence[str]) -> list[Captioned]:
        """Photos by their ids."""
        return [self.by_id[name] for name in ids]
