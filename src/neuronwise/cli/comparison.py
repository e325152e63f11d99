"""What is printed of evaluations that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from neuronwise.cli.app import Output
from neuronwise.cli.output import print_table
from neuronwise.errors import NeuronwiseError

if TYPE_CHECKING:
    from neuronwise.study import Evaluation
    from neuronwise.study.evaluation.comparison import Comparison

COMPARED = "neuronwise.compared/1"
HEADS = ("Figure", "Protocol", "Cases", "First", "Second", "Difference", "95 % interval")


def compared(folders: Sequence[str]) -> Output:
    """Each further evaluation in the folders against the first one; raises ``StudyError``, see ``compare``."""
    from neuronwise.study.evaluation.comparison import compare

    (first, base), *others = _evaluations(folders)
    found = [(name, compare(base, one)) for name, one in others]
    content = {
        "schema": COMPARED,
        "first": first,
        "others": [
            {"name": name, "cases": one.cases, "differs": list(one.differs),
             "figures": {figure: asdict(paired) for figure, paired in one.figures.items()}}
            for name, one in found
        ],
    }  # fmt: skip
    return Output(content, lambda: _show(first, found))


def _evaluations(folders: Sequence[str]) -> list[tuple[str, Evaluation]]:
    """All evaluations with their names: the folder's, with the editor's where a folder holds several."""
    from neuronwise.study.evaluation.results import is_evaluation, read_evaluations

    found: list[tuple[str, Evaluation]] = []
    for folder in folders:
        if not is_evaluation(folder):
            raise NeuronwiseError(f"'{folder}' is not an evaluation; name one source of facts, or folders to compare.")
        editors = read_evaluations(folder)
        name = Path(folder).name
        found += [(name if len(editors) == 1 else f"{name}/{editor}", one) for editor, one in editors.items()]
    return found


def _show(first: str, found: Sequence[tuple[str, Comparison]]) -> None:
    from neuronwise.study.evaluation.figure_names import described, ordered

    for name, one in found:
        rows = []
        for figure in ordered(list(one.figures)):
            paired = one.figures[figure]
            between = paired.difference
            means = [f"{mean.mean:.3f}" for mean in (paired.first, paired.second)]
            ends = f"{between.low:+.3f} to {between.high:+.3f}"
            rows.append([*described(figure), str(between.n), *means, f"{between.mean:+.3f}", ends])
        print_table(f"{name} (second) against {first} (first), {one.cases} cases", list(HEADS), rows)
        print(f"Not the same in their recipes: {', '.join(one.differs) or 'nothing'}.")
