"""What an intervention of a study is, and the table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neuronwise.edit.settings import checked
from neuronwise.errors import MethodError, reason
from neuronwise.neurons import NeuronSet
from neuronwise.registry import Registry

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from neuronwise.locate.baseline import Baseline
    from neuronwise.model.model import Model
    from neuronwise.model.run import Run
    from neuronwise.study.store import Row


@dataclass(frozen=True)
class Scene:
    """``neurons`` of a concept, the ``runs`` that they were found on, and the ``words`` by which these name it.

    ``target`` is the word to put in its place, None in a study without one. ``means()`` is what neurons usually do.
    ``moved``, where the neurons are random ones: how far, as a share of their norm, the intervention moved those that
    they stand beside.
    """

    model: Model
    neurons: NeuronSet
    runs: Sequence[Run]
    words: Sequence[str]
    target: str | None
    means: Callable[[], Baseline]
    moved: float | None = None


@dataclass(frozen=True)
class Intervention:
    """One way of changing the model while a case is measured; ``INTERVENTIONS`` names them.

    ``begin(scene, settings)`` is a context manager: within its body the model is changed, and it yields what there is
    to note, as plain values. ``settings``: a dataclass of what a recipe may set, without the fields that the study
    ``decides`` itself. ``swaps``: it puts another word in place of the concept, and notes the "norm" of its change.
    """

    name: str
    begin: Callable[[Scene, Any], AbstractContextManager[Row]]
    settings: type[DataclassInstance]
    decides: tuple[str, ...] = ()
    swaps: bool = False

    def made(self, options: Mapping[str, object]) -> DataclassInstance:
        """The settings; raises ``MethodError`` for unknown names, values that do not fit, and what is missing."""
        decided = next((name for name in self.decides if name in options), None)
        if decided is not None:
            raise MethodError(f"The study's methods and K say which neurons {self.name} changes; leave {decided} out.")
        try:
            return self.settings(**checked(self.settings, options))
        except TypeError as error:
            raise MethodError(f"{self.name} cannot take these settings: {reason(error)}.") from error


INTERVENTIONS: Registry[Intervention] = Registry(
    "intervention",
    {
        "suppress": "neuronwise.study.suppression.changes:SUPPRESS",
        "mean_ablate": "neuronwise.study.suppression.changes:MEAN_ABLATE",
        "scale": "neuronwise.study.suppression.changes:SCALE",
        "swap": "neuronwise.study.suppression.changes:SWAP",
    },
    kind="neuronwise.study.interventions:Intervention",
    group="neuronwise.interventions",
    error=MethodError,
)
