"""Fine-tuning of one layer's W_down on the facts alone: the plainest baseline, FT-L and FT-M."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from neuronwise.answers.request import forced, listed
from neuronwise.data.facts import Fact
from neuronwise.edit.above import Forward, recomputed_from
from neuronwise.edit.delta import Delta, read_weight
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.presets import OURS, Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.errors import MethodError, NonFiniteError
from neuronwise.model.hooks import Hooks, first_tensor
from neuronwise.model.model import Model
from neuronwise.model.run import Run
from neuronwise.model.stream import frozen_parameters


@dataclass(frozen=True)
class FineTuneSettings:
    """``mode`` "L" or "M" is what is minimized, see ``fine_tune``; ``layer`` None: at two thirds of the depth.

    ``norm_constraint`` ε keeps every weight within W ± ε (None: free). At most ``steps`` steps of Adam with ``rate``
    and ``weight_decay``; done when the loss is below ``enough``.
    """

    mode: str = "L"
    layer: int | None = None
    steps: int = 25
    rate: float = 5e-4
    norm_constraint: float | None = 5e-5
    weight_decay: float = 0.0
    enough: float = 1e-2

    def __post_init__(self) -> None:
        if self.mode not in ("L", "M"):
            raise MethodError(f"mode={self.mode!r} is unknown; choose L (the prompt's last position) or M.")
        if self.steps < 1 or not 0 < self.rate < 1e6:
            raise MethodError("steps is 1 or more; rate is above 0 and below a million.")
        if self.norm_constraint is not None and self.norm_constraint <= 0:
            raise MethodError("norm_constraint is above 0, or None for none.")


PRESETS: dict[str, Preset[FineTuneSettings]] = {
    "default": Preset(FineTuneSettings(), f"{OURS}: the constraint published for Mistral"),
    "small": Preset(
        FineTuneSettings(norm_constraint=0.0005),
        f"{OURS}: the constraint of the smallest published family",
    ),
    "gpt2-medium": Preset(FineTuneSettings(layer=0, norm_constraint=0.002), "ROME hparams/FT/gpt2-medium_constr.json"),
    "gpt2-large": Preset(FineTuneSettings(layer=0, norm_constraint=0.001), "ROME hparams/FT/gpt2-large_constr.json"),
    "gpt2-xl": Preset(FineTuneSettings(layer=0, norm_constraint=0.0005), "ROME hparams/FT/gpt2-xl_constr.json"),
    "gptj": Preset(FineTuneSettings(layer=21, norm_constraint=None), "EasyEdit hparams/FT/gpt-j-6B.yaml"),
    "llama-2": Preset(FineTuneSettings(layer=21, norm_constraint=None), "EasyEdit hparams/FT/llama-7b.yaml"),
    "llama-3": Preset(FineTuneSettings(layer=21, norm_constraint=None), "AlphaEdit hparams/FT/Llama3-8B.json"),
    "llama-3.2-3b": Preset(FineTuneSettings(layer=21, norm_constraint=None), "EasyEdit hparams/FT/llama3.2-3b.yaml"),
    "mistral": Preset(FineTuneSettings(layer=21), "EasyEdit hparams/FT/mistral-7b.yaml"),
    "qwen": Preset(FineTuneSettings(layer=31), "EasyEdit hparams/FT/qwen-7b.yaml"),
    "qwen2": Preset(
        FineTuneSettings(layer=27, norm_constraint=None),
        "EasyEdit hparams/FT/qwen2-7b.yaml, qwen2.5-7b.yaml",
    ),
}


def fine_tune(
    model: Model, facts: Fact | Sequence[Fact], settings: FineTuneSettings | None = None, **changes: object
) -> Edit:
    """Adam on one layer's W_down until the model says the new targets; the model itself is left as it is.

    FT-L ([ROME] §3.1, "FT+L"; in EasyEdit ``prompt_last``): the loss is −mean_j log p(target_j | prompt), every
    target token read at the prompt's last position, as published; after each step W is clamped to W₀ ± ε.
    FT-M (EasyEdit's ``target_new``): −mean_j log p(target_j | prompt, target_<j), the usual cross-entropy on the
    target tokens alone. Several facts are one batch: the mean of their losses in every step (our choice; published is
    one step for each fact in turn). The steps are taken in float32 on the difference to the model's weights, which are
    never touched. Raises ``MethodError`` for a layer without a dense W_down and ``NonFiniteError`` for such a loss.
    """
    requests = listed(facts)
    settings = resolved(model, settings, PRESETS, changes)
    settings = replace(settings, layer=_layer(model, settings.layer))
    runs = [forced(model, fact) for fact in requests]
    differences, outcome = _optimize(model, runs, settings)
    assert settings.layer is not None
    deltas = [Delta.of_difference(settings.layer, path, change) for path, change in differences.items()]
    return edited("fine_tune", model, settings, requests, deltas, **outcome)


def _layer(model: Model, layer: int | None) -> int:
    dense = [block.layer for block in model.blocks if block.dense]
    if layer is not None:
        if layer not in dense:
            known = f"{dense[0]} to {dense[-1]}" if dense else "none"
            raise MethodError(f"Layer {layer} of {model.name} has no dense W_down to tune; layers that have: {known}.")
        return layer
    if not dense:
        raise MethodError(f"{model.name} has only routed experts; fine_tune needs a layer with a dense W_down.")
    depth = round(2 / 3 * (model.num_layers - 1))
    return min(dense, key=lambda number: abs(number - depth))


def _optimize(model: Model, runs: list[Run], settings: FineTuneSettings) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """W − W₀ of each writer of the layer, and the steps taken and losses reached."""
    assert settings.layer is not None
    block = model.blocks[settings.layer]
    before = {writer.path: read_weight(model, (block.layer, writer.path, None)).float() for writer in block.dense}
    weights = {path: weight.clone().requires_grad_(True) for path, weight in before.items()}
    optimizer = torch.optim.Adam(list(weights.values()), lr=settings.rate, weight_decay=settings.weight_decay)
    tuned = {id(writer.module) for writer in block.dense}
    # A block that serves several layers is tuned from the first of them on.
    lowest = next(b.layer for b in model.blocks if any(id(writer.module) in tuned for writer in b.dense))
    losses: list[float] = []
    step = 0
    with _passes(model, lowest, runs) as forwards, Hooks() as hooks:
        for writer in block.dense:
            hooks.after(writer.module, _adds(weights[writer.path], before[writer.path]))
        while step < settings.steps:
            step += 1
            optimizer.zero_grad()
            losses = []
            for run, forward in zip(runs, forwards, strict=True):
                loss = _loss(run, forward, settings.mode)
                if not torch.isfinite(loss):
                    raise NonFiniteError(
                        "The loss of this edit is not finite; load the model with dtype=torch.float32."
                    )
                losses.append(float(loss.detach()))
                (loss / len(runs)).backward()
            if sum(losses) / len(losses) < settings.enough:
                break
            optimizer.step()
            if settings.norm_constraint is not None:
                _clamp(weights, before, settings.norm_constraint)
    differences = {path: weight.detach() - before[path] for path, weight in weights.items()}
    return differences, {"steps": step, "losses": losses}


@contextlib.contextmanager
def _passes(model: Model, lowest: int, runs: list[Run]) -> Iterator[list[Forward]]:
    """A forward pass for each run; for one run alone the layers below are not computed again."""
    if len(runs) == 1:
        with recomputed_from(model, lowest, runs[0].forced_inputs()) as forward:
            yield [forward]
    else:
        with frozen_parameters(model.module):
            yield [functools.partial(model.forward, run.forced_inputs()) for run in runs]


def _loss(run: Run, forward: Forward, mode: str) -> Tensor:
    count = len(run.output_ids)
    rows = [run.row(0 if mode == "L" else k) for k in range(count)]
    logits = forward([run.row(0)])[0].expand(count, -1) if mode == "L" else forward(rows)[0]
    target = torch.tensor(run.output_ids, device=logits.device)
    return nn.functional.cross_entropy(logits.float(), target)


def _adds(weight: Tensor, before: Tensor) -> Any:
    """Let the writer add (W − W₀) · input to its output."""

    def after(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor:
        inputs = first_tensor(args, kwargs).to(weight.device)
        added = inputs.float() @ (weight - before).T
        return output + added.to(output.device, output.dtype)

    return after


@torch.no_grad()
def _clamp(weights: dict[str, Tensor], before: dict[str, Tensor], most: float) -> None:
    for path, weight in weights.items():
        weight.copy_(torch.clamp(weight, min=before[path] - most, max=before[path] + most))


EDITOR = Editor(
    "fine_tune", fine_tune, FineTuneSettings, PRESETS,
    layers="at 2/3 of the depth",
    says="fine-tunes one layer's W_down on the facts alone",
    cites="Zhu et al. 2020, arXiv 2012.00363; Meng et al. 2022, arXiv 2202.05262",
)  # fmt: skip
