"""Hyper-parameters of FiNE, as published and by family of models."""

from __future__ import annotations

from dataclasses import dataclass

from neuronwise.edit.presets import OURS, Preset
from neuronwise.errors import MethodError

CHOICES = ("contribution", "random")
STARTS = ("zero", "search")


@dataclass(frozen=True)
class FineSettings:
    """[FiNE]'s hyper-parameters, with the names of methods and ablations of the paper.

    ``neurons`` "contribution" or "random"; ``layer`` restricts them to one layer; a weight of 0 leaves a term of the
    loss out. ``rate`` is Adam's, ``steps`` the most that are taken, ``enough`` the probability of every target token
    at which they end. ``start`` "zero" as in the paper; "search" (ours) first looks along Adam's first step, up to
    three times, for the length that just reaches it or from which to go on, see ``line.py``. ``prepend_end`` reads a
    text behind the end token, as the released code does for GPT-J, whose tokenizer marks no beginning. ``repeats``
    learns a neuron as often as target positions chose it, changes that add up, as the released code does; by default
    once.
    """

    n: int = 5
    freeze_last: int = 3
    alpha: float = 1.0
    beta: float = 10.0
    gamma: float = 0.1
    rate: float = 1e-3
    steps: int = 50
    enough: float = 0.9
    neurons: str = "contribution"
    layer: int | None = None
    start: str = "zero"
    prepend_end: bool = False
    repeats: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or self.steps < 1 or self.freeze_last < 0:
            raise MethodError("n and steps must be 1 or more, freeze_last 0 or more.")
        if self.rate <= 0:
            raise MethodError("rate must be above 0.")
        if self.neurons not in CHOICES:
            raise MethodError(f"neurons={self.neurons!r} is unknown; choose {' or '.join(CHOICES)}.")
        if self.start not in STARTS:
            raise MethodError(f"start={self.start!r} is unknown; choose {' or '.join(STARTS)}.")


# Where nothing is published, the rate is 5e-3 below a billion parameters and 1e-3 above.
PRESETS: dict[str, Preset[FineSettings]] = {
    "gptj": Preset(
        FineSettings(rate=0.001, prepend_end=True),
        "FiNE hparams/FINE/gptj-6b.yaml, easyeditor/models/fine/fine_main.py",
    ),
    "llama-2": Preset(FineSettings(rate=0.005), "FiNE hparams/FINE/llama2-7b.yaml"),
    "llama-3": Preset(FineSettings(rate=0.001), "FiNE hparams/FINE/llama3-8b.yaml"),
    "small": Preset(FineSettings(rate=0.005), f"{OURS}: the higher of the published rates"),
    "default": Preset(FineSettings(rate=0.001), f"{OURS}: the rate of the youngest published family"),
}  # fmt: skip
