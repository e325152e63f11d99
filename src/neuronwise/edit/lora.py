"""LoRA: low-rank changes of many layers' W_down, fine-tuned on the facts alone; a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from neuronwise.answers.request import requests
from neuronwise.data.facts import Fact
from neuronwise.edit.delta import Delta
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.presets import OURS, Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.edit.storage import first_alike
from neuronwise.edit.tune import tuned_to
from neuronwise.errors import MethodError
from neuronwise.model.lock import alone
from neuronwise.model.model import Model
from neuronwise.model.writers import Writer


@dataclass(frozen=True)
class LoraSettings:
    """``layers`` None: all that have a dense W_down. ΔW = (``alpha`` / ``rank``) · B A, A drawn with ``seed``, B = 0.

    ``dropout`` is the share of A's inputs that are left out in a step. At most ``steps`` steps of Adam with
    ``rate`` and ``weight_decay``; done when the loss is below ``enough`` (0: all steps, as published).
    """

    layers: tuple[int, ...] | None = None
    rank: int = 8
    alpha: float = 32.0
    dropout: float = 0.0
    steps: int = 70
    rate: float = 5e-3
    weight_decay: float = 0.0
    enough: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.steps < 1 or self.alpha <= 0:
            raise MethodError("rank and steps must be 1 or more, alpha above 0.")
        if not 0 < self.rate < 1e6 or not 0 <= self.dropout < 1:
            raise MethodError("rate must be above 0 and below a million, dropout from 0 and below 1.")


def _published(file: str, steps: int, where: str) -> Preset[LoraSettings]:
    settings = LoraSettings(steps=steps, dropout=0.1, enough=0.0)
    return Preset(settings, f"EasyEdit hparams/LoRA/{file}.yaml, there on {where}")


QV = "q_proj and v_proj"
PRESETS: dict[str, Preset[LoraSettings]] = {
    "default": Preset(LoraSettings(), f"{OURS}: as LLaMA's, without dropout, ended when learned"),
    "small": Preset(LoraSettings(rate=1e-3), f"{OURS}: a fifth of the published rate"),
    "gpt2-xl": _published("gpt2-xl", 30, "c_attn (AdaLoRA)"),
    "gptj": _published("gpt-j-6B", 50, "fc_in and fc_out (AdaLoRA)"),
    "llama-2": _published("llama-7b", 70, f"{QV} (AdaLoRA)"),
    "llama-3": _published("llama3-8b", 70, f"{QV} (AdaLoRA)"),
    "llama-3.2-3b": _published("llama3.2-3b", 70, f"{QV} (AdaLoRA)"),
    "qwen2": _published("qwen2.5-7b", 60, QV),
}


@alone
def lora(model: Model, facts: Fact | Sequence[Fact], settings: LoraSettings | None = None, **changes: object) -> Edit:
    """Adam on low-rank changes of W_down until the model says the new targets; the model itself is left as it is.

    W_down · x gains (alpha / rank) · B A x in every one of ``layers``, A (rank, f) uniform in ± 1/√f and B (d, rank)
    zero at the start, as in the peft library (Hu et al. 2021, §4.1). The loss is the usual cross-entropy on the
    targets' tokens; several facts are one batch (ours; EasyEdit takes a step for each in turn). Published editors put
    LoRA beside the projections of attention; this library edits W_down. Raises ``MethodError`` for a layer without a
    dense W_down and ``NonFiniteError`` for such a loss.
    """
    settings = resolved(model, settings, PRESETS, changes)
    facts = requests(model, facts)
    writers = _writers(model, settings.layers)
    settings = replace(settings, layers=tuple(dict.fromkeys(writer.layer for writer in writers)))
    generator = torch.Generator().manual_seed(settings.seed)
    tuned = [_LowRank(writer, settings, generator) for writer in writers]
    steps, losses = tuned_to(model, facts, tuned, settings)
    return edited("lora", model, settings, facts, [one.delta for one in tuned], steps=steps, losses=losses)


def _writers(model: Model, layers: Sequence[int] | None) -> list[Writer]:
    """The dense writers of some layers, or of all, each weight once; raises ``MethodError`` where there is none."""
    known = [block.layer for block in model.blocks if block.dense]
    if not known:
        raise MethodError(f"{model.name} has only routed experts; lora needs a layer with a dense W_down.")
    for layer in layers or ():
        if layer not in known:
            raise MethodError(f"Layer {layer} of {model.name} has no dense W_down to tune.")
    dense = [writer for layer in layers or known for writer in model.blocks[layer].dense]
    return list(dict.fromkeys(first_alike(model, writer) for writer in dense))


class _LowRank:
    """B A of one writer, float32, where the weights are."""

    def __init__(self, writer: Writer, settings: LoraSettings, generator: torch.Generator) -> None:
        self.writer, self.settings, self.generator = writer, settings, generator
        device, bound = writer.vectors.device, writer.width**-0.5
        drawn = torch.rand(settings.rank, writer.width, generator=generator)
        self.a = ((2 * drawn - 1) * bound).to(device).requires_grad_(True)
        self.b = torch.zeros(writer.hidden_size, settings.rank, device=device, requires_grad=True)
        self.parameters = [self.a, self.b]

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.settings.alpha / self.settings.rank

    @property
    def delta(self) -> Delta:
        """The change of W_down as two factors."""
        left = (self.scale * self.b).detach().cpu().contiguous()
        return Delta(self.writer.layer, self.writer.path, left, right=self.a.detach().cpu().contiguous())

    def write(self, inputs: Tensor, output: Tensor) -> Tensor:
        """What the writer writes, with the change of its weights added."""
        read = inputs.to(self.a.device).float()
        if self.settings.dropout:
            kept = torch.rand(read.shape, generator=self.generator).to(read.device) >= self.settings.dropout
            read = read * kept / (1 - self.settings.dropout)
        added = self.scale * nn.functional.linear(nn.functional.linear(read, self.a), self.b)
        return output + added.to(output.device, output.dtype)

    def limit(self) -> None:
        """Nothing is bounded."""


EDITOR = Editor(
    "lora", lora, LoraSettings, PRESETS,
    layers="all",
    says="fine-tunes low-rank changes of every layer's W_down on the facts alone",
    cites="Hu et al. 2021, arXiv 2106.09685; EasyEdit",
)  # fmt: skip
