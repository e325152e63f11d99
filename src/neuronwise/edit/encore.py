"""ENCORE: MEMIT for edits one after another, its searches stopped early and its changes kept small ([ENCORE])."""

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
from neuronwise.edit.memory.spread import least_squares, search_targets, spread
from neuronwise.edit.memory.statistics import Statistics, require_statistics
from neuronwise.edit.memory.value import ValueSettings
from neuronwise.edit.presets import OURS, Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.errors import MethodError
from neuronwise.model.lock import alone
from neuronwise.model.model import Model


@dataclass(frozen=True)
class EncoreSettings(ValueSettings):
    """[ENCORE]'s hyper-parameters; ``layers``, ``mom2_update_weight`` and ``identity_weight`` as for ``memit``.

    ``update_norm_lambda`` is the weight of ‖ΔW‖². A search ends at the ``patience``-th pass in which the target is the
    likeliest behind every prefix (published as ``prob_cutoff`` = −``patience``).
    """

    v_weight_decay: float = 0.5
    clamp_norm_factor: float = 0.75
    context_template_length_params: tuple[tuple[int, int], ...] = ((10, 5),)
    mom2_update_weight: float = 15000.0
    identity_weight: float = 0.1
    update_norm_lambda: float = 10.0
    patience: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patience < 1 or self.mom2_update_weight <= 0:
            raise MethodError("patience must be 1 or more, mom2_update_weight above 0.")


PRESETS: dict[str, Preset[EncoreSettings]] = {
    "default": Preset(EncoreSettings(), f"{OURS}: as LLaMA's"),
    "small": Preset(EncoreSettings(), f"{OURS}: as LLaMA's"),
    "gpt2-xl": Preset(EncoreSettings(layers=(13, 14, 15, 16, 17), v_num_grad_steps=20, mom2_update_weight=20000.0,
        patience=4), "ENCORE hparams/ENCORE/gpt2-xl.json"),
    "llama-2": Preset(EncoreSettings(layers=(4, 5, 6, 7, 8)), "ENCORE hparams/ENCORE/llama2-7b.json"),
    "llama-3": Preset(EncoreSettings(layers=(4, 5, 6, 7, 8), update_norm_lambda=20.0, patience=2),
        "ENCORE hparams/ENCORE/llama3-8b.json"),
}  # fmt: skip


@alone
def encore(
    model: Model,
    facts: Fact | Sequence[Fact],
    settings: EncoreSettings | None = None,
    *,
    statistics: Statistics | None = None,
    previous: Sequence[Recorded] | None = None,
    **changes: object,
) -> Edit:
    """An edit that writes all ``facts`` beside those of former edits; the model itself is left as it is.

    As ``memit``, but each layer gains R Kᵀ (λC + update_norm_lambda·I + Kₚ Kₚᵀ + K Kᵀ)⁻¹, so that weights do not grow
    from edit to edit and the keys Kₚ of ``previous`` edits give what they gave. Those are by default the edits that the
    model carries; see ``alphaedit``. Without ``statistics`` the first two terms are one multiple of the identity and
    the record says so. Raises as ``memit`` does.
    """
    facts = text_requests(model, facts, "encore")
    settings = resolved(model, settings, PRESETS, changes)
    layers = critical_layers(model, settings.layers, DEPTH)
    covariance = require_statistics(statistics, model, layers)
    weight = settings.identity_weight if statistics is None else settings.mom2_update_weight
    prefixes = settings.prefixes(model)
    previous = Ledger.of(model).edits if previous is None else previous
    earlier = [keys_of(model, edit, layers, prefixes) for edit in previous]

    def adjust(layer: int, keys: Tensor) -> Tensor:
        every = torch.cat([keys, *(solved[layer] for solved in earlier)], dim=1)
        return least_squares(every, weight, statistics, layer, settings.update_norm_lambda)[:, : keys.shape[1]]

    targets = search_targets(model, facts, layers[-1], settings, patience=settings.patience)
    deltas, solved = spread(targets, layers, prefixes, float, adjust)
    edit = edited(
        "encore", model, settings, facts, deltas,
        layers=layers, **covariance, values=targets.endings, missing=targets.missing(deltas).norm(dim=1).tolist(),
        previous=sum(keys[layers[0]].shape[1] for keys in earlier), context_templates=list(prefixes),
    )  # fmt: skip
    KEYS[edit] = solved
    return edit


EDITOR = Editor(
    "encore", encore, EncoreSettings, PRESETS,
    layers="from 1/8 to 1/4 of the depth",
    says="writes facts one after another, keeping changes small and the keys of former edits as they are",
    cites="Gupta et al. 2025, arXiv 2502.01636", statistics=True,
)  # fmt: skip
