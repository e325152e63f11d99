"""NAMET: MEMIT with what is missing measured behind the prefixes, not on the bare prompt ([NAMET] §4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from neuronwise.data.facts import Fact
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.memory.keys import critical_layers
from neuronwise.edit.memory.passages import text_requests
from neuronwise.edit.memory.spread import Targets, least_squares, spread
from neuronwise.edit.memory.statistics import Statistics, require_statistics
from neuronwise.edit.memory.value import ValueSettings, search
from neuronwise.edit.presets import OURS, Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.errors import MethodError
from neuronwise.model.lock import alone
from neuronwise.model.model import Model

DEPTH = (3 / 32, 1 / 8)  # layers 3 and 4 of 32, which all of the published settings name
README = "v_lr of README.md"


@dataclass(frozen=True)
class NametSettings(ValueSettings):
    """[NAMET]'s hyper-parameters. ``layers`` None: from 3/32 to 1/8 of the depth (our choice).

    ``mom2_update_weight``: λ of each layer, the last for all further ones; ``identity_weight`` as for ``memit``.
    """

    v_lr: float = 0.04
    v_weight_decay: float = 0.5
    clamp_norm_factor: float = 0.75
    enough_loss: float = 1e-2
    context_template_length_params: tuple[tuple[int, int], ...] = ((10, 5),)
    mom2_update_weight: tuple[float, ...] = (25000.0, 50000.0)
    identity_weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.mom2_update_weight or min(self.mom2_update_weight) <= 0:
            raise MethodError("mom2_update_weight is one number above 0 for each layer, the first layer's first.")


PRESETS: dict[str, Preset[NametSettings]] = {
    "default": Preset(NametSettings(), f"{OURS}: as LLaMA's"),
    "small": Preset(NametSettings(v_lr=0.2), f"{OURS}: five times LLaMA's rate"),
    "llama-2": Preset(NametSettings(layers=(3, 4)), "NAMET hparams/NAMET/LLAMA2-7B.json"),
    "llama-3": Preset(NametSettings(layers=(3, 4), v_lr=0.008, mom2_update_weight=(7500.0, 15000.0)),
        f"NAMET hparams/NAMET/LLAMA3-8B.json, {README}"),
    "falcon": Preset(NametSettings(layers=(3, 4), v_lr=0.06, mom2_update_weight=(5000.0, 10000.0)),
        f"NAMET hparams/NAMET/Falcon-7B.json, {README}"),
    "qwen2": Preset(NametSettings(layers=(3, 4), mom2_update_weight=(500.0, 1000.0)),
        f"NAMET hparams/NAMET/Qwen-7B.json, {README}"),
}  # fmt: skip


@alone
def namet(
    model: Model,
    facts: Fact | Sequence[Fact],
    settings: NametSettings | None = None,
    *,
    statistics: Statistics | None = None,
    **changes: object,
) -> Edit:
    """An edit that writes all ``facts`` together; the model itself is left as it is.

    As ``memit``, but what is missing at the last of ``layers`` is the mean over the prefixes, which are noise around
    the prompt, and the weight decay and the bound of δ are relative to the hidden states of all passages together
    ([NAMET]'s code). Raises as ``memit`` does.
    """
    facts = text_requests(model, facts, "namet")
    settings = resolved(model, settings, PRESETS, changes)
    layers = critical_layers(model, settings.layers, DEPTH)
    covariance = require_statistics(statistics, model, layers)
    prefixes = settings.prefixes(model)
    targets = noisy_targets(model, facts, layers[-1], settings, prefixes[1:] or prefixes)
    last = len(settings.mom2_update_weight) - 1
    weights = {layer: settings.mom2_update_weight[min(place, last)] for place, layer in enumerate(layers)}
    if statistics is None:
        weights = dict.fromkeys(layers, settings.identity_weight)
    deltas, _ = spread(
        targets, layers, prefixes, float, lambda layer, keys: least_squares(keys, weights[layer], statistics, layer)
    )
    return edited(
        "namet", model, settings, facts, deltas,
        layers=layers, **covariance, values=targets.endings, missing=targets.missing(deltas).norm(dim=1).tolist(),
        context_templates=list(prefixes),
    )  # fmt: skip


def noisy_targets(
    model: Model, facts: Sequence[Fact], layer: int, settings: NametSettings, noise: Sequence[str]
) -> Targets:
    """For each fact the mean of what ``layer`` gives at its subject behind the prefixes ``noise``, and its δ."""
    found = [search(model, fact, layer, [model.blocks[layer].module], settings, everywhere=True) for fact in facts]
    added = torch.stack([values[0].delta for values, _ in found])
    missing = Targets(model, facts, layer, torch.zeros_like(added), [ending for _, ending in found], prefixes=noise)
    return Targets(model, facts, layer, added - missing.missing(()), missing.endings, prefixes=noise)


EDITOR = Editor(
    "namet", namet, NametSettings, PRESETS,
    layers="from 3/32 to 1/8 of the depth",
    says="writes many facts at once as memit does, measuring what is missing behind noise",
    cites="Dai et al. 2025, arXiv 2505.11876", statistics=True,
)  # fmt: skip
