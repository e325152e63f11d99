"""How what a layer writes reaches a logit: along the direct path alone, or through everything above it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neuronwise.errors import ModelError
from neuronwise.model.direct import DirectPath, logit_scale
from neuronwise.model.hooks import After, Args, Hooks, Kwargs, first_output, replace_output
from neuronwise.model.passes import frozen_parameters, outputs_of
from neuronwise.model.prompt import Inputs
from neuronwise.model.writers import Site

if TYPE_CHECKING:
    from neuronwise.model.blocks import Block
    from neuronwise.model.model import Model

Readout = tuple[int, Mapping[int, float]]  # (row, token id → weight): a weighted sum of that row's logits
ALL = -1  # in place of a token id: the mean of all logits


@dataclass
class WriterGradients:
    """For each readout, its value and its gradient with respect to what is written at each site (``Writer.site``).

    ``gradients[t][site]`` is float32: (d,) at the readout's own row along the direct path, (positions, d) otherwise.
    With a direct path also ``shares[t][site]``, what each component adds to the value, and ``constants[t]``, what
    norm and head biases add.
    """

    values: list[float] = field(default_factory=list)
    gradients: list[dict[Site, Tensor]] = field(default_factory=list)
    shares: list[dict[Site, float]] = field(default_factory=list)
    constants: list[float] = field(default_factory=list)


def written_gradients(
    model: Model, inputs: Inputs, readouts: Sequence[Readout], *, direct: bool, capped: bool = True
) -> WriterGradients:
    """Gradients of weighted sums of logits with respect to the layers' writes, all in one pass over ``inputs``.

    ``direct=True``: along the residual stream alone, with the final norm and all others linearized where they are,
    before any soft cap; ``direct=False``: of the model's real logits, through all later layers, or with
    ``capped=False`` of these before any soft cap. Rows count as in the sequence of ``inputs`` (from its end when
    negative).
    """
    with frozen_parameters(model.module), Hooks() as hooks, torch.enable_grad():
        if direct:
            return _along_the_direct_path(model, inputs, readouts, DirectPath(model.module, model.blocks, hooks))
        leaves = _leaves(model.blocks, hooks)
        rows = sorted({row for row, _ in readouts})
        with outputs_of(model.head) as seen:
            logits = model.forward(inputs, rows=rows)
        if not capped:
            logits = seen[-1] * logit_scale(logits, seen[-1])
        result = WriterGradients()
        for row, weights in readouts:
            value = weighted(logits[0, rows.index(row)], weights)
            grads = _gradients(value, list(leaves.values()))
            pairs = zip(leaves, grads, strict=True)
            result.values.append(float(value.detach()))
            result.gradients.append({site: _rows(grad).float().cpu() for site, grad in pairs if grad is not None})
        return result


def _along_the_direct_path(
    model: Model, inputs: Inputs, readouts: Sequence[Readout], path: DirectPath
) -> WriterGradients:
    result = WriterGradients()
    rows = sorted({row for row, _ in readouts})
    with outputs_of(model.head) as seen:
        logits = model.forward(inputs, rows=rows)
    if len(seen) != 1:
        raise ModelError(
            "The output head of this model is called more than once in a pass; its logits cannot be split."
        )
    scale = logit_scale(logits, seen[0])
    before_cap = seen[0] * scale
    head_bias = getattr(model.head, "bias", None)
    sites = list(path.leaves)
    for row, weights in readouts:
        value = weighted(before_cap[0, rows.index(row)], weights)
        grads = _gradients(value, [*path.leaves.values(), *path.constants])
        found = {site: grad for site, grad in zip(sites, grads, strict=False) if grad is not None}
        result.values.append(float(value.detach()))
        # Along the direct path a position sees itself alone, so one row of each gradient is all there is.
        result.gradients.append({site: _rows(grad)[row].float().cpu() for site, grad in found.items()})
        result.shares.append({site: _product(grad, path.outputs[site]) for site, grad in found.items()})
        biases = zip(path.constants, grads[len(sites) :], strict=True)
        total = sum(_product(grad, bias) for bias, grad in biases if grad is not None)
        if isinstance(head_bias, Tensor):
            total += float(weighted(head_bias.detach(), weights)) * scale
        result.constants.append(total)
    return result


def _leaves(blocks: Sequence[Block], hooks: Hooks) -> dict[Site, Tensor]:
    """Zeros that every pass adds to what is written at each site."""
    leaves: dict[Site, Tensor] = {}

    def add(site: Site, active: Callable[[], bool]) -> After:
        def after(module: nn.Module, args: Args, kwargs: Kwargs, output: object) -> object:
            if not active():
                return None
            tensor = first_output(output)
            leaves[site] = torch.zeros_like(tensor, requires_grad=True)
            return replace_output(output, tensor + leaves[site])

        return after

    for block in blocks:
        active = hooks.inside(block.module)
        for writer in block.dense:
            hooks.after(writer.module, add(writer.site, active))
        for experts in block.experts:
            hooks.after(experts.unit, add(experts.site, active))
    return leaves


def _gradients(value: Tensor, leaves: Sequence[Tensor]) -> list[Tensor | None]:
    """None for a leaf that the value does not depend on."""
    return [*torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)]


def weighted(logits: Tensor, weights: Mapping[int, float], mean: Tensor | None = None) -> Tensor:
    """The sum of logits (V,), or of rows of a matrix (V, d), by weights; ``mean`` over all where it is known."""
    one_by_one = {token: weight for token, weight in weights.items() if token != ALL}
    chosen = logits[torch.tensor(list(one_by_one), device=logits.device, dtype=torch.long)].float()
    total = torch.tensor(list(one_by_one.values()), device=logits.device) @ chosen
    if ALL not in weights:
        return total
    return total + weights[ALL] * (logits.mean(0, dtype=torch.float32) if mean is None else mean)


def _rows(values: Tensor) -> Tensor:
    return values.detach().reshape(-1, values.shape[-1])


def _product(left: Tensor, right: Tensor) -> float:
    return float((left.detach().float() * right.detach().float()).sum())
