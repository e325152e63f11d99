"""PMET: attention and feed-forward searched together, the feed-forward part alone written ([PMET] §4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import nn

from neuronwise.answers.request import listed
from neuronwise.data.facts import Fact
from neuronwise.edit.edit import Edit, column_norms
from neuronwise.edit.memit import DEPTH
from neuronwise.edit.memory.keys import critical_layers, on_prompts, writer_in
from neuronwise.edit.memory.passages import require_text
from neuronwise.edit.memory.spread import least_squares, spread
from neuronwise.edit.memory.statistics import Statistics, require_statistics
from neuronwise.edit.memory.value import ValueSettings, search
from neuronwise.edit.presets import resolved
from neuronwise.edit.record import made
from neuronwise.errors import MethodError
from neuronwise.model.anatomy import _mixes_tokens
from neuronwise.model.model import Model


@dataclass(frozen=True)
class PmetSettings(ValueSettings):
    """[PMET]'s hyper-parameters; ``layers``, ``mom2_update_weight`` and ``identity_weight`` as for ``memit``."""

    v_num_grad_steps: int = 30
    v_lr: float = 0.2
    v_weight_decay: float = 0.5
    clamp_norm_factor: float = 0.75
    kl_factor: float = 1.0
    context_template_length_params: tuple[tuple[int, int], ...] = ((10, 5),)
    mom2_update_weight: float = 6000.0
    identity_weight: float = 0.1


# Where each was published stands in sources.py; layers that are not named go by depth.
PRESETS: dict[str, PmetSettings] = {
    "default": PmetSettings(),
    "small": PmetSettings(),
    "gptj": PmetSettings(layers=(3, 4, 5, 6, 7, 8)),
    "gpt_neox": PmetSettings(
        layers=(6, 7, 8, 9, 10), v_lr=0.5, clamp_norm_factor=0.8, kl_factor=0.8, mom2_update_weight=15000.0
    ),
    "llama-2": PmetSettings(
        layers=(4, 5, 6, 7, 8), v_num_grad_steps=20, v_lr=0.5, clamp_norm_factor=1.0, kl_factor=0.0625,
        mom2_update_weight=15000.0,
    ),
    "llama-3.2-3b": PmetSettings(
        layers=(4, 5, 6, 7, 8), v_num_grad_steps=25, v_lr=0.5, clamp_norm_factor=1.0, kl_factor=0.0625,
        mom2_update_weight=15000.0,
    ),
}  # fmt: skip


def pmet(
    model: Model,
    facts: Fact | Sequence[Fact],
    settings: PmetSettings | None = None,
    *,
    statistics: Statistics | None = None,
    **changes: Any,
) -> Edit:
    """An edit that writes all ``facts`` together; the model itself is left as it is.

    At the last of ``layers`` a vector is added to what attention writes at the subject and another to what W_down
    writes; both are searched together, and the second alone is what the layers then learn, each taking what is still
    missing divided by the square root of the number of layers left ([PMET] eq. 13–15). Raises as ``memit`` does, and
    ``MethodError`` for a layer without attention.
    """
    facts = listed(facts)
    require_text(model, facts, "pmet")
    settings = resolved(model, settings, PRESETS, changes)
    layers = critical_layers(model, settings.layers, DEPTH)
    covariance = require_statistics(statistics, model, layers)
    weight = settings.identity_weight if statistics is None else settings.mom2_update_weight
    last, found, ends = layers[-1], [], []
    spots = [writer_in(model, last).module, attention_of(model, last)]
    for fact in facts:
        values, end = search(model, fact, last, spots, settings, relax=True)
        found.append(values[0].target)
        ends.append(end)
    targets = torch.stack(found)

    def missing(deltas: Any) -> Any:
        return targets - on_prompts(model, facts, last, deltas).written[last]

    deltas, _ = spread(
        model,
        facts,
        layers,
        settings.prefixes(model),
        missing,
        sqrt,
        lambda layer, keys: least_squares(keys, weight, statistics, layer),
    )
    outcome = {"layers": layers, **covariance, "values": ends, "missing": missing(deltas).norm(dim=1).tolist()}
    outcome["context_templates"] = list(settings.prefixes(model))
    return Edit(deltas, made("pmet", model, settings, facts, **outcome), column_norms(model, deltas))


def attention_of(model: Model, layer: int) -> nn.Module:
    """The outermost module of a layer that mixes tokens; raises ``MethodError`` where there is none."""
    for module in model.blocks[layer].module.modules():
        if module is not model.blocks[layer].module and _mixes_tokens(module):
            return module
    raise MethodError(f"Layer {layer} of {model.name} has no attention, which pmet searches together with W_down.")
