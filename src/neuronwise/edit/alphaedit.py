"""AlphaEdit: MEMIT's facts, written only where the keys of a text are not ([AlphaEdit] §3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronwise.data.facts import Fact
from neuronwise.edit.delta import Recorded
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.ledger import Ledger
from neuronwise.edit.memit import DEPTH
from neuronwise.edit.memory.keys import critical_layers
from neuronwise.edit.memory.passages import text_requests
from neuronwise.edit.memory.previous import KEYS, keys_of
from neuronwise.edit.memory.spread import search_targets, solve, spread
from neuronwise.edit.memory.statistics import Statistics, require_statistics
from neuronwise.edit.memory.value import ValueSettings
from neuronwise.edit.presets import OURS, Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.model.lock import alone
from neuronwise.model.model import Model


@dataclass(frozen=True)
class AlphaEditSettings(ValueSettings):
    """[AlphaEdit]'s hyper-parameters. ``layers`` None: as for ``memit``.

    Directions of keys whose eigenvalue of C is below ``nullspace_threshold`` are free to be written; ``L2`` is the
    weight of ‖ΔW‖².
    """

    context_template_length_params: tuple[tuple[int, int], ...] = ((10, 5),)
    nullspace_threshold: float = 2e-2
    L2: float = 10.0


PRESETS: dict[str, Preset[AlphaEditSettings]] = {
    "default": Preset(AlphaEditSettings(), f"{OURS}: LLaMA's of MEMIT"),
    "small": Preset(AlphaEditSettings(), f"{OURS}: LLaMA's of MEMIT"),
    "gpt2-xl": Preset(AlphaEditSettings(layers=(13, 14, 15, 16, 17), v_num_grad_steps=20, v_weight_decay=0.5,
        clamp_norm_factor=0.75), "AlphaEdit hparams/AlphaEdit/gpt2-xl.json"),
    "gptj": Preset(AlphaEditSettings(layers=(3, 4, 5, 6, 7, 8), v_weight_decay=0.5, clamp_norm_factor=0.75),
        "AlphaEdit hparams/AlphaEdit/EleutherAI_gpt-j-6B.json"),
    "llama-3": Preset(AlphaEditSettings(layers=(4, 5, 6, 7, 8), v_lr=0.1, v_weight_decay=0.5, clamp_norm_factor=0.75),
        "AlphaEdit hparams/AlphaEdit/Llama3-8B.json"),
    "qwen2": Preset(AlphaEditSettings(layers=(4, 5, 6, 7, 8), L2=1.0), "EasyEdit hparams/AlphaEdit/qwen2.5-7b.yaml"),
    "qwen3_5": Preset(AlphaEditSettings(layers=(4, 5, 6, 7, 8), L2=1.0), "EasyEdit hparams/AlphaEdit/qwen3.5-9b.yaml"),
}  # fmt: skip


@alone
def alphaedit(
    model: Model,
    facts: Fact | Sequence[Fact],
    settings: AlphaEditSettings | None = None,
    *,
    statistics: Statistics | None = None,
    previous: Sequence[Recorded] | None = None,
    **changes: object,
) -> Edit:
    """An edit that writes all ``facts`` and leaves what the preserved keys read as it is; the model is not touched.

    As ``memit``, but each layer gains R Kᵀ P (K Kᵀ P + Kₚ Kₚᵀ P + L2·I)⁻¹ ([AlphaEdit] eq. 12), P the projection onto
    the null space of C. Kₚ are the keys of ``previous`` edits, by default those that the model carries: as they were
    solved for where this process made them, else read anew for the facts of their record. Without ``statistics`` P is
    the identity: nothing is preserved but previous edits, and the record says so. Raises as ``memit`` does.
    """
    facts = text_requests(model, facts, "alphaedit")
    settings = resolved(model, settings, PRESETS, changes)
    layers = critical_layers(model, settings.layers, DEPTH)
    covariance = require_statistics(statistics, model, layers)
    prefixes = settings.prefixes(model)
    previous = Ledger.of(model).edits if previous is None else previous
    earlier = [keys_of(model, edit, layers, prefixes) for edit in previous]

    def adjust(layer: int, keys: Tensor) -> Tensor:
        every = torch.cat([keys, *(solved[layer] for solved in earlier)], dim=1)
        free = every if statistics is None else statistics.without_preserved(layer, every, settings.nullspace_threshold)
        return projected(every, free, settings.L2)[:, : keys.shape[1]]

    targets = search_targets(model, facts, layers[-1], settings)
    deltas, solved = spread(targets, layers, prefixes, float, adjust)
    edit = edited(
        "alphaedit", model, settings, facts, deltas,
        layers=layers, **covariance, values=targets.endings, missing=targets.missing(deltas).norm(dim=1).tolist(),
        previous=sum(keys[layers[0]].shape[1] for keys in earlier), context_templates=list(prefixes),
    )  # fmt: skip
    KEYS[edit] = solved
    return edit


def projected(keys: Tensor, free: Tensor, ridge: float) -> Tensor:
    """(P M Mᵀ + ridge·I)⁻¹ P M for M (f, n) = ``keys`` and P M = ``free``, through an (n, n) system."""
    system = keys.T @ free
    system.diagonal().add_(ridge)
    return solve(system, free.T).T


EDITOR = Editor(
    "alphaedit", alphaedit, AlphaEditSettings, PRESETS,
    layers="from 1/8 to 1/4 of the depth",
    says="writes many facts at once, only where preserved keys are not changed",
    cites="Fang et al. 2025, arXiv 2410.02355", statistics=True,
)  # fmt: skip
