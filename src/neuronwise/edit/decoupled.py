"""Text-specific and image-specific neurons apart, so that a fact holds in each way it is asked (after [DECODE])."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronwise.answers.modalities import MODALITIES, asked
from neuronwise.answers.request import decided, listed
from neuronwise.data.facts import Fact
from neuronwise.edit.delta import Delta
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.fine.neurons import observe
from neuronwise.edit.fine.request import Batch, Request
from neuronwise.edit.presets import OURS, Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.edit.tune import tuned_to
from neuronwise.edit.verdict import Aim
from neuronwise.errors import MethodError
from neuronwise.locate import Scores, score_all
from neuronwise.model.lock import alone
from neuronwise.model.model import Model
from neuronwise.model.run import Target
from neuronwise.model.writers import Writer
from neuronwise.neurons import Neuron


@dataclass(frozen=True)
class DecoupledSettings:
    """``n`` neurons of each modality for each target token, none of them in the last ``freeze_last`` layers.

    At most ``steps`` steps of Adam with ``rate`` and ``weight_decay``; done when the mean loss is below ``enough``.
    """

    n: int = 20
    freeze_last: int = 3
    steps: int = 60
    rate: float = 5e-3
    weight_decay: float = 0.0
    enough: float = 0.1

    def __post_init__(self) -> None:
        if self.n < 1 or self.steps < 1 or self.rate <= 0:
            raise MethodError("n and steps must be 1 or more, rate above 0.")


PRESETS = {"default": Preset(DecoupledSettings(), OURS)}


@alone
def decoupled(
    model: Model, facts: Fact | Sequence[Fact], settings: DecoupledSettings | None = None, **changes: object
) -> Edit:
    """An edit by which facts hold by photo and text, by text alone, and by the photo alone; the model is left as it is.

    Each fact with a photo is asked in the three ways of ``asked``. Text-specific are the ``n`` neurons that contribute
    most to what the model now says to the text alone, without those among the ``n`` for the photo alone;
    image-specific the reverse. The text-specific ones learn from the text's request, the image-specific ones from the
    photo's, both from the joint one, together: the mean of the losses −log p(target). A fact without a photo has
    text-specific neurons alone. The paper is known to us by its abstract: all but its idea is our choice. Raises
    ``MethodError`` for settings that leave no neuron and ``NonFiniteError`` for such a loss.
    """
    facts = listed(facts)
    settings = resolved(model, settings, PRESETS, changes)
    ways = [(way, asked(fact, way) if fact.image else fact) for fact in facts
            for way in (MODALITIES if fact.image else ("text",))]  # fmt: skip
    ways = list(zip((way for way, _ in ways), decided(model, [fact for _, fact in ways]), strict=True))
    groups = _apart(model, ways, settings)
    tuned = {way: _columns(model, neurons) for way, neurons in groups.items()}
    every = [one for group in tuned.values() for one in group]
    moves = [every if way == "joint" else tuned[way] for way, _ in ways]
    steps, losses = tuned_to(model, [fact for _, fact in ways], every, settings, moves=moves)
    aims = (Aim.of(model, fact) for _, fact in ways)
    outcome = {f"{way}_neurons": [str(neuron) for neuron in neurons] for way, neurons in groups.items()}
    deltas = [one.delta for one in every]
    return edited(
        "decoupled", model, settings, decided(model, facts), deltas, aims, steps=steps, losses=losses, **outcome
    )


def _apart(model: Model, ways: Sequence[tuple[str, Fact]], settings: DecoupledSettings) -> dict[str, list[Neuron]]:
    """The neurons of "text" and of "image", in no group twice."""
    scores = {
        way: [one for name, fact in ways if name == way for one in _scores(model, fact, settings)]
        for way in ("text", "image")
    }
    loud = {way: {n for one in every for n in one.top(settings.n).neurons} for way, every in scores.items()}
    text = _own(scores["text"], loud["image"], settings.n)
    image = _own(scores["image"], loud["text"] | set(text), settings.n)
    return {"text": text, "image": image}


def _own(scores: Sequence[Scores], others: Collection[Neuron], count: int) -> list[Neuron]:
    """The first ``count`` neurons of each position that are none of the ``others``."""
    found: set[Neuron] = set()
    for one in scores:
        found |= set([n for n in one.top(count + len(others)).neurons if n not in others][:count])
    return sorted(found)


def _scores(model: Model, fact: Fact, settings: DecoupledSettings) -> list[Scores]:
    """What contributes to the model's present answer, at each position of the target."""
    request = Request.of(model, fact)
    observe(Batch.of(model, [request]))
    targets = [Target(token, position, "") for position, token in enumerate(request.said)]
    below = model.num_layers - settings.freeze_last
    found = [
        Scores({writer: values for writer, values in every.items() if writer.layer < below})
        for every in score_all(model, request.run, targets, "contribution")
    ]
    if not all(found):
        raise MethodError("These settings leave no layer with neurons to edit; lower freeze_last.")
    return found


def _columns(model: Model, neurons: Sequence[Neuron]) -> list[_Columns]:
    return [_Columns(writer, writer.columns(members)) for writer, members in model.by_writer(neurons).items()]


class _Columns:
    """Changes of some value vectors of one writer, float32, zero at the start."""

    def __init__(self, writer: Writer, units: Tensor) -> None:
        self.writer, self.units = writer, units
        device = writer.vectors.device
        self.left = torch.zeros(writer.hidden_size, len(units), device=device, requires_grad=True)
        self.parameters = [self.left]

    @property
    def delta(self) -> Delta:
        """The changes so far."""
        left = self.left.detach().cpu().contiguous()
        return Delta(self.writer.layer, self.writer.path, left, units=self.units, expert=self.writer.expert)

    def write(self, inputs: Tensor, output: Tensor) -> Tensor:
        """What the writer writes, with the changes added."""
        added = inputs[..., self.units.to(inputs.device)].to(self.left.device).float() @ self.left.T
        return output + added.to(output.device, output.dtype)

    def limit(self) -> None:
        """Nothing is bounded."""


EDITOR = Editor(
    "decoupled", decoupled, DecoupledSettings, PRESETS,
    layers="where neurons are found",
    says="moves text-specific and image-specific neurons apart, each by its own way of asking",
    cites="after Fu et al. 2026 (DECODE), arXiv 2606.17057",
)  # fmt: skip
