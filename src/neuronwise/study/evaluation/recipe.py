"""The keys of a recipe of the kind "evaluation", each checked by itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ValidationInfo, field_validator

from neuronwise.answers.protocols.table import PROTOCOLS
from neuronwise.data.facts import FactCase, Facts, load_facts
from neuronwise.data.facts.load import SHIPPED
from neuronwise.data.photos import load_photos
from neuronwise.edit.memory.statistics import Statistics
from neuronwise.errors import NeuronwiseError, StudyError
from neuronwise.model.model import Model
from neuronwise.study.entries import called, combinations, named
from neuronwise.study.evaluation.edit_batch import Choices
from neuronwise.study.evaluation.editors import Maker, maker
from neuronwise.study.evaluation.measure import EvaluationJob
from neuronwise.study.evaluation.photo_facts import PhotoFacts
from neuronwise.study.evaluation.results import alike, evaluations
from neuronwise.study.evaluation.sequence import checked_every
from neuronwise.study.evaluation.tables import quality
from neuronwise.study.recipe_fields import STRICT, NotNegative, Positive, Recipe, Text, once
from neuronwise.study.results import read_study
from neuronwise.study.store import Row


class Editor(BaseModel):
    """One editor with its ``settings`` and, for ROME's family, a folder of key ``statistics``.

    ``name``: what the tables call it. ``sweep``: settings with several values each; every combination is an editor of
    its own, or ``tries`` of them: the settings as they are, then draws by the seed. ``best_of``: the folder of an
    evaluation with several tries of this editor; the settings with the best ``quality`` there are taken. ``asked``: how
    facts with photos are put to the editor ("joint": photo and text, "text", "image"); they are measured in all ways.
    """

    model_config = STRICT
    editor: Text
    name: Text | None = None
    settings: dict[str, Any] = {}
    sweep: dict[str, list[Any]] = {}
    tries: Positive | None = None
    best_of: Text | None = None
    statistics: Text | None = None
    asked: Literal["joint", "text", "image"] | None = None

    @field_validator("editor")
    @classmethod
    def _known(cls, editor: str) -> str:
        _require(editor, {})
        return editor

    @field_validator("settings", "sweep")
    @classmethod
    def _fitting(cls, given: Row, info: ValidationInfo) -> Row:
        if "editor" in info.data:
            sweeping = info.field_name == "sweep"
            _require(info.data["editor"], {key: value[0] for key, value in given.items()} if sweeping else given)
        return given

    @property
    def called(self) -> str:
        """Its name in tables: the given one, or the editor's with its settings."""
        asked = {} if self.asked is None else {"asked": self.asked}
        return self.name or called(self.editor, {**self.settings, **asked})

    def makers(self, seed: int, opened: Callable[[str], Statistics] = Statistics) -> dict[str, Maker]:
        """The editor with each choice of its settings, by their names; ``opened`` gives the statistics of a folder."""
        statistics = None if self.statistics is None else opened(self.statistics)
        best = {} if self.best_of is None else best_settings(self.best_of, (self.called, self.editor))
        settings = {**best, **self.settings}
        return {
            called(self.called, chosen): replace(
                maker(self.editor, None, {**settings, **chosen}, statistics, seed), asked=self.asked
            )
            for chosen in self._choices(seed)
        }

    def _choices(self, seed: int) -> list[Row]:
        every = combinations(self.sweep)
        if self.tries is None:
            return every
        drawn = random.Random(f"{seed} {self.called}").sample(every, min(len(every), self.tries - 1))
        return [{}, *(one for one in drawn if one)]


