"""How long captions are."""

from __future__ import annotations

from neuronwise.drawing.tables import Estimate, Table
from neuronwise.measure import mean_interval
from neuronwise.study.kind import Case, Study
from neuronwise.study.photo_study import photo_kind
from neuronwise.study.recipe_fields import PhotoRecipe
from neuronwise.study.store import Row
from neuronwise.study.workspace import Workspace


def cases(workspace: Workspace[PhotoRecipe]) -> list[Case]:
    """One for each photo."""
    return [Case(photo) for photo in workspace.captions]


def measure(workspace: Workspace[PhotoRecipe], case: Case) -> list[Row]:
    """One row: the number of words of the caption."""
    return [{"words": len(workspace.captions[case.id].split())}]


def tables(study: Study) -> list[Table]:
    """The mean with its 95 % interval over photos."""
    mean = Estimate.of(mean_interval(row["words"] for row in study.rows))
    return [Table("length", "Words of a caption", ("captions", "words"), [[str(len(study.rows)), mean]])]


LENGTH = photo_kind(
    "length", PhotoRecipe, cases, measure, tables, lambda study: [],
    title="Length of captions", sentence="How many words does a caption have?",
)  # fmt: skip
