"""The keys of a study's recipe that all kinds share, or all studies of photos, each checked by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from neuronwise.data.photos import Captioned, Photos, load_photos
from neuronwise.errors import ImageError, NeuronwiseError
from neuronwise.images.inpaint.table import parsed
from neuronwise.measure.metrics import MODEL_METRICS, ModelMetric
from neuronwise.registry.arguments import LARGEST_SEED
from neuronwise.study.concept_photos import shows
from neuronwise.study.store import Row

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)
S = TypeVar("S", bound=Sequence[object])


class Recipe(BaseModel):
    """What every study has; a kind adds its own keys in a subclass. Unknown keys are refused."""

    model_config = STRICT
    kind: Text
    title: str = ""
    model: Text = "builtin"
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0

    def at(self, data: str) -> Self:
        """The same recipe with its data elsewhere."""
        raise NotImplementedError

    def load(self) -> Any:
        """The data, as the kind's job takes them; raises ``NeuronwiseError`` where the recipe names none."""
        raise NotImplementedError

    @classmethod
    def resumed(cls, manifest: Row) -> tuple[Row, str]:
        """The keys of the recipe that a study's folder was begun with, and where its data were."""
        raise NotImplementedError


class Data(BaseModel):
    """``folder`` of photos (``--data`` on the shell overrides it), one ``part`` of COCO, the first ``limit``."""

    model_config = STRICT
    folder: Text | None = None
    part: Text | None = None
    limit: Positive | None = None


class MetricModels(BaseModel):
    """Local folders of models that some metrics need, by the key that the metric names (``ModelMetric.model``)."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    bert: Text | None = None
    clip: Text | None = None
    bleurt: Text | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        """Refuse keys that no metric names, of other packages' metrics too, and what is not a folder's name."""
        known = {*type(self).model_fields, *(metric.model for metric in MODEL_METRICS.values())}
        for key, folder in (self.model_extra or {}).items():
            if key not in known:
                raise ValueError(f"there is no key {key!r}; the keys are {', '.join(sorted(known))}")
            if not (isinstance(folder, str) and folder):
                raise ValueError(f"{key} names a folder, not {folder!r}")
        return self

    def given(self) -> list[tuple[ModelMetric, str]]:
        """The metrics whose model is named, each with its folder."""
        folders = dict(self)
        return [(one, folders[one.model]) for one in MODEL_METRICS.values() if folders.get(one.model)]


class PhotoRecipe(Recipe):
    """What every study of photos has.

    ``concepts``: words, or "auto" for all COCO categories that the captions of at least ``at_least`` photos name.
    ``most``: the number of photos of each concept, drawn by ``seed``. ``batch``: photos that are captioned together at
    most. In single precision a batch gives what each photo gives alone, and "auto" takes as many as pay; in half
    precision it may occasionally give another word, so there "auto" is 1.
    """

    data: Data = Data()
    concepts: list[Text] | Literal["auto"] = "auto"
    at_least: Positive = 5
    most: Positive = 12
    prompt: Text | None = None
    max_new_tokens: Positive = 30
    batch: Positive | Literal["auto"] = "auto"
    inpainting: Text = "telea"
    dilation: NotNegative = 5

    def at(self, data: str) -> Self:
        """The same recipe on photos in another folder."""
        return self.model_copy(update={"data": self.data.model_copy(update={"folder": data})})

    def load(self) -> Photos:
        """Open the folder of photos."""
        if self.data.folder is None:
            raise NeuronwiseError("Name a folder of photos: --data DIR, or data: {folder: DIR} in the recipe.")
        folder, part = Path(self.data.folder), self.data.part
        named = part is not None and folder.name == part and not (folder / "annotations").is_dir()
        return load_photos(folder.parent if named else folder, part)  # of COCO, a part's folder serves too

    def takes(self, photo: Captioned, concept: str) -> bool:
        """Whether a photo whose caption names a concept counts as one of it: where it shows the concept."""
        return shows(photo, concept)

    @classmethod
    def resumed(cls, manifest: Row) -> tuple[Row, str]:
        """See ``Recipe.resumed``."""
        keys = {key: value for key, value in manifest["recipe"].items() if key in cls.model_fields}
        return keys, manifest["data"]["folder"]

    @field_validator("concepts", mode="after")
    @classmethod
    def _each_once(cls, concepts: list[str] | str) -> list[str] | str:
        return once(concepts) if isinstance(concepts, list) else concepts

    @field_validator("inpainting")
    @classmethod
    def _there(cls, backend: str) -> str:
        try:
            parsed(backend)
        except ImageError as error:
            raise ValueError(str(error).rstrip(".")) from error
        return backend


def once(values: S) -> S:
    """The list itself; raises ``ValueError`` for an empty one or one that repeats something."""
    if not values:
        raise ValueError("the list is empty")
    if len(set(map(str, values))) < len(values):
        raise ValueError("the list names something twice")
    return values
