"""ROME: one fact written by a rank-one update of one layer's W_down ([ROME] §3.1), as corrected by [R-ROME]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronwise.data.facts import Fact
from neuronwise.edit.delta import Delta
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.memory.keys import critical_layers, fact_keys, on_prompts, writer_in
from neuronwise.edit.memory.passages import text_requests
from neuronwise.edit.memory.statistics import Statistics, require_statistics
from neuronwise.edit.memory.value import Ending, ValueSettings, search
from neuronwise.edit.presets import OURS, Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.errors import MethodError, NonFiniteError
from neuronwise.model.lock import alone
from neuronwise.model.model import Model

DEPTH = (1 / 6, 1 / 6)  # layer 5 of 32, which the published settings of LLaMA-like models name


@dataclass(frozen=True)
class RomeSettings(ValueSettings):
    """[ROME]'s hyper-parameters, and [R-ROME]'s. ``layers`` None: the one at a sixth of the depth (our choice).

    ``mom2_adjustment`` False leaves statistics out though they are given. ``exact_for`` names the key that is mapped
    to v* exactly: "mean", k* itself (as in [ROME]'s paper and [R-ROME]'s code), or "prompt", that of the bare prompt
    (as in [ROME]'s code: the editor ``rome_published``).
    """

    mom2_adjustment: bool = True
    exact_for: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exact_for not in ("prompt", "mean"):
            raise MethodError(f"exact_for={self.exact_for!r} is unknown; choose prompt or mean.")


PRESETS: dict[str, Preset[RomeSettings]] = {
    "default": Preset(RomeSettings(), f"{OURS}: as LLaMA's"),
    "small": Preset(RomeSettings(context_template_length_params=((10, 5),)),
        f"{OURS}: as LLaMA's, with five prefixes in place of twenty"),
    "gpt2-medium": Preset(RomeSettings(layers=(8,), v_num_grad_steps=20, v_weight_decay=0.5, clamp_norm_factor=3.0),
        "ROME hparams/ROME/gpt2-medium.json"),
    "gpt2-large": Preset(
        RomeSettings(layers=(12,), v_num_grad_steps=20, v_weight_decay=0.5), "ROME hparams/ROME/gpt2-large.json"
    ),
    "gpt2-xl": Preset(
        RomeSettings(layers=(17,), v_num_grad_steps=20, v_weight_decay=0.5), "ROME hparams/ROME/gpt2-xl.json"
    ),
    "gptj": Preset(
        RomeSettings(layers=(5,), v_num_grad_steps=20, v_weight_decay=0.5), "ROME hparams/ROME/EleutherAI_gpt-j-6B.json"
    ),
    "gpt_neox": Preset(RomeSettings(layers=(15,), v_num_grad_steps=20, v_weight_decay=0.5),
        "MEMIT hparams/ROME/EleutherAI_gpt-neox-20b.json"),
    "llama-2": Preset(RomeSettings(layers=(5,)), "EasyEdit hparams/ROME/llama-7b.yaml"),
    "llama-3": Preset(RomeSettings(layers=(5,)), "AlphaEdit hparams/ROME/Llama3-8B.json"),
    "llama-3.2-3b": Preset(RomeSettings(layers=(5,)), "EasyEdit hparams/ROME/llama3.2-3b.yaml"),
    "mistral": Preset(RomeSettings(layers=(5,)), "EasyEdit hparams/ROME/mistral-7b.yaml"),
    "qwen": Preset(
        RomeSettings(layers=(5,), v_num_grad_steps=20, v_weight_decay=0.5), "EasyEdit hparams/ROME/qwen-7b.yaml"
    ),
    "qwen2": Preset(RomeSettings(layers=(5,)), "EasyEdit hparams/ROME/qwen2-7b.yaml, qwen2.5-7b.yaml"),
    "qwen3_5": Preset(RomeSettings(layers=(5,)), "EasyEdit hparams/ROME/qwen3.5-9b.yaml"),
    "glm": Preset(RomeSettings(layers=(5,)), "EasyEdit hparams/ROME/chatglm4-9b.yaml"),
}  # fmt: skip


@alone
def rome(
    model: Model,
    facts: Fact | Sequence[Fact],
    settings: RomeSettings | None = None,
    *,
    statistics: Statistics | None = None,
    **changes: object,
) -> Edit:
    """An edit that writes ``facts`` one after another, each on top of the former; the model itself is left as it is.

    W_down gains (v* − W k) (C⁻¹k*)ᵀ / ((C⁻¹k*)ᵀ k) ([ROME] eq. 2), k* the mean key over the prefixes, and k = k* in
    both places, which is [R-ROME]'s correction (see ``exact_for``). Without ``statistics`` C is the identity and the
    record says so. Raises ``MethodError`` for layers without one dense writer, ``EditError`` for statistics of
    another model, ``NonFiniteError``.
    """
    facts = text_requests(model, facts, "rome")
    settings = resolved(model, settings, PRESETS, changes)
    deltas, outcome = rank_ones(model, facts, settings, statistics)
    return edited("rome", model, settings, facts, deltas, **outcome)


def rank_ones(
    model: Model, facts: Sequence[Fact], settings: RomeSettings, statistics: Statistics | None
) -> tuple[list[Delta], dict[str, object]]:
    """One delta for each layer, a rank for each fact, and what the record says of them; see ``rome``."""
    layers = critical_layers(model, settings.layers, DEPTH)
    if not settings.mom2_adjustment:
        statistics = None
    covariance = require_statistics(statistics, model, layers)
    deltas: list[Delta] = []
    endings: list[Ending] = []
    for fact in facts:
        for layer in layers:
            delta, ending = _rank_one(model, fact, layer, settings, statistics, deltas)
            deltas.append(delta)
            endings.append(ending)
    joined = [_joined([delta for delta in deltas if delta.layer == layer]) for layer in layers]
    templates = list(settings.prefixes(model))
    several = {"ranks_of": len(facts)} if len(facts) > 1 else {}  # rank n of each layer is fact n's
    outcome = {"layers": layers, **covariance, "values": endings, "context_templates": templates, **several}
    return joined, outcome


def _rank_one(
    model: Model,
    fact: Fact,
    layer: int,
    settings: RomeSettings,
    statistics: Statistics | None,
    deltas: Sequence[Delta],
) -> tuple[Delta, Ending]:
    prefixes = settings.prefixes(model)
    writer = writer_in(model, layer)
    mean = fact_keys(model, [fact], layer, prefixes, deltas)[0].double()
    (value,), ending = search(model, fact, layer, [writer.module], settings, deltas)
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
    return Delta(layer, writer.path, left, right=right), ending


def _written(model: Model, layer: int, key: Tensor, deltas: Sequence[Delta]) -> Tensor:
    """What W_down, with ``deltas`` and its bias, makes of a key."""
    writer = writer_in(model, layer)
    written = writer.vectors.double().cpu() @ key
    bias = writer.bias
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


EDITOR = Editor(
    "rome", rome, RomeSettings, PRESETS,
    layers="at 1/6 of the depth",
    says="writes one fact by a rank-one update of one layer's W_down, its key averaged over prefixes in both places",
    cites="Gupta et al. 2024, arXiv 2403.07175; Meng et al. 2022, arXiv 2202.05262", statistics=True,
)  # fmt: skip
