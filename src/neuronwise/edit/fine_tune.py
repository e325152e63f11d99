"""Fine-tuning of one layer's W_down on the facts alone: the plainest baseline, FT-L and FT-M."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuronwise.answers.request import requests
from neuronwise.data.facts import Fact
from neuronwise.edit.delta import Delta
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.presets import OURS, Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.edit.tune import dense_layer, tuned_to
from neuronwise.errors import MethodError
from neuronwise.model.lock import alone
from neuronwise.model.model import Model
from neuronwise.model.writers import Writer


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
            raise MethodError("steps must be 1 or more; rate must be above 0 and below a million.")
        if self.norm_constraint is not None and self.norm_constraint <= 0:
            raise MethodError("norm_constraint must be above 0, or None for none.")


PRESETS: dict[str, Preset[FineTuneSettings]] = {
    "default": Preset(FineTuneSettings(), f"{OURS}: the constraint published for Mistral"),
    "small": Preset(
        FineTuneSettings(norm_constraint=0.0005), f"{OURS}: the constraint of the smallest published family"
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
        FineTuneSettings(layer=27, norm_constraint=None), "EasyEdit hparams/FT/qwen2-7b.yaml, qwen2.5-7b.yaml"
    ),
}  # fmt: skip


@alone
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
    settings = resolved(model, settings, PRESETS, changes)
    facts = requests(model, facts)
    settings = replace(settings, layer=dense_layer(model, settings.layer, 2 / 3, "fine_tune"))
    tuned = [_Tuned(writer, settings) for writer in model.blocks[settings.layer or 0].dense]
    steps, losses = tuned_to(model, facts, tuned, settings, at_prompt=settings.mode == "L")
    deltas = [one.delta for one in tuned]
    return edited("fine_tune", model, settings, facts, deltas, steps=steps, losses=losses)


class _Tuned:
    """The weights W (d, f) of one writer, float32, on their way from W₀."""

    def __init__(self, writer: Writer, settings: FineTuneSettings) -> None:
        self.writer, self.settings = writer, settings
        self.before = writer.vectors.float()
        self.weight = self.before.clone().requires_grad_(True)
        self.parameters = [self.weight]

    @property
    def delta(self) -> Delta:
        """W − W₀ in the columns that have changed."""
        return Delta.of_difference(self.writer.layer, self.writer.path, self.weight.detach() - self.before)

    def write(self, inputs: Tensor, output: Tensor) -> Tensor:
        """What the writer writes, with (W − W₀) · input added."""
        added = inputs.to(self.weight.device).float() @ (self.weight - self.before).T
        return output + added.to(output.device, output.dtype)

    @torch.no_grad()
    def limit(self) -> None:
        """Keep every weight within W₀ ± ε."""
        most = self.settings.norm_constraint
        if most is not None:
            self.weight.copy_(torch.clamp(self.weight, min=self.before - most, max=self.before + most))


EDITOR = Editor(
    "fine_tune", fine_tune, FineTuneSettings, PRESETS,
    layers="at 2/3 of the depth",
    says="fine-tunes one layer's W_down on the facts alone",
    cites="Zhu et al. 2020, arXiv 2012.00363; Meng et al. 2022, arXiv 2202.05262",
)  # fmt: skip
