"""Looking at a written checkpoint as a user will: every tensor is there, and transformers opens it."""

from __future__ import annotations

from pathlib import Path

from neuronwise.architectures.convert.plan import Output, Plan
from neuronwise.architectures.convert.weights import open_weights
from neuronwise.errors import ModelError
from neuronwise.model.complete import listed, require_tensors


def verify(plan: Plan, folder: Path, planned: list[Output]) -> None:
    """Raise ``ModelError`` unless ``folder`` holds what was planned and opens without missing or unexpected tensors.

    Files are read anew: shapes and dtypes from their headers, the model on the meta device, so that no memory is
    taken for weights.
    """
    import transformers

    written = open_weights(folder)
    wanted = {output.name: (output.shape, output.dtype) for output in planned}
    there = {name: (stored.shape, stored.dtype) for name, stored in written.tensors.items()}
    wrong = sorted(name for name in {*wanted, *there} if wanted.get(name) != there.get(name))
    if wrong:
        raise ModelError(f"What was written is not what was planned: {listed(wrong)}.")
    config = transformers.AutoConfig.from_pretrained(folder)
    if type(config) is not type(plan.config):
        raise ModelError(f"What was written opens as {type(config).__name__}, not {type(plan.config).__name__}.")
    require_tensors(
        "What was written",
        *plan.model_class.from_pretrained(folder, config=config, device_map="meta", output_loading_info=True),
    )
