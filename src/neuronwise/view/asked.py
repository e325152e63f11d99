"""What pages ask the worker for, checked before anything is computed."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Address = Annotated[str, Field(max_length=80)]
Photo = Annotated[str, Field(max_length=64)]
Text = Annotated[str, Field(max_length=8000)]


class Asked(BaseModel):
    """Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Seen(Asked):
    """A photo that was sent before, by its number, or a text: one of them."""

    photo: Photo | None = None
    text: Text | None = None

    @model_validator(mode="after")
    def one(self) -> Seen:
        """Refuse both, or neither."""
        if (self.photo is None) == (not (self.text or "").strip()):
            raise ValueError("give a photo or a text")
        return self


class Decoded(Asked):
    """What neurons raise and lower."""

    neurons: Annotated[list[Address], Field(min_length=1, max_length=200)]


class Fired(Seen):
    """Where a neuron fires."""

    neuron: Address


class Heated(Asked):
    """Where on a photo of an index a neuron fires."""

    item: Annotated[str, Field(max_length=1000)]
    neuron: Address
    number: Annotated[int, Field(ge=0)]


class Scaled(Seen):
    """What the model says with a neuron's activation multiplied, or set to its mean; beside random neurons."""

    neuron: Address
    factor: Annotated[float, Field(ge=-100, le=100)] = 0.0
    mean: bool = False
    randoms: Annotated[int, Field(ge=0, le=5)] = 2
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0


class Found(Seen):
    """The neurons behind the words of a text about a photo, or behind what follows a text."""

    word: Annotated[str, Field(max_length=80)] | None = None


class Traced(Asked):
    """A word of what was found before: the circuit behind it, or the word layer by layer."""

    found: Annotated[str, Field(max_length=20)]
    concept: Annotated[int, Field(ge=0, le=1000)]


class Searched(Asked):
    """Which neurons write a token."""

    token: Annotated[str, Field(min_length=1, max_length=80)]


class Alike(Asked):
    """Which neurons write like one, by an index."""

    item: Annotated[str, Field(max_length=1000)]
    neuron: Address


class Changed(Asked):
    """An edit of the opened folders, to be applied or taken out."""

    item: Annotated[str, Field(max_length=1000)]


class MadeEdit(Asked):
    """A lasting edit: a neuron's value vector multiplied."""

    neuron: Address
    factor: Annotated[float, Field(ge=-100, le=100)]
    name: Annotated[str, Field(pattern=r"^[\w][\w.-]{0,60}$")]


class Noted(Asked):
    """A note on a neuron, and its star."""

    note: Annotated[str, Field(max_length=5000)] = ""
    star: bool = False
