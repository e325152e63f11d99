"""WISE: a side memory of one layer's W_down, which takes over where an activation moves it far enough."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from neuronwise.answers.request import forced, requests
from neuronwise.data.facts import Fact
from neuronwise.data.texts import openings
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.ledger import Ledger
from neuronwise.edit.memory.previous import facts_of
from neuronwise.edit.presets import OURS, Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.edit.side_memory import SideMemory
from neuronwise.edit.trial import Change, changed, lowest_layer, recomputed_from, require_finite
from neuronwise.edit.tune import dense_layer
from neuronwise.errors import MethodError
from neuronwise.model.lock import alone
from neuronwise.model.model import Model
from neuronwise.model.passes import inputs_of, stop_after
from neuronwise.model.prompt import Inputs
from neuronwise.model.run import Run
from neuronwise.model.writers import Writer

UNRELATED = tuple(text for place, text in enumerate(openings()) if place % 7)  # the others are the verdict's
SETTLED, LOW = 1e-4, 0.02  # a loss this low that moves no more than this is learned, as published


@dataclass(frozen=True)
class WiseSettings:
    """``layer`` None: at five sixths of the depth. Each memory may change a random ``share`` of W_down, by ``seed``.

    At most ``steps`` steps of gradient descent with ``rate`` for each fact, all weights within W ± ``norm_constraint``.
    ``alpha``, ``beta`` and ``gamma`` are the margins of what a memory adds, Δ, as a length: at most alpha for unrelated
    text, at least beta for the facts, gamma between. A memory is used from ``ratio`` times the least Δ of its facts.
    ``facts_each`` facts share a memory; ``merged`` of them become one by TIES, of each the ``density`` largest changes.
    ``replay``: facts of former memories are replayed while a fact is learned, and so is one of this memory.
    """

    layer: int | None = None
    share: float = 0.2
    steps: int = 70
    rate: float = 1.0
    norm_constraint: float = 1.0
    alpha: float = 5.0
    beta: float = 20.0
    gamma: float = 10.0
    ratio: float = 0.88
    facts_each: int = 500
    merged: int = 2
    density: float = 0.53
    replay: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.facts_each < 1 or self.merged < 1 or not 0 < self.rate < 1e6:
            raise MethodError("steps, facts_each and merged must be 1 or more; rate above 0 and below a million.")
        if not (0 < self.share <= 1 and 0 < self.density <= 1 and 0 < self.ratio <= 1):
            raise MethodError("share, density and ratio must be above 0 and at most 1.")
        if self.norm_constraint <= 0:
            raise MethodError("norm_constraint must be above 0.")


def _published(file: str, layer: int, **changes: float) -> Preset[WiseSettings]:
    settings = replace(WiseSettings(layer=layer), **changes)  # type: ignore[arg-type]
    return Preset(settings, f"EasyEdit hparams/WISE/{file}.yaml")


PRESETS: dict[str, Preset[WiseSettings]] = {
    "default": Preset(WiseSettings(), f"{OURS}: as LLaMA's"),
    "gptj": _published("gpt-j-6B", 21, alpha=15.0, beta=40.0, gamma=20.0),
    "llama-2": _published("llama-7b", 27),
    "llama-3": _published("llama3-8b", 29, rate=0.9, steps=30, alpha=2.0, ratio=0.5),
    "llama-3.2-3b": _published("llama3.2-3b", 27),
    "mistral": _published("mistral-7b", 27),
    "qwen2": _published("qwen2.5-7b", 23),
    "qwen3_5": _published("qwen3.5-9b", 23),
}


@alone
def wise(model: Model, facts: Fact | Sequence[Fact], settings: WiseSettings | None = None, **changes: object) -> Edit:
    """Side memories W' of one layer's W_down that say the new targets; no weight changes (Wang et al. 2024).

    Δ(x) = ‖(W' − W) x‖ of an activation x decides: where it exceeds a threshold, W' x is written in place of W x, of
    several memories that with the largest Δ (§2.3.1). One fact after another W' learns the target's tokens and the
    margins of ``settings`` (eq. 5), Δ for a neutral text against Δ where the target is predicted; only a random share
    of W' moves (§2.3.2), and memories are merged by TIES (eq. 8). With ``replay`` (appendix B.3; all published settings
    leave it out) facts of merged memories, and of the edits by ``wise`` that the model carries, may move W' by alpha at
    most, and a random one of this memory must by beta (published code: 5 and 20, LLaMA's alpha and beta). Ours: it is
    decided position by position, by the last token of the prompt and the target's, where published code decides once
    for a whole text by its mean; facts are learned as they stand, without generated prefixes and weight decay;
    unrelated texts are neutral openings. Raises ``MethodError`` for a layer without a dense W_down, ``NonFiniteError``
    for such a loss.
    """
    settings = resolved(model, settings, PRESETS, changes)
    facts = requests(model, facts)
    settings = replace(settings, layer=dense_layer(model, settings.layer, 5 / 6, "wise"))
    writer = model.blocks[settings.layer or 0].dense[0]
    generator = torch.Generator().manual_seed(settings.seed)
    each = settings.facts_each
    shards = [_Shard(model, writer, settings, generator) for _ in range(0, len(facts), each)]
    replay = _Replay(settings, _former(model, writer) if settings.replay else [])
    for number, fact in enumerate(facts):
        if settings.replay and number and number % (each * settings.merged) == 0:
            replay = replay.merged()
        shards[number // each].learn(forced(model, fact), UNRELATED[number % len(UNRELATED)], replay)
    memories = [
        _memory(writer, shards[first : first + settings.merged], settings)
        for first in range(0, len(shards), settings.merged)
    ]
    outcome = {
        "steps": [taken for shard in shards for taken in shard.steps],
        "losses": [loss for shard in shards for loss in shard.losses],
        "thresholds": [float(memory.tensors["threshold"]) for memory in memories],
    }
    return edited("wise", model, settings, facts, (), None, (), memories, **outcome)


def _memory(writer: Writer, shards: Sequence[_Shard], settings: WiseSettings) -> SideMemory:
    change = shards[0].change if len(shards) == 1 else ties([shard.change for shard in shards], settings.density)
    threshold = settings.ratio * min(least for shard in shards for least in shard.sizes)
    tensors = {"change": change.detach().cpu().contiguous(), "threshold": torch.tensor([threshold])}
    return SideMemory(writer.layer, writer.path, "routed", tensors)


def ties(changes: Sequence[Tensor], density: float) -> Tensor:
    """Changes as one by TIES (Yadav et al. 2023): of each its ``density`` largest numbers, then, number by number, the
    mean of those that have the sign of their sum."""
    kept = torch.stack([_largest(change, density) for change in changes])
    sign = torch.where(kept.sum(dim=0) >= 0, 1.0, -1.0)
    agree = kept.sign() == sign
    return (kept * agree).sum(dim=0) / agree.sum(dim=0).clamp(min=1)


def _largest(change: Tensor, density: float) -> Tensor:
    count = max(1, int(density * change.numel()))
    kept = torch.zeros(change.numel(), dtype=torch.bool, device=change.device)
    kept[change.abs().flatten().topk(count).indices] = True
    return change * kept.view_as(change)


class _Shard:
    """W' − W (d, f) of one side memory, float32, on its way; the least Δ of each fact when it had been learned."""

    def __init__(self, model: Model, writer: Writer, settings: WiseSettings, generator: torch.Generator) -> None:
        self.model, self.writer, self.settings = model, writer, settings
        weight = writer.vectors
        self.free = (torch.rand(weight.shape, generator=generator) < settings.share).to(weight.device)
        self.change = torch.zeros_like(weight, dtype=torch.float32).requires_grad_(True)
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.sizes: list[float] = []

    def learn(self, run: Run, unrelated: str, replay: _Replay) -> None:
        """Learn one fact, W' beginning where the last fact left it."""
        rows = _predicting(run)
        last, taken, now = 1e9, 0, 0.0
        elsewhere = _read(self.model, self.writer, self.model.prepare(prompt=unrelated, chat=False)[0].inputs)
        own = _read(self.model, self.writer, run.forced_inputs())[rows]
        replay.own.append(own)
        target = torch.tensor(run.output_ids)
        with (
            recomputed_from(self.model, lowest_layer(self.model, [self.writer]), run.forced_inputs()) as forward,
            changed([self.writer], self._acting(rows)),
        ):
            while taken < self.settings.steps:
                taken += 1
                logits = forward(rows)[0].float()
                said = nn.functional.cross_entropy(logits, target.to(logits.device))
                loss = said + (self._margins(own, elsewhere) + replay.loss(self._sizes)).to(said.device)
                require_finite(loss, "The loss of this edit is")
                now = float(loss.detach())
                if abs(now - last) <= SETTLED and now <= LOW:
                    break
                last = now
                (gradient,) = torch.autograd.grad(loss, self.change)
                self._move(gradient)
        self.steps.append(taken)
        self.losses.append(now)
        self.sizes.append(float(self._sizes(own).detach().min()))

    def _sizes(self, rows: Tensor) -> Tensor:
        """Δ of activations (rows, f)."""
        return (rows @ self.change.T).norm(dim=-1)

    def _margins(self, own: Tensor, elsewhere: Tensor) -> Tensor:
        """Eq. 5: what is missing of each of the three margins, the mean of what is."""
        own, other = self._sizes(own), self._sizes(elsewhere)
        margins = self.settings
        between = other[:, None] - own[None, :] + margins.gamma
        return sum((_violated(one) for one in (between, other - margins.alpha, margins.beta - own)), own.new_zeros(()))

    def _acting(self, rows: Sequence[int]) -> Change:
        places = torch.tensor(list(rows))

        def write(writer: Writer, inputs: Tensor, output: Tensor) -> Tensor:
            moved = torch.zeros_like(output, dtype=torch.float32)
            at = places.to(output.device)
            moved[..., at, :] = inputs[..., at, :].to(self.change) @ self.change.T
            return output + moved.to(output.dtype)

        return write

    @torch.no_grad()
    def _move(self, gradient: Tensor) -> None:
        """One step in the free share, every weight within its bounds."""
        most = self.settings.norm_constraint
        self.change.sub_(self.settings.rate * gradient * self.free).clamp_(-most, most)


class _Replay:
    """[WISE] appendix B.3: activations (tokens, f) of facts, ``former`` those of each memory that is merged already,
    ``own`` those of the facts since."""

    def __init__(self, settings: WiseSettings, former: Sequence[Sequence[Tensor]]) -> None:
        self.settings, self.former = settings, former
        self.own: list[Tensor] = []
        self.turns = [itertools.cycle(facts) for facts in former]
        self.random = random.Random(settings.seed)

    def merged(self) -> _Replay:
        """What is replayed once the memory of the facts so far is merged."""
        return _Replay(self.settings, [*self.former, self.own])

    def loss(self, sizes: Callable[[Tensor], Tensor]) -> Tensor | float:
        """What Δ of the next fact of each former memory has beyond alpha, and what one of the own lacks of beta."""
        if not self.turns:
            return 0.0
        beyond = torch.stack([_violated(sizes(next(turn)) - self.settings.alpha) for turn in self.turns])
        return beyond.mean() + _violated(self.settings.beta - sizes(self.random.choice(self.own)))


def _former(model: Model, writer: Writer) -> list[list[Tensor]]:
    """Of each edit that the model carries and that has a side memory beside ``writer``: what it reads at its facts."""
    at = (writer.layer, writer.path)
    memories = [edit for edit in Ledger.of(model).edits if any((m.layer, m.path) == at for m in edit.memories)]
    runs = [[forced(model, fact) for fact in facts_of(edit.record)] for edit in memories]
    return [[_read(model, writer, run.forced_inputs())[_predicting(run)] for run in own] for own in runs if own]


def _predicting(run: Run) -> list[int]:
    """The rows that predict the target's tokens."""
    return [run.row(k) for k in range(len(run.output_ids))]


def _violated(margin: Tensor) -> Tensor:
    above = margin[margin > 0]
    return above.mean() if len(above) else margin.new_zeros(())


def _read(model: Model, writer: Writer, inputs: Inputs) -> Tensor:
    """(tokens, f) float32: what the writer reads in a text."""
    with torch.no_grad(), inputs_of(writer.module) as read, stop_after(writer.module):
        model.forward(inputs)
    return read[0].reshape(-1, read[0].shape[-1]).float()


EDITOR = Editor(
    "wise", wise, WiseSettings, PRESETS,
    layers="at 5/6 of the depth",
    says="keeps a side memory of one layer's W_down, which takes over where an activation moves it far enough",
    cites="Wang et al. 2024, arXiv 2405.14768; EasyEdit",
    weights=False,
)  # fmt: skip
