"""What is checked: a model, a short recorded generation, some of its neurons, and how exact its numbers can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from neuronwise.errors import NeuronwiseError
from neuronwise.model.model import Model
from neuronwise.model.prompt import Prompted
from neuronwise.model.run import Run, Target
from neuronwise.neurons import Neuron

TOKENS = 4  # that are generated
LAYERS = 8  # that neurons are taken from, evenly spread
# Relative differences that rounding alone may make; quantized weights are dequantized in more than one way.
TOLERANCES = {torch.float64: 1e-5, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 3e-2}
QUANTIZED = 5e-2
FORBIDDEN = -6e4  # lower logits are no numbers that weights made; the least of float16 is -65504


@dataclass(frozen=True)
class Subject:
    """A model with one short run of it.

    ``target`` is the last generated token (the most probable one where none was generated); ``neurons`` are those of
    the largest activations where it was predicted, of up to ``LAYERS`` layers, dense and routed.
    """

    model: Model
    run: Run
    target: Target
    neurons: tuple[Neuron, ...]
    dtype: torch.dtype
    tolerance: float
    seed: int

    @property
    def inputs(self) -> dict[str, Any]:
        """Inputs of one pass whose last row predicts the target."""
        return self.run.forced_inputs(self.target.position)

    @property
    def exact(self) -> bool:
        """Whether the numbers are of single precision or better, and the weights as they are."""
        return self.tolerance <= TOLERANCES[torch.float32]

    def logits(self) -> Tensor:
        """(V,) float32: those that predict the target, by one pass; 0 for tokens that the model forbids itself."""
        with torch.no_grad():
            return allowed(self.model.forward(self.inputs, rows=[-1])[0, -1].float().cpu())


def subject_of(model: Model, prompted: Prompted, picture: Image.Image | None = None, seed: int = 0) -> Subject:
    """Generate a few tokens and choose what is looked at; raises ``NeuronwiseError`` when the model cannot."""
    speaks = getattr(model.module, "generation_config", None) is not None
    run = model.run_prompted(prompted, picture, max_new_tokens=TOKENS if speaks else 0)
    if run.output_ids:
        position = len(run.output_ids) - 1
        token = run.output_ids[-1]
    else:
        position = 0
        with torch.no_grad():
            token = int(model.forward(run.forced_inputs(), rows=[-1])[0, -1].argmax())
    target = Target(token, position, str(token))
    dtype, tolerance = precision(model.module)
    neurons = _strongest(model, run, target)
    if not neurons:
        raise NeuronwiseError(f"No neuron of {model.name} was active where the first words were predicted.")
    return Subject(model, run, target, neurons, dtype, tolerance, seed)


def allowed(logits: Tensor) -> Tensor:
    """The same, 0 where a model writes the least number there is (Chameleon, for the codes of images)."""
    return torch.where(logits < FORBIDDEN, 0.0, logits)


def precision(module: nn.Module) -> tuple[torch.dtype, float]:
    """The lowest precision among the weights, and the tolerance that goes with it."""
    parameters = list(module.parameters())
    plain = [p.dtype for p in parameters if p.dtype in TOLERANCES]
    dtype = max(plain, key=lambda one: TOLERANCES[one], default=torch.float32)
    quantized = len(plain) < len(parameters) or any(type(p.data) is not Tensor for p in parameters)
    return dtype, max(TOLERANCES[dtype], QUANTIZED) if quantized else TOLERANCES[dtype]


def _strongest(model: Model, run: Run, target: Target) -> tuple[Neuron, ...]:
    acts = run.activations(target.position)
    layers = sorted({*(layer for layer, a in acts.dense.items() if a.shape[1]), *acts.routed})
    places = {round(index * (len(layers) - 1) / max(LAYERS - 1, 1)) for index in range(LAYERS)}
    found: list[Neuron] = []
    for layer in [layers[place] for place in sorted(places) if place < len(layers)]:
        if layer in acts.dense and acts.dense[layer].shape[1]:
            largest = acts.dense[layer][0].float().abs().topk(min(2, acts.dense[layer].shape[1]))
            found += [
                Neuron(layer, unit)
                for unit, size in zip(largest.indices.tolist(), largest.values.tolist(), strict=True)
                if size
            ]
        experts: Any = sorted(acts.routed.get(layer, [{}])[0].items(), key=lambda item: -abs(item[1].weight))
        found += [Neuron(layer, int(record.activation.abs().argmax()), expert) for expert, record in experts[:3]]
    return tuple(found)
