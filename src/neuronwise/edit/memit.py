"""MEMIT: many facts written at once by the feed-forward layers between two depths ([MEMIT] §4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuronwise.answers.request import listed
from neuronwise.data.facts import Fact
from neuronwise.edit.delta import Delta
from neuronwise.edit.edit import Edit, column_norms
from neuronwise.edit.memory.keys import critical_layers, on_prompts
from neuronwise.edit.memory.passages import require_text
from neuronwise.edit.memory.spread import least_squares, spread
from neuronwise.edit.memory.statistics import Statistics, require_statistics
from neuronwise.edit.memory.value import ValueSettings, search
from neuronwise.edit.presets import resolved
from neuronwise.edit.record import made
from neuronwise.model.model import Model

DEPTH = (1 / 8, 1 / 4)  # layers 4 to 8 of 32, where [MEMIT] and its followers edit LLaMA-like models


@dataclass(frozen=True)
class MemitSettings(ValueSettings):
    """[MEMIT]'s hyper-parameters. ``layers`` None: from an eighth to a quarter of the depth (our choice).

    ``mom2_update_weight`` is λ, the weight of the statistics; without statistics it is ``identity_weight``, the weight
    of the identity times the mean ‖k‖² (our choice: λ of the papers goes with C and would leave nothing of the edit).
    """

    context_template_length_params: tuple[tuple[int, int], ...] = ((10, 5),)
    mom2_update_weight: float = 15000.0
    identity_weight: float = 0.1


# Where each was published stands in sources.py; layers that are not named go by depth.
PRESETS: dict[str, MemitSettings] = {
    "default": MemitSettings(),
    "small": MemitSettings(),
    "gpt2-xl": MemitSettings(
        layers=(13, 14, 15, 16, 17), v_num_grad_steps=20, v_weight_decay=0.5, clamp_norm_factor=0.75,
        mom2_update_weight=20000.0,
    ),
    "gptj": MemitSettings(layers=(3, 4, 5, 6, 7, 8), v_weight_decay=0.5, clamp_norm_factor=0.75),
    "gpt_neox": MemitSettings(
        layers=(6, 7, 8, 9, 10), v_num_grad_steps=20, v_weight_decay=0.5, clamp_norm_factor=0.8,
        mom2_update_weight=6000.0,
    ),
    "llama-2": MemitSettings(layers=(4, 5, 6, 7, 8)),
    "llama-3": MemitSettings(layers=(4, 5, 6, 7, 8), v_lr=0.1, v_weight_decay=0.5, clamp_norm_factor=0.75),
    "llama-3.2-3b": MemitSettings(layers=(4, 5, 6, 7, 8)),
    "mistral": MemitSettings(layers=(4, 5, 6, 7, 8)),
    "qwen2": MemitSettings(layers=(4, 5, 6, 7, 8)),
    "qwen": MemitSettings(layers=(4, 5, 6, 7, 8), v_weight_decay=0.5, clamp_norm_factor=0.75),
}  # fmt: skip


def memit(
    model: Model,
    facts: Fact | Sequence[Fact],
    settings: MemitSettings | None = None,
    *,
    statistics: Statistics | None = None,
    **changes: Any,
) -> Edit:
    """An edit that writes all ``facts`` together; the model itself is left as it is.

    The hidden state z that says the new target is searched at the last of ``layers``; each layer then gains
    R Kᵀ (λC + K Kᵀ)⁻¹ for its share R of what is missing there ([MEMIT] eq. 14, 20). Without ``statistics`` C is a
    multiple of the identity and the record says so. Raises ``MethodError`` for layers without one dense writer,
    ``EditError`` for statistics of another model, ``NonFiniteError``.
    """
    facts = listed(facts)
    require_text(model, facts, "memit")
    settings = resolved(model, settings, PRESETS, changes)
    layers = critical_layers(model, settings.layers, DEPTH)
    covariance = require_statistics(statistics, model, layers)
    weight = settings.identity_weight if statistics is None else settings.mom2_update_weight
    targets, ends = searched(model, facts, layers[-1], settings)
    deltas, _ = spread(
        model,
        facts,
        layers,
        settings.prefixes(model),
        lambda found: missing(model, facts, layers[-1], targets, found),
        float,
        lambda layer, keys: least_squares(keys, weight, statistics, layer),
    )
    left = missing(model, facts, layers[-1], targets, deltas).norm(dim=1)
    outcome = {"layers": layers, **covariance, "values": ends, "missing": left.tolist()}
    outcome["context_templates"] = list(settings.prefixes(model))
    return Edit(deltas, made("memit", model, settings, facts, **outcome), column_norms(model, deltas))


def searched(
    model: Model, facts: Sequence[Fact], layer: int, settings: ValueSettings
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Targets (n, d) for what ``layer`` holds at each fact's subject, and how each search ended."""
    found, ends = [], []
    for fact in facts:
        values, end = search(model, fact, layer, [model.blocks[layer].module], settings)
        found.append(values[0].target)
        ends.append(end)
    return torch.stack(found), ends


def missing(model: Model, facts: Sequence[Fact], layer: int, targets: Tensor, deltas: Sequence[Delta]) -> Tensor:
    """(n, d): the targets less what ``layer`` holds on the bare prompts with ``deltas`` acting."""
    return targets - on_prompts(model, facts, layer, deltas).stream[layer]
