"""EMMET: ROME's equality constraint for many facts at once ([EMMET] §4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronwise.data.facts import Fact
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.memory.keys import critical_layers
from neuronwise.edit.memory.passages import text_requests
from neuronwise.edit.memory.spread import search_targets, spread
from neuronwise.edit.memory.statistics import Statistics, require_statistics
from neuronwise.edit.memory.value import ValueSettings
from neuronwise.edit.presets import OURS, Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.edit.rome import DEPTH
from neuronwise.model.lock import alone
from neuronwise.model.model import Model


@dataclass(frozen=True)
class EmmetSettings(ValueSettings):
    """[EMMET]'s hyper-parameters. ``layers`` None: the one at a sixth of the depth, as for ``rome`` (our choice).

    ``emmet_lambda`` is added to the diagonal of Kᵀ(``mom2_update_weight``·C)⁻¹K of several facts, whose keys may be
    nearly the same.
    """

    context_template_length_params: tuple[tuple[int, int], ...] = ((10, 5),)
    mom2_update_weight: float = 1.0
    emmet_lambda: float = 0.1


PRESETS: dict[str, Preset[EmmetSettings]] = {
    "default": Preset(EmmetSettings(), f"{OURS}: as LLaMA's"),
    "small": Preset(EmmetSettings(), f"{OURS}: as LLaMA's"),
    "gpt2-xl": Preset(EmmetSettings(layers=(17,), v_num_grad_steps=20, v_weight_decay=0.5, clamp_norm_factor=0.75,
        mom2_update_weight=1000.0), "EMMET hparams/EMMET/gpt2-xl.json"),
    "gptj": Preset(EmmetSettings(layers=(5,), v_weight_decay=0.5, clamp_norm_factor=0.75),
        "EMMET hparams/EMMET/EleutherAI_gpt-j-6B.json"),
    "llama-2": Preset(EmmetSettings(layers=(5,)), "EMMET hparams/EMMET/llama2-7b.json"),
    "llama-3": Preset(EmmetSettings(layers=(5,), v_weight_decay=0.5, clamp_norm_factor=0.75,
        mom2_update_weight=100000.0), "ENCORE hparams/EMMET/llama3-8b.json"),
    "llama-3.2-3b": Preset(EmmetSettings(layers=(5,), mom2_update_weight=100000.0),
        "EasyEdit hparams/EMMET/llama3.2-3b.yaml"),
}  # fmt: skip


@alone
def emmet(
    model: Model,
    facts: Fact | Sequence[Fact],
    settings: EmmetSettings | None = None,
    *,
    statistics: Statistics | None = None,
    **changes: object,
) -> Edit:
    """An edit that writes all ``facts`` together, each exactly; the model itself is left as it is.

    As ``memit``, but of all changes that map the keys K to what they should give it is the one that moves the keys of
    a text least: each layer gains R (Kᵀ C⁻¹ K)⁻¹ Kᵀ C⁻¹ ([EMMET] eq. 9). Without ``statistics`` C is a multiple of
    the identity and the record says so. Raises as ``memit`` does.
    """
    facts = text_requests(model, facts, "emmet")
    settings = resolved(model, settings, PRESETS, changes)
    layers = critical_layers(model, settings.layers, DEPTH)
    covariance = require_statistics(statistics, model, layers)
    ridge = settings.mom2_update_weight * settings.emmet_lambda if len(facts) > 1 else 0.0
    prefixes = settings.prefixes(model)
    targets = search_targets(model, facts, layers[-1], settings)
    deltas, _ = spread(targets, layers, prefixes, float, lambda layer, keys: equality(keys, ridge, statistics, layer))
    return edited(
        "emmet", model, settings, facts, deltas,
        layers=layers, **covariance, values=targets.endings, missing=targets.missing(deltas).norm(dim=1).tolist(),
        context_templates=list(prefixes),
    )  # fmt: skip


def equality(keys: Tensor, ridge: float, statistics: Statistics | None, layer: int) -> Tensor:
    """C⁻¹ K (Kᵀ C⁻¹ K + ridge·I)⁻¹ for K (f, n).

    Without statistics C is the identity times the mean of ‖k‖² / f, so that Kᵀ C⁻¹ K is of the size f that it has for
    keys whose second moments are C.
    """
    width = keys.shape[0]
    inner = keys * (width / keys.square().sum(0).mean()) if statistics is None else statistics.solve(layer, keys)
    system = keys.T @ inner
    system.diagonal().add_(ridge)
    return inner @ torch.linalg.pinv(system, hermitian=True)


EDITOR = Editor(
    "emmet", emmet, EmmetSettings, PRESETS,
    layers="at 1/6 of the depth",
    says="writes many facts at once, each exactly, by the least change of one layer's W_down",
    cites="Gupta et al. 2024, arXiv 2403.14236", statistics=True,
)  # fmt: skip
