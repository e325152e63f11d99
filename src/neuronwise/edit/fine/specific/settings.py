"""Hyper-parameters of the specific recipe."""

from __future__ import annotations

from dataclasses import dataclass, field

from neuronwise.edit.presets import OURS, Preset
from neuronwise.edit.settings import SIGNED
from neuronwise.errors import MethodError


@dataclass(frozen=True)
class SpecificSettings:
    """How narrowly the change responds to its subject, and how far it carries the answer.

    Where: ``layer``, or the one at ``depth`` of the model; ``n`` neurons of it. What they must not respond to: the
    second moment of the layer's activations over ``texts`` passages of ``text_tokens`` tokens that the model writes
    itself with ``seed``, and over names of other things with the weight ``names_weight``; ``ridge`` of its mean
    diagonal is added. On what it is learned: the prompt and ``prefixes`` times the prompt behind ``prefix_tokens``
    self-written tokens; in ``asides``, other texts with {} for the subject, what the model says next must stay as
    likely as it was. How far: ``goal`` and ``prefixed_goal`` are log-odds of the least likely target token aimed
    at on the prompt and behind prefixes; it ends when that token has a probability of ``enough`` on the prompt and a
    geometric mean of ``prefixed_enough`` behind prefixes, or after ``steps``. A step is damped by ``damping`` and no
    longer than ``step_cap`` of the norm of what the layer holds at the subject.
    """

    layer: int | None = None
    depth: float = 4 / 15
    n: int = 400
    texts: int = 128
    text_tokens: int = 48
    names_weight: float = 0.2
    ridge: float = 0.05
    prefixes: int = 2
    prefix_tokens: int = 6
    asides: tuple[str, ...] = ()
    goal: float = field(default=5.0, metadata=SIGNED)
    prefixed_goal: float = field(default=4.0, metadata=SIGNED)
    enough: float = 0.97
    prefixed_enough: float = 0.93
    damping: float = 0.05
    step_cap: float = 0.35
    steps: int = 7
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.n, self.steps, self.texts, self.prefix_tokens) < 1 or self.prefixes < 0 or self.text_tokens < 2:
            raise MethodError(
                "n, steps, texts and prefix_tokens are 1 or more, text_tokens 2 or more, prefixes 0 or more."
            )
        if not 0 <= self.names_weight <= 1 or not 0 <= self.depth <= 1:
            raise MethodError("names_weight and depth must be between 0 and 1.")
        if any("{}" not in aside for aside in self.asides):
            raise MethodError("An aside is a text with {} in the place of the subject.")
        if min(self.ridge, self.damping, self.step_cap) <= 0:
            raise MethodError("ridge, damping and step_cap must be above 0.")


PRESETS: dict[str, Preset[SpecificSettings]] = {
    "default": Preset(SpecificSettings(), f"{OURS}, on the built-in text model alone"),
}  # fmt: skip
