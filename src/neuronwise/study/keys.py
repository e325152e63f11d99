"""The keys of a study's recipe that all kinds share, each checked by itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from neuronwise.errors import ImageError
from neuronwise.images.inpaint.table import parsed

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)


class Data(BaseModel):
    """``folder`` of photos (``--data`` on the shell stands before it), one ``part`` of COCO, the first ``limit``."""

    model_config = STRICT
    folder: Text | None = None
    part: Text | None = None
    limit: Positive | None = None


class MetricModels(BaseModel):
    """Local folders of models that some metrics need."""

    model_config = STRICT
    bert: Text | None = None
    clip: Text | None = None


class Recipe(BaseModel):
    """What every study has; a kind adds its own keys in a subclass. Unknown keys are refused.

    ``concepts``: words, or "auto" for all COCO categories that the captions of at least ``at_least`` photos name.
    ``most``: at most so many photos of each concept, drawn by ``seed``. ``batch``: photos that are captioned together
    under an intervention; more is faster, and in half precision may now and then give another word than alone.
    """

    model_config = STRICT
    kind: Text
    title: str = ""
    model: Text = "builtin"
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    data: Data = Data()
    concepts: list[Text] | Literal["auto"] = "auto"
    at_least: Positive = 5
    most: Positive = 12
    prompt: Text | None = None
    max_new_tokens: Positive = 30
    batch: Positive = 1
    inpainting: Text = "telea"
    dilation: Annotated[int, Field(ge=0)] = 5
    seed: int = 0

    @field_validator("concepts", mode="after")
    @classmethod
    def _each_once(cls, concepts: Any) -> Any:
        return once(concepts) if isinstance(concepts, list) else concepts

    @field_validator("inpainting")
    @classmethod
    def _there(cls, backend: str) -> str:
        try:
            parsed(backend)
        except ImageError as error:
            raise ValueError(str(error).rstrip(".")) from error
        return backend


def once(values: list[Any]) -> list[Any]:
    """The list itself; raises ``ValueError`` for an empty one or one that repeats something."""
    if not values:
        raise ValueError("the list is empty")
    if len(set(map(str, values))) < len(values):
        raise ValueError("the list names something twice")
    return values
