"""The twin of a run: the same tokens read, and the same ones forced, but for what is to be explained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuronwise.errors import MethodError
from neuronwise.images import ImageLike
from neuronwise.locate.activation_difference import on_another_photo
from neuronwise.model.run import Run

if TYPE_CHECKING:
    from neuronwise.model import Model


def twin_of(model: Model, run: Run, inpainted: ImageLike | None, counterfactual: str | None) -> Run:
    """The run on another photo, or after another prompt of as many tokens, with its own output forced.

    Raises ``MethodError`` unless exactly one of them is given, and for a prompt of another length, since positions of
    the two runs are compared one by one.
    """
    if (inpainted is None) == (counterfactual is None):
        raise MethodError(
            "Two runs are compared: give either inpainted=PHOTO, or counterfactual=PROMPT, such as the prompt with "
            "another subject."
        )
    if inpainted is not None:
        return on_another_photo(model, run, inpainted)
    assert counterfactual is not None
    prompted, image = run.asked(prompt=counterfactual)
    if len(prompted.input_ids) != len(run.prompted.input_ids):
        raise MethodError(
            f"The counterfactual {counterfactual!r} makes {len(prompted.input_ids)} tokens, the run's own prompt "
            f"{len(run.prompted.input_ids)}; positions are compared one by one, so choose a prompt of the same length."
        )
    if prompted.input_ids == run.prompted.input_ids:
        raise MethodError("The counterfactual is the run's own prompt; nothing would differ.")
    return Run.of(model, prompted, run.output_ids, image)
