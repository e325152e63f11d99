"""One step of one value vector towards the new target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neuronwise.answers.request import forced, listed
from neuronwise.data.facts import Fact
from neuronwise.edit.delta import Delta
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.presets import Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.locate import locate
from neuronwise.model import Model


@dataclass(frozen=True)
class NudgeSettings:
    """``step``: how much of the target's output embedding is added."""

    step: float = 1.0


PRESETS = {"default": Preset(NudgeSettings(), "our choice")}


def nudge(model: Model, facts: Fact | Sequence[Fact], settings: NudgeSettings | None = None, **changes: object) -> Edit:
    """Add the target's output embedding to the value vector of the neuron that contributes most to it."""
    settings = resolved(model, settings, PRESETS, changes)
    deltas, before = [], []
    for fact in listed(facts):
        run = forced(model, fact)
        token = run.output_ids[0]
        best = locate(model, run, target=token, position=0, top=1)[0]
        writer = next(writer for writer in model.writers if best.neuron in writer)
        size = settings.step if (best.activation or 0) >= 0 else -settings.step
        left = size * model.unembedding[token].float().cpu().unsqueeze(1)  # (d, 1): one column
        probabilities = model.forward(run.forced_inputs(), rows=[run.row(0)])[0, 0].softmax(-1)
        before.append(float(probabilities[token]))
        deltas.append(Delta(writer.layer, writer.path, left, writer.columns([best.neuron]), expert=writer.expert))
    return edited("nudge", model, settings, listed(facts), deltas, before=before)


EDITOR = Editor("nudge", nudge, NudgeSettings, PRESETS, layers="where the neuron is", says="adds one vector", cites="")
