"""GRACE: a codebook beside one layer's W_down, whose values are written where an activation is close to a key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuronwise.answers.request import forced, requests
from neuronwise.data.facts import Fact
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.presets import OURS, Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.edit.side_memory import SideMemory, looked_up
from neuronwise.edit.tune import dense_layer, tuned_to
from neuronwise.errors import MethodError
from neuronwise.model.lock import alone
from neuronwise.model.model import Model
from neuronwise.model.passes import inputs_of, outputs_of, stop_after
from neuronwise.model.run import Run
from neuronwise.model.writers import Writer

CUT = 1e-5  # how much the older of two colliding keys has less than half of the way


@dataclass(frozen=True)
class GraceSettings:
    """``layer`` None: at three quarters of the depth. ``radius`` ε is that of a new key, in units of its activations.

    A new value starts at random in [0, 1) with ``seed`` (``start="cold"``), or as what the writer writes ("warm").
    At most ``steps`` steps of Adam with ``rate``; done when the loss is below ``enough`` (0: all steps, as published).
    ``expand``: a key for the same target that is just out of reach widens the radius ("coverage"), or also moves the
    key half of the way ("moving_average").
    """

    layer: int | None = None
    radius: float = 1.0
    start: str = "cold"
    steps: int = 50
    rate: float = 1.0
    enough: float = 1e-2
    expand: str = "coverage"
    seed: int = 0

    weight_decay = 0.0  # of Adam; not a setting

    def __post_init__(self) -> None:
        if self.start not in ("cold", "warm"):
            raise MethodError(f"start={self.start!r} is unknown; choose cold or warm.")
        if self.expand not in ("coverage", "moving_average"):
            raise MethodError(f"expand={self.expand!r} is unknown; choose coverage or moving_average.")
        if self.steps < 1 or not 0 < self.rate < 1e6 or not 0 < self.radius < 1e9:
            raise MethodError("steps must be 1 or more; rate and radius must be above 0 (and below a million).")


def _published(layer: int, steps: int, file: str, radius: float = 1.0, note: str = "") -> Preset[GraceSettings]:
    settings = GraceSettings(layer=layer, steps=steps, radius=radius, enough=0.0)
    return Preset(settings, f"EasyEdit hparams/GRACE/{file}.yaml{note}")


PRESETS: dict[str, Preset[GraceSettings]] = {
    "default": Preset(GraceSettings(), f"{OURS}: as LLaMA's, ended when learned"),
    "gpt2-xl": _published(35, 200, "gpt2-xl", note=", there on c_fc"),
    "gptj": _published(25, 200, "gpt-j-6b"),
    "llama-2": _published(27, 50, "llama-7b"),
    "llama-3.2-3b": _published(27, 50, "llama3.2-3b"),
    "qwen2": _published(18, 50, "qwen2.5-7b"),
    "qwen3_5": _published(18, 50, "qwen3.5-9b", radius=5.0),
}


@alone
def grace(model: Model, facts: Fact | Sequence[Fact], settings: GraceSettings | None = None, **changes: object) -> Edit:
    """A codebook beside one layer's W_down that says the new targets; no weight changes (Hartvigsen et al. 2023).

    A fact's key is what W_down reads at the prompt's last token; its value, which is written there in place of
    W_down · key, is learned by Adam on the target's tokens, one fact after another. A key within ε of another's radius
    collides with it (§2.2): for the same target no key is added and the radius grows, for another both radii end
    halfway. Published code looks at the prompt's last token alone, which it must be told; here every position is looked
    up, so that nothing need be told (ours). Two targets are the same if their tokens are (published: if the means of
    their ids are). Raises ``MethodError`` for a layer without a dense W_down, ``NonFiniteError`` for such a loss.
    """
    settings = resolved(model, settings, PRESETS, changes)
    facts = requests(model, facts)
    settings = replace(settings, layer=dense_layer(model, settings.layer, 3 / 4, "grace"))
    writer = model.blocks[settings.layer or 0].dense[0]
    book = _Codebook(writer, settings)
    steps, losses = [], []
    for fact in facts:
        run = forced(model, fact)
        book.admit(*_read(model, writer, run), tuple(run.output_ids))
        taken, loss = tuned_to(model, [fact], [book], settings)
        steps.append(taken)
        losses += loss
    outcome = {"steps": steps, "losses": losses, "radii": book.radii.tolist()}
    return edited("grace", model, settings, facts, (), None, (), [book.memory], **outcome)


def _read(model: Model, writer: Writer, run: Run) -> tuple[Tensor, Tensor]:
    """(f,) and (d,) float32: what the writer reads and writes at the token before the target."""
    module = writer.module
    with torch.no_grad(), inputs_of(module) as read, outputs_of(module) as written, stop_after(module):
        model.forward(run.forced_inputs())
    rows = (values[0].reshape(-1, values[0].shape[-1])[run.row(0)] for values in (read, written))
    key, value = (row.detach().float().clone() for row in rows)
    return key, value


class _Codebook:
    """The keys (n, f), values and radii (n,) so far, where the weights are; the value of the last fact is learned."""

    def __init__(self, writer: Writer, settings: GraceSettings) -> None:
        self.writer, self.settings = writer, settings
        device = writer.vectors.device
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.keys, self.radii = torch.zeros(0, writer.width, device=device), torch.zeros(0, device=device)
        self.values: list[Tensor] = []
        self.targets: list[tuple[int, ...]] = []
        self.learned = 0

    def admit(self, key: Tensor, written: Tensor, target: tuple[int, ...]) -> None:
        """Make room for a key (f,): its own entry, or the one for the same target that it collides with ([GRACE] §2.2).

        ``written`` (d,) is what the writer writes for it.
        """
        key = key.to(self.keys)
        apart = (self.keys - key).norm(dim=1)
        nearest = int(apart.argmin()) if len(apart) else -1
        collides = nearest >= 0 and bool(apart[nearest] <= self.settings.radius + self.radii[nearest])
        if collides and self.targets[nearest] == target:
            self._widen(nearest, key, apart[nearest])
            return
        radius = torch.full_like(key[0], self.settings.radius)
        if collides:
            radius = apart[nearest] / 2
            self.radii[nearest] = radius - CUT
        cold = torch.rand(written.shape, generator=self.generator)
        self.keys, self.radii = torch.cat([self.keys, key[None]]), torch.cat([self.radii, radius[None]])
        self.values.append((cold if self.settings.start == "cold" else written).to(self.keys))
        self.targets.append(target)
        self._learn(len(self.values) - 1)

    def _widen(self, number: int, key: Tensor, apart: Tensor) -> None:
        if apart > self.radii[number]:
            self.radii[number] = apart
            if self.settings.expand == "moving_average":
                self.keys[number] = (self.keys[number] + key) / 2
        self._learn(number)

    def _learn(self, number: int) -> None:
        self.values = [value.detach() for value in self.values]
        self.values[number].requires_grad_(True)
        self.learned = number

    @property
    def parameters(self) -> list[Tensor]:
        """The value (d,) that is learned."""
        return [self.values[self.learned]]

    def _tensors(self) -> dict[str, Tensor]:
        return {"keys": self.keys, "values": torch.stack(self.values), "radii": self.radii}

    def write(self, inputs: Tensor, output: Tensor) -> Tensor:
        """What the writer writes, with the values in place."""
        return looked_up([self._tensors()], inputs, output)

    def limit(self) -> None:
        """Nothing is bounded."""

    @property
    def memory(self) -> SideMemory:
        """The codebook as it is kept."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self._tensors().items()}
        return SideMemory(self.writer.layer, self.writer.path, "codebook", tensors)


EDITOR = Editor(
    "grace", grace, GraceSettings, PRESETS,
    layers="at 3/4 of the depth",
    says="keeps a codebook beside one layer's W_down, whose values are written where an activation is close to a key",
    cites="Hartvigsen et al. 2023, arXiv 2211.11031; EasyEdit",
    weights=False,
)  # fmt: skip