class EvaluationRecipe(Recipe):
    """``facts``: in any known form, or "shipped" (``--data`` on the shell overrides it). ``photos``: facts about photos
    instead, of the folder that ``facts`` names. The rest: see ``Choices``."""

    model: Text = "builtin-text"
    facts: Text = "shipped"
    photos: PhotoFacts | None = None
    editors: Annotated[list[Editor], named("editor")]
    known: bool = False
    limit: Positive | None = None
    sequential: Positive = 1
    batch: Positive = 1
    others: NotNegative = 50
    free: bool = True
    fluency: bool = False
    drawn: bool = False
    skip: NotNegative = 0
    every: Positive | list[Positive] | None = None
    protocols: list[Text] = []
    perplexity: Text | None = None
    tasks: list[Text] = []
    tasks_limit: Positive | None = None

    @field_validator("editors")
    @classmethod
    def _named(cls, editors: list[Editor]) -> list[Editor]:
        once([one.called for one in editors])
        return editors

    @field_validator("protocols")
    @classmethod
    def _published(cls, names: list[str]) -> list[str]:
        unknown = next((name for name in (once(names) if names else []) if name not in PROTOCOLS), None)
        if unknown is not None:
            raise ValueError(f"there is no protocol {unknown!r}; there are {', '.join(PROTOCOLS)}")
        return names

    def at(self, data: str) -> Self:
        """The same recipe on other facts."""
        return self.model_copy(update={"facts": data})

    def load(self) -> Facts:
        """Read the facts, or make them of annotated photos."""
        if self.photos is None:
            return load_facts(self.facts, seed=self.seed)
        if self.facts == SHIPPED:
            raise NeuronwiseError("Name a folder of annotated photos: --data DIR, or facts: DIR in the recipe.")
        return self.photos.of(load_photos(self.facts, self.photos.part), self.seed)

    @classmethod
    def resumed(cls, manifest: Row) -> tuple[Row, str]:
        """See ``Recipe.resumed``; raises ``StudyError`` where settings, statistics or a text are not in the folder."""
        plan = manifest["recipe"]
        if plan.get("perplexity") is not None or any(name.endswith(".yaml") for name in plan.get("tasks", ())):
            raise StudyError(
                "The text for perplexity and tasks in files are not in the folder; run the same command or call again, "
                "which resumes too."
            )
        own = plan.get("editors") or {None: plan}
        editors = [_written(name, one) for name, one in own.items()]
        keys = {key: value for key, value in plan.items() if key in cls.model_fields and key not in ("kind", "dtype")}
        dtype = plan["dtype"].removeprefix("torch.")
        return {**keys, "kind": "evaluation", "dtype": None if "," in dtype else dtype, "editors": editors}, manifest[
            "data"
        ]["source"]


def job(model: Model, recipe: EvaluationRecipe, facts: Iterable[FactCase]) -> EvaluationJob:
    """The job of a recipe on facts."""
    opened = cache(Statistics)  # one for all editors, with what it solves
    made = {name: one for editor in recipe.editors for name, one in editor.makers(recipe.seed, opened).items()}
    given = {name: getattr(recipe, name) for name in Choices.__dataclass_fields__}
    choices = Choices(**{**given, "every": None if recipe.every is None else checked_every(recipe.every)})
    source = facts.about() if isinstance(facts, Facts) else {"source": None, "digest": None}
    keys = recipe.model_dump(include={"title", "photos"})
    about = {name: value for name, value in keys.items() if value}
    return EvaluationJob(model, list(facts), made, choices, source, about=about)


def _require(editor: str, settings: Row) -> None:
    try:
        maker(editor, None, settings, None, 0)
    except NeuronwiseError as error:
        raise ValueError(str(error)) from error


def best_settings(folder: str, names: Sequence[str]) -> Row:
    """The settings of the best try in a finished search that has one of these names (the first that is there).

    Raises ``StudyError`` where there is none, and for a search that is not finished.
    """
    search = read_study(folder)
    if not search.finished:
        raise StudyError(f"The search in '{folder}' has {search.cases} of {search.total} cases; finish it first.")
    found = evaluations(search)
    for wanted in names:
        tries = {name: one for name, one in found.items() if name == wanted or name.startswith(f"{wanted} ")}
        if tries:
            return max(alike(tries).values(), key=lambda one: quality(one.means())).recipe["changes"]
    raise StudyError(f"'{folder}' holds no try of {' or '.join(dict.fromkeys(names))}.")


def _written(name: str | None, own: Row) -> Row:
    """An editor of a plan as a recipe writes it."""
    if own["settings"] is not None or own["statistics"] is not None:
        raise StudyError(
            f"{own['editor']} was given settings or key statistics that its folder does not hold; run the same command "
            "or call again, which resumes too."
        )
    return {"editor": own["editor"], "name": name, "settings": own["changes"], "asked": own.get("asked")}
