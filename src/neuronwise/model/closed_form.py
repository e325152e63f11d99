"""The direct path in closed form, without a pass: where all that the layers write meets the final norm alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neuronwise.errors import NeuronwiseError
from neuronwise.model.batches import text_inputs
from neuronwise.model.direct import logit_scale
from neuronwise.model.hooks import Hooks, first_output, hooked
from neuronwise.model.norms import FrozenNorm, freeze
from neuronwise.model.passes import inputs_of
from neuronwise.model.state import state_of
from neuronwise.model.stream import ALL, WriterGradients, weighted, written_gradients
from neuronwise.model.weights import dtype_of
from neuronwise.model.writers import Site

if TYPE_CHECKING:
    from neuronwise.model.model import Model

TEXT = "The capital of the old kingdom"  # at two rows of which the form is compared with a pass
LIKELIEST = 20  # tokens whose order must be the model's own


@dataclass(frozen=True)
class ClosedForm:
    """logits = ``scale`` · head(norm(stream)), up to a soft cap, where every write is in the stream by its factor.

    Along the direct path the gradient of Σ w_t · logit_t by what is written at a site is then factor · scale · Jᵀ Σ
    w_t · U_t, J the norm's linear part at that row ([MMN] §3.3 has U_t alone).
    """

    norm: nn.Module
    mean: Tensor  # (d,) of U's rows
    scale: float = 1.0
    factors: Mapping[Site, float] = field(default_factory=dict)

    def frozen(self, stream: Tensor) -> FrozenNorm:
        """The norm as the linear map that it is for ``stream`` (d,); raises ``ValueError`` where it is none."""
        with torch.no_grad():
            found = freeze(self.norm, stream, self.norm(stream))
        if found is None:
            raise ValueError("The final norm is no linear map of its input.")
        return found

    def logits(self, model: Model, stream: Tensor) -> Tensor:
        """(V,) float32 logits before any soft cap."""
        with torch.no_grad():
            return self.scale * model.head(self.norm(self._placed(stream))[None])[0].float()

    def gradients(self, model: Model, readouts: Sequence[tuple[Tensor, Mapping[int, float]]]) -> WriterGradients:
        """Values and gradients of weighted sums of logits at streams (d,)."""
        result, unembedding, bias = WriterGradients(), model.unembedding, getattr(model.head, "bias", None)
        for stream, weights in readouts:
            placed = self._placed(stream)
            frozen = self.frozen(placed)
            direction = self.scale * weighted(unembedding, weights, self.mean).to(placed.device)
            value = float(frozen(placed.float()) @ direction)
            if isinstance(bias, Tensor):
                value += self.scale * float(weighted(bias.detach(), weights))
            pulled = frozen.pulled(direction).cpu()
            result.values.append(value)
            result.gradients.append({site: factor * pulled for site, factor in self.factors.items()})
        return result

    def _placed(self, stream: Tensor) -> Tensor:
        weight = next(self.norm.parameters(), None)
        return stream if weight is None else stream.to(weight.device)


def closed_form(model: Model) -> ClosedForm | None:
    """A model's closed form, None where it has none; found by trying, not from a list of architectures.

    None within an intervention, or where somebody has set hooks: what they change is seen by a pass alone.
    """
    state = state_of(model)
    if state.interventions or state.hooks or hooked(model.module):
        return None
    return model.latest("closed form", state, lambda: _tried(model))


def _tried(model: Model) -> ClosedForm | None:
    """The form if it gives what one pass over a short text gives, at two rows and for two readouts."""
    norm = model.final_norm
    if norm is None:
        return None
    third = model.vocabulary_size // 3
    readouts = [(-1, {third: 1.0, ALL: -1.0}), (-2, {2 * third: 1.0, third + 1: -0.5})]
    logits: list[Tensor] = []
    try:
        inputs = model.extend(text_inputs(model, TEXT), [])
        with Hooks() as hooks, inputs_of(norm) as given:
            hooks.after(model.reader(inputs), lambda module, args, kwargs, output: logits.append(_logits(output)))
            written = written_gradients(model, inputs, readouts, direct=True)
        if len(given) != 1:
            return None
        streams = [given[0].detach().reshape(-1, given[0].shape[-1])[row] for row, _ in readouts]
        pairs = [(stream, weights) for stream, (_, weights) in zip(streams, readouts, strict=True)]
        plain = ClosedForm(norm, model.unembedding.mean(0, dtype=torch.float32))
        form = _fitted(model, plain, pairs[0], written, logits[0])
        found = form.gradients(model, pairs)
    except (NeuronwiseError, RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError):
        return None
    return form if _same(found, written, dtype_of(model.module) == torch.float32) else None


def _fitted(
    model: Model,
    plain: ClosedForm,
    readout: tuple[Tensor, Mapping[int, float]],
    written: WriterGradients,
    logits: Tensor,
) -> ClosedForm:
    """The form whose scale and factors are those of the first readout; raises ``ValueError`` for other logits."""
    ours = plain.logits(model, readout[0])
    theirs = logits.detach().reshape(-1, logits.shape[-1])[-1].to(ours.device)
    order = [one.topk(min(LIKELIEST, len(one))).indices for one in (ours, theirs)]
    if not torch.equal(*order) or bool((theirs <= torch.finfo(theirs.dtype).min).any()):
        raise ValueError("Behind the head there is more than a scale or a soft cap.")
    scaled = replace(plain, scale=logit_scale(theirs, ours), factors={(-1, ""): 1.0})
    (along,) = scaled.gradients(model, [readout]).gradients[0].values()
    factors = {site: float(own @ along / (along @ along)) for site, own in written.gradients[0].items()}
    if scaled.scale <= 0 or any(factor < 0 for factor in factors.values()):
        raise ValueError("What is written is turned around on its way.")
    if not {writer.site for writer in model.writers} <= set(factors):
        raise ValueError("A text does not reach all layers.")
    return replace(scaled, factors=factors)


def _same(found: WriterGradients, written: WriterGradients, exact: bool) -> bool:
    close = 1e-4 if exact else 3e-2
    for index, own in enumerate(written.gradients):
        theirs = found.gradients[index]
        total = written.constants[index] + sum(written.shares[index].values())
        sizes = sum(map(abs, written.shares[index].values())) + abs(written.values[index])
        if max(abs(found.values[index] - written.values[index]), abs(total - written.values[index])) > close * sizes:
            return False
        if set(own) != set(theirs) or any((theirs[s] - g).norm() > close * g.norm() for s, g in own.items()):
            return False
    return True


def _logits(output: object) -> Tensor:
    logits = getattr(output, "logits", None)
    return logits if isinstance(logits, Tensor) else first_output(output)
