"""What a kind of study is: the cases it consists of, and how one case is measured.

A kind is one value in the table ``kinds.KINDS``, written in a file of its own:

    class PropertiesRecipe(Recipe):                     # keys of the YAML file beyond those of ``Recipe``
        sigmas: list[NonNegative] = [0.5, 1.0]          # strict pydantic types; unknown keys are refused

    def cases(bench: Bench) -> list[Case]: ...          # cheap, the same list every time (bench.captions are kept)
    def measure(bench: Bench, case: Case) -> list[Row]: ...

    PROPERTIES = Kind("properties", PropertiesRecipe, cases, measure)

What the bench gives (see ``bench.Bench``): ``bench.captions`` {photo's id: caption before anything is changed},
``bench.concepts`` {name: ``Shown`` with ``photos``, ``word(photo)``, ``masked``}, ``bench.run(photo)`` (the run of that
caption, cheap), ``bench.say(photo)`` and ``bench.say_all(photos)`` (new captions, under an intervention),
``bench.mask(photo, concept)``, ``bench.inpainted(photo, concept)``, ``bench.without(concept, count)``,
``bench.random(*key)`` (a seeded generator) and ``bench.kept(part, key, make)`` for plain values that several cases need
(found again as ``Study.notes[part][key]``). ``methods.neurons_for`` finds neurons by any method of a recipe.
``Bench(model, recipe, photos)`` works in memory, for tests; finished studies are read by ``results.read_study``.

The runner does the rest: each case is written once, as a whole (all its rows or none), a failed one
(``NeuronwiseError``, no memory) with its reason; what is written is not measured again; the table at the end has one
line for each row. ``measure`` depends on bench and case alone, never on other cases or on the order of cases, so that
a study that was killed and resumed gives the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from neuronwise.study.bench import Bench
from neuronwise.study.keys import Recipe

Row: TypeAlias = "dict[str, Any]"
"""One line of the table: column → number, text, truth value, None, or a list of those; no NaN and no infinity.

Columns whose name begins with ``seconds`` may differ in a repeated run; all others may not.
"""


@dataclass(frozen=True)
class Case:
    """One unit of work, seconds to a minute of it. ``id``: unique in the study, and readable: "dog/two_stage/50".

    ``inputs``: what it is about, as plain JSON values; they become columns of all its rows.
    """

    id: str
    inputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """A kind of study. ``recipe``: the keys that its file may have; ``cases``, ``measure``: see above."""

    name: str
    recipe: type[Recipe]
    cases: Callable[[Bench], Sequence[Case]]
    measure: Callable[[Bench, Case], Sequence[Row]]
