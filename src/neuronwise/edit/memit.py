"""MEMIT: many facts written at once by the feed-forward layers between two depths ([MEMIT] §4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neuronwise.data.facts import Fact
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.memory.keys import critical_layers
from neuronwise.edit.memory.passages import text_requests
from neuronwise.edit.memory.spread import least_squares, search_targets, spread
from neuronwise.edit.memory.statistics import Statistics, require_statistics
from neuronwise.edit.memory.value import ValueSettings
from neuronwise.edit.presets import OURS, Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.model.lock import alone
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


PRESETS: dict[str, Preset[MemitSettings]] = {
    "default": Preset(MemitSettings(), f"{OURS}: as LLaMA's"),
    "small": Preset(MemitSettings(), f"{OURS}: as LLaMA's"),
    "gpt2-xl": Preset(MemitSettings(layers=(13, 14, 15, 16, 17), v_num_grad_steps=20, v_weight_decay=0.5,
        clamp_norm_factor=0.75, mom2_update_weight=20000.0), "MEMIT hparams/MEMIT/gpt2-xl.json"),
    "gptj": Preset(MemitSettings(layers=(3, 4, 5, 6, 7, 8), v_weight_decay=0.5, clamp_norm_factor=0.75),
        "MEMIT hparams/MEMIT/EleutherAI_gpt-j-6B.json"),
    "gpt_neox": Preset(MemitSettings(layers=(6, 7, 8, 9, 10), v_num_grad_steps=20, v_weight_decay=0.5,
        clamp_norm_factor=0.8, mom2_update_weight=6000.0), "PMET edit/hparams/MEMIT/EleutherAI_gpt-neox-20b.json"),
    "llama-2": Preset(MemitSettings(layers=(4, 5, 6, 7, 8)), "EasyEdit hparams/MEMIT/llama-7b.yaml"),
    "llama-3": Preset(MemitSettings(layers=(4, 5, 6, 7, 8), v_lr=0.1, v_weight_decay=0.5, clamp_norm_factor=0.75),
        "AlphaEdit hparams/MEMIT/Llama3-8B.json"),
    "llama-3.2-3b": Preset(MemitSettings(layers=(4, 5, 6, 7, 8)), "EasyEdit hparams/MEMIT/llama3.2-3b.yaml"),
    "mistral": Preset(MemitSettings(layers=(4, 5, 6, 7, 8)), "EasyEdit hparams/MEMIT/mistral-7b.yaml"),
    "qwen2": Preset(MemitSettings(layers=(4, 5, 6, 7, 8)), "EasyEdit hparams/MEMIT/qwen2-7b.yaml, qwen2.5-7b.yaml"),
    "qwen": Preset(MemitSettings(layers=(4, 5, 6, 7, 8), v_weight_decay=0.5, clamp_norm_factor=0.75),
        "EasyEdit hparams/MEMIT/qwen-7b.yaml"),
}  # fmt: skip


@alone
def memit(
    model: Model,
    facts: Fact | Sequence[Fact],
    settings: MemitSettings | None = None,
    *,
    statistics: Statistics | None = None,
    **changes: object,
) -> Edit:
    """An edit that writes all ``facts`` together; the model itself is left as it is.

    The hidden state z that gives the new target is searched at the last of ``layers``; each layer then gains
    R Kᵀ (λC + K Kᵀ)⁻¹ for its share R of what is missing there ([MEMIT] eq. 14, 20). Without ``statistics`` C is a
    multiple of the identity and the record says so. Raises ``MethodError`` for layers without one dense writer,
    ``EditError`` for statistics of another model, ``NonFiniteError``.
    """
    facts = text_requests(model, facts, "memit")
    settings = resolved(model, settings, PRESETS, changes)
    layers = critical_layers(model, settings.layers, DEPTH)
    covariance = require_statistics(statistics, model, layers)
    weight = settings.identity_weight if statistics is None else settings.mom2_update_weight
    prefixes = settings.prefixes(model)
    targets = search_targets(model, facts, layers[-1], settings)
    deltas, _ = spread(
        targets, layers, prefixes, float, lambda layer, keys: least_squares(keys, weight, statistics, layer)
    )
    return edited(
        "memit", model, settings, facts, deltas,
        layers=layers, **covariance, values=targets.endings, missing=targets.missing(deltas).norm(dim=1).tolist(),
        context_templates=list(prefixes),
    )  # fmt: skip


EDITOR = Editor(
    "memit", memit, MemitSettings, PRESETS,
    layers="from 1/8 to 1/4 of the depth",
    says="writes many facts at once into the feed-forward layers between two depths",
    cites="Meng et al. 2023, arXiv 2210.07229", statistics=True,
)  # fmt: skip
