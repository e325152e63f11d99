"""TransformerLens: hook names, such as ``blocks.23.mlp.hook_post``.

``hook_post`` is the input of W_down, which is our activation. The names are those of ``HookedTransformer`` and, in
version 3 and later, of ``TransformerBridge``; decoders beside an encoder have ``decoder_blocks`` there. Routed experts
have hooks of their own in ``HookedTransformer`` alone.
"""

from __future__ import annotations

import re

from neuronwise.errors import NeuronError
from neuronwise.model.exchange.form import UNITS, Form, Place, Row, first_of, position, whole
from neuronwise.model.model import Model
from neuronwise.neurons import Neuron, ScoredNeuron

NAMES = ("hook", "hook_name", "name")
HOOK = re.compile(
    r"(?:(?:decoder_)?blocks|decoder)\.(\d{1,9})\.mlp\.(?:experts\.(\d{1,9})\.)?(?:hook_post|hook_mid|out\.hook_in)"
)


def recognizes(row: Row) -> bool:
    """Whether a row names a hook."""
    name = first_of(row, NAMES)
    return isinstance(name, str) and (HOOK.fullmatch(name) is not None or ".hook_" in name)


def write(member: ScoredNeuron, model: Model | None, model_id: str | None) -> dict[str, object]:
    """The hook, the unit, which is the last index there, and the position, which is the one before."""
    neuron, blocks = member.neuron, "blocks"
    if model is not None:
        block = model.blocks[neuron.layer]
        if neuron.expert is None and (len(block.dense) > 1 or block.num_experts):
            raise NeuronError(
                f"Layer {neuron.layer} of {model.name} has several feed-forward matrices, for whose neurons "
                "TransformerLens has no one hook; use nnsight."
            )
        blocks = "decoder_blocks" if getattr(model.config, "is_encoder_decoder", False) else "blocks"
    expert = "" if neuron.expert is None else f"experts.{neuron.expert}."
    return {"hook": f"{blocks}.{neuron.layer}.mlp.{expert}hook_post", "unit": neuron.unit, "pos": member.position}


def read(row: Row, model: Model | None) -> Place:
    """The neuron of a hook; raises ``NeuronError`` for a hook where no neurons are."""
    name = str(first_of(row, NAMES))
    match = HOOK.fullmatch(name)
    if match is None:
        raise NeuronError(f"'{name}' is not a hook of neurons; those are blocks.LAYER.mlp.hook_post.")
    layer, expert = (None if number is None else int(number) for number in match.groups())
    return Neuron(layer or 0, whole(row, UNITS), expert), position(row)


FORM = Form(
    "transformer_lens", "TransformerLens hook names", recognizes, write, read, "never",
    'cache[row["hook"]][0, row["pos"], row["unit"]]',
)  # fmt: skip
