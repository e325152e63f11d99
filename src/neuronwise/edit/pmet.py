"""PMET: attention and feed-forward searched together, the feed-forward part alone written ([PMET] §4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from torch import nn

from neuronwise.data.facts import Fact
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.memit import DEPTH
from neuronwise.edit.memory.keys import critical_layers, writer_in
from neuronwise.edit.memory.passages import text_requests
from neuronwise.edit.memory.spread import least_squares, search_targets, spread
from neuronwise.edit.memory.statistics import Statistics, require_statistics
from neuronwise.edit.memory.value import ValueSettings
from neuronwise.edit.presets import OURS, Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.errors import MethodError
from neuronwise.model.anatomy import mixes_tokens
from neuronwise.model.lock import alone
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


PRESETS: dict[str, Preset[PmetSettings]] = {
    "default": Preset(PmetSettings(), f"{OURS}: as GPT-J's"),
    "small": Preset(PmetSettings(), f"{OURS}: as GPT-J's"),
    "gptj": Preset(PmetSettings(layers=(3, 4, 5, 6, 7, 8)), "PMET edit/hparams/PMET/EleutherAI_gpt-j-6B.json"),
    "gpt_neox": Preset(PmetSettings(layers=(6, 7, 8, 9, 10), v_lr=0.5, clamp_norm_factor=0.8, kl_factor=0.8,
        mom2_update_weight=15000.0 ), "PMET edit/hparams/PMET/EleutherAI_gpt-neox-20b.json"),
    "llama-2": Preset(PmetSettings(layers=(4, 5, 6, 7, 8), v_num_grad_steps=20, v_lr=0.5, clamp_norm_factor=1.0,
        kl_factor=0.0625, mom2_update_weight=15000.0), "EasyEdit hparams/PMET/llama-7b.yaml"),
    "llama-3.2-3b": Preset(PmetSettings(layers=(4, 5, 6, 7, 8), v_num_grad_steps=25, v_lr=0.5, clamp_norm_factor=1.0,
        kl_factor=0.0625, mom2_update_weight=15000.0), "EasyEdit hparams/PMET/llama3.2-3b.yaml"),
}  # fmt: skip


@alone
def pmet(
    model: Model,
    facts: Fact | Sequence[Fact],
    settings: PmetSettings | None = None,
    *,
    statistics: Statistics | None = None,
    **changes: object,
) -> Edit:
    """An edit that writes all ``facts`` together; the model itself is left as it is.

    At the last of ``layers`` a vector is added to what attention writes at the subject and another to what W_down
    writes; both are searched together, and the second alone is what the layers then learn, each taking what is still
    missing divided by the square root of the number of layers left ([PMET] eq. 13–15). Raises as ``memit`` does, and
    ``MethodError`` for a layer without attention.
    """
    facts = text_requests(model, facts, "pmet")
    settings = resolved(model, settings, PRESETS, changes)
    layers = critical_layers(model, settings.layers, DEPTH)
    covariance = require_statistics(statistics, model, layers)
    weight = settings.identity_weight if statistics is None else settings.mom2_update_weight
    prefixes = settings.prefixes(model)
    spots = [writer_in(model, layers[-1]).module, attention_of(model, layers[-1])]
    targets = search_targets(model, facts, layers[-1], settings, spots, relax=True)
    deltas, _ = spread(
        targets, layers, prefixes, sqrt, lambda layer, keys: least_squares(keys, weight, statistics, layer)
    )
    return edited(
        "pmet", model, settings, facts, deltas,
        layers=layers, **covariance, values=targets.endings, missing=targets.missing(deltas).norm(dim=1).tolist(),
        context_templates=list(prefixes),
    )  # fmt: skip


def attention_of(model: Model, layer: int) -> nn.Module:
    """The outermost module of a layer that mixes tokens; raises ``MethodError`` where there is none."""
    for module in model.blocks[layer].module.modules():
        if module is not model.blocks[layer].module and mixes_tokens(module):
            return module
    raise MethodError(f"Layer {layer} of {model.name} has no attention, which pmet searches together with W_down.")


EDITOR = Editor(
    "pmet", pmet, PmetSettings, PRESETS,
    layers="from 1/8 to 1/4 of the depth",
    says="searches what attention and feed-forward layers write together, and writes the feed-forward part",
    cites="Li et al. 2024, arXiv 2308.08742", statistics=True,
)  # fmt: skip
