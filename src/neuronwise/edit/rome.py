"""ROME: one fact written by a rank-one update of one layer's W_down ([ROME] §3.1)."""

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
from neuronwise.edit.memory.keys import critical_layers, fact_keys, on_prompts, writer_in
from neuronwise.edit.memory.passages import require_text
from neuronwise.edit.memory.statistics import Statistics, require_statistics
from neuronwise.edit.memory.value import ValueSettings, search
from neuronwise.edit.presets import resolved
from neuronwise.edit.record import made
from neuronwise.errors import MethodError, NonFiniteError
from neuronwise.model.blocks import writer_bias
from neuronwise.model.model import Model

DEPTH = (1 / 6, 1 / 6)  # layer 5 of 32, which the published settings of LLaMA-like models name


@dataclass(frozen=True)
class RomeSettings(ValueSettings):
    """[ROME]'s hyper-parameters. ``layers`` None: the one at a sixth of the depth (our choice).

    ``mom2_adjustment`` False leaves statistics out though they are given. ``exact_for`` names the key that is mapped
    to v* exactly: "prompt", that of the bare prompt (as in the published code), or "mean", k* itself (as in the paper).
    """

    mom2_adjustment: bool = True
    exact_for: str = "prompt"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exact_for not in ("prompt", "mean"):
            raise MethodError(f"exact_for={self.exact_for!r} is unknown; choose prompt or mean.")


# Where each was published stands in sources.py; layers that are not named go by depth.
PRESETS: dict[str, RomeSettings] = {
    "default": RomeSettings(),
    "small": RomeSettings(context_template_length_params=((10, 5),)),  # as many prefixes as memit's: enough, cheaper
    "gpt2-medium": RomeSettings(layers=(8,), v_num_grad_steps=20, v_weight_decay=0.5, clamp_norm_factor=3.0),
    "gpt2-large": RomeSettings(layers=(12,), v_num_grad_steps=20, v_weight_decay=0.5),
    "gpt2-xl": RomeSettings(layers=(17,), v_num_grad_steps=20, v_weight_decay=0.5),
    "gptj": RomeSettings(layers=(5,), v_num_grad_steps=20, v_weight_decay=0.5),
    "gpt_neox": RomeSettings(layers=(15,), v_num_grad_steps=20, v_weight_decay=0.5),
    "llama-2": RomeSettings(layers=(5,)),
    "llama-3": RomeSettings(layers=(5,)),
    "llama-3.2-3b": RomeSettings(layers=(5,)),
    "mistral": RomeSettings(layers=(5,)),
    "qwen": RomeSettings(layers=(5,), v_num_grad_steps=20, v_weight_decay=0.5),
    "qwen2": RomeSettings(layers=(5,)),
    "qwen3_5": RomeSettings(layers=(5,)),
    "glm": RomeSettings(layers=(5,)),
}


def rome(
    model: Model,
    facts: Fact | Sequence[Fact],
    settings: RomeSettings | None = None,
    *,
    statistics: Statistics | None = None,
    **changes: Any,
) -> Edit:
    """An edit that writes ``facts`` one after another, each on top of the former; the model itself is left as it is.

    W_down gains (v* − W k) (C⁻¹k*)ᵀ / ((C⁻¹k*)ᵀ k) ([ROME] eq. 2), k* the mean key over the prefixes. Without
    ``statistics`` C is the identity and the record says so. Raises ``MethodError`` for layers without one dense
    writer, ``EditError`` for statistics of another model, ``NonFiniteError``.
    """
    facts = listed(facts)
    require_text(model, facts, "rome")
    settings = resolved(model, settings, PRESETS, changes)
    layers = critical_layers(model, settings.layers, DEPTH)
    if not settings.mom2_adjustment:
        statistics = None
    covariance = require_statistics(statistics, model, layers)
    deltas: list[Delta] = []
    ends = []
    for fact in facts:
        for layer in layers:
            delta, end = _rank_one(model, fact, layer, settings, statistics, deltas)
            deltas.append(delta)
            ends.append(end)
    outcome = {"layers": layers, **covariance, "values": ends, "context_templates": list(settings.prefixes(model))}
    joined = tuple(_joined([delta for delta in deltas if delta.layer == layer]) for layer in layers)
    return Edit(joined, made("rome", model, settings, facts, **outcome), column_norms(model, joined))


def _rank_one(
    model: Model,
    fact: Fact,
    layer: int,
    settings: RomeSettings,
    statistics: Statistics | None,
    deltas: Sequence[Delta],
) -> tuple[Delta, dict[str, Any]]:
    prefixes = settings.prefixes(model)
    writer = writer_in(model, layer)
    mean = fact_keys(model, [fact], layer, prefixes, deltas)[0].double()
    (value,), end = search(model, fact, layer, [writer.module], settings, deltas)
    seen = on_prompts(model, [fact], layer, deltas)
    if settings.exact_for == "prompt":
        key, now = seen.keys[layer][0].double(), seen.written[layer][0].double()
    else:
        key, now = mean, _written(model, layer, mean, deltas)
    direction = mean if statistics is None else statistics.solve(layer, mean.unsqueeze(1))[:, 0]
    reached = direction @ key
    if float(reached.abs()) < 1e-12:
        raise NonFiniteError(f"The key of {fact.subject!r} is zero in layer {layer}; choose another layer.")
    left, right = (value.target.double() - now).float().unsqueeze(1), (direction / reached).float().unsqueeze(0)
    return Delta(layer, writer.path, left, right=right), end


def _written(model: Model, layer: int, key: Tensor, deltas: Sequence[Delta]) -> Tensor:
    """What W_down, with ``deltas`` and its bias, makes of a key."""
    written = model.blocks[layer].value_vectors.double().cpu() @ key
    bias = writer_bias(writer_in(model, layer).module)
    if bias is not None:
        written = written + bias.double().cpu()
    for delta in deltas:
        if delta.layer == layer and delta.right is not None:
            written = written + delta.left.double() @ (delta.right.double() @ key)
    return written


def _joined(deltas: Sequence[Delta]) -> Delta:
    first = deltas[0]
    left = torch.cat([delta.left for delta in deltas], dim=1)
    return Delta(first.layer, first.path, left, right=torch.cat([d.right for d in deltas if d.right is not None]))
