"""Checks of scores: exact shares of the logit, the plain contribution, gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from neuronwise.check.result import Deviation, Measured, NotApplicable, within
from neuronwise.check.subject import FORBIDDEN, Subject
from neuronwise.locate import score_all
from neuronwise.locate.scores import Scores
from neuronwise.locate.shares import component_scale, direct_shares
from neuronwise.model.blocks import Block, expert_weight, writer_bias
from neuronwise.model.experts import expert_bias, unit_bias
from neuronwise.model.hooks import Hooks, first_tensor, replace_first
from neuronwise.model.interfere import change_output
from neuronwise.model.record import Activations, routed_unit
from neuronwise.model.stream import unit_path

STEPS = (1.0, 0.1, 0.01)  # a step may cross a kink, or send a token to other experts: then a smaller one is tried
CHANGED = 16  # neurons of one layer whose activations are moved together
SLOPES = {True: 0.02, False: 0.2}  # relative difference that a slope may have, in single precision and below it


def shares(subject: Subject) -> Measured:
    """With ``normalize=True`` all neurons' scores, attention, embeddings and biases add up to the logit."""
    model, run, target = subject.model, subject.run, subject.target
    scores = score_all(model, run, [target], "contribution", normalize=True)[0]
    written = direct_shares(model, run, [(target.position, {target.token_id: 1.0})])
    gradients, parts = dict(written.gradients[0]), dict(written.shares[0])
    acts = run.activations(target.position)
    total = written.constants[0] + sum(float(values.double().sum()) for values in scores.values())
    for block in model.blocks:
        for writer in block.dense:
            gradient = gradients.pop((block.layer, writer.path), None)
            bias = writer_bias(writer.module)
            if gradient is not None and bias is not None:
                total += float(gradient @ bias.float().cpu())
        for number in range(len(block.routed)):
            total += _expert_biases(block, number, acts, gradients.pop((block.layer, unit_path(block, number))))
    total += sum(parts[key] for key in gradients)
    real = _uncapped(subject)
    scale = component_scale(written, 0)
    count = sum(len(values) for values in scores.values())
    what = f"{count} neurons and {len(gradients)} other parts add up to {total:.4f}, the logit is {real:.4f}"
    return within("share of all sizes", abs(total - real) / scale, subject.tolerance, what, total=total, logit=real)


def _expert_biases(block: Block, number: int, acts: Activations, gradient: Tensor) -> float:
    """What the biases of a layer's experts, and one of the module around them, add to the logit."""
    routed = block.routed[number]
    first = block.first_expert(routed)
    own = unit_bias(routed_unit(block, number), block.hidden_size)
    total = 0.0 if own is None else float(gradient @ own.float().cpu())
    for expert, record in acts.routed[block.layer][0].items():
        bias = expert_bias(routed, expert - first) if first <= expert < first + routed.experts else None
        if bias is not None:
            total += record.weight * float(gradient @ bias.float().cpu())
    return total


def _uncapped(subject: Subject) -> float:
    """The target's logit, before any soft cap, with the scale of the architecture applied."""
    model, token = subject.model, subject.target.token_id
    seen: list[Tensor] = []
    with Hooks() as hooks, torch.no_grad():
        hooks.after(model.head, lambda module, args, kwargs, output: seen.append(output))
        logits = model.forward(subject.inputs, rows=[-1])[0, -1].double()
    head = seen[0].reshape(-1, seen[0].shape[-1])[-1].double()
    kept = logits > FORBIDDEN
    one, other = logits[kept], head[kept]
    scale = float((one @ other) / (other @ other).clamp_min(1e-30))
    proportional = bool((one - scale * other).norm() <= 1e-2 * one.norm())
    return float(logits[token] if proportional else head[token])


def contribution(subject: Subject) -> Measured:
    """The score is a · ⟨U_t, v⟩, multiplied out number by number, with the router's weight for an expert's neuron."""
    model, run, target = subject.model, subject.run, subject.target
    scores = score_all(model, run, [target], "contribution")[0]
    acts = run.activations(target.position)
    read = model.unembedding[target.token_id].detach().double().cpu()
    worst = 0.0
    for neuron in subject.neurons:
        if neuron.expert is None:
            fired = float(acts.dense[neuron.layer][0, neuron.unit])
        else:
            record = acts.routed[neuron.layer][0][neuron.expert]
            fired = record.weight * float(record.activation[neuron.unit])
        vector = model.blocks[neuron.layer].value_vector(neuron).detach().double().cpu()
        wanted = fired * float((read * vector).sum())
        size = abs(fired) * float((read * vector).abs().sum()) + 1e-12
        worst = max(worst, abs(scores.of(neuron) - wanted) / size)
    return within("difference", worst, 1e-4, f"{len(subject.neurons)} neurons")


def gradient(subject: Subject) -> Measured:
    """The gradient of the logit tells how it changes when activations are moved a little, by hand."""
    model, run, target = subject.model, subject.run, subject.target
    scores = score_all(model, run, [target], "gradient_activation", positions="predicting")[0]
    layers = sorted({writer.layer for writer in scores})
    worst, lines = 0.0, []
    for layer in sorted({layers[len(layers) // 3], layers[2 * len(layers) // 3]}):
        share, slope, expected = 0.0, 0.0, 0.0
        for size in STEPS[: None if subject.exact else 1]:
            slope, expected, noise = _slope(subject, scores, layer, size)
            if not subject.exact and noise > 0.5 * expected:
                raise NotApplicable(f"finite differences drown in the rounding of {subject.dtype} (layer {layer})")
            off = max(0.0, abs(slope - expected) - (0 if subject.exact else noise))
            share = off / max(expected, 1e-12)
            if share <= SLOPES[subject.exact]:
                break
        lines.append(f"layer {layer}: {slope:.4g} for {expected:.4g}")
        worst = max(worst, share)
    return within("difference", worst, SLOPES[subject.exact], "; ".join(lines))


def _slope(subject: Subject, scores: Scores, layer: int, size: float) -> tuple[float, float, float]:
    """∂ logit / ∂ s when the layer's neurons of the largest scores all move by s in the direction that raises it.

    By central differences, extrapolated; with what the scores say it is, and how far two steps differ, or how
    coarse the logits' own numbers are.
    """
    experts = dict.fromkeys(writer.expert for writer in scores if writer.layer == layer)
    parts = {expert: scores.layer(layer, expert) for expert in experts}
    flat = torch.cat(list(parts.values()))
    chosen = flat.abs().topk(min(CHANGED, len(flat))).indices
    signs, start = {}, 0
    for expert, values in parts.items():
        own = chosen[(chosen >= start) & (chosen < start + len(values))] - start
        if len(own):
            signs[expert] = own, values[own].sign()
        start += len(values)
    expected = float(flat[chosen].abs().sum())
    spread = float(subject.logits().std())
    step = (0.02 if subject.exact else 0.5) * spread / max(expected, 1e-12)
    step = size * min(max(step, 1e-3 if subject.exact else 0.05), 0.1 if subject.exact else 0.5)

    def central(step: float) -> float:
        up, down = (_moved(subject, layer, signs, sign * step) for sign in (1, -1))
        return (up - down) / (2 * step)

    coarse, fine = central(step), central(step / 2)
    resolution = torch.finfo(subject.dtype).eps * float(subject.logits().abs().max()) / step
    return (4 * fine - coarse) / 3, expected, max(abs(fine - coarse), resolution)


def _moved(subject: Subject, layer: int, signs: dict[int | None, tuple[Tensor, Tensor]], step: float) -> float:
    """The target's logit when the named activations of a layer are a · (1 + step · sign) at the predicting row."""
    model = subject.model
    block = model.blocks[layer]
    acts = subject.run.activations(subject.target.position)
    with Hooks() as hooks, torch.no_grad():
        active = hooks.inside(block.module)
        if None in signs:
            units, sign = signs[None]
            for writer, start in block.dense_from():
                here = (units >= start) & (units < start + writer.width)
                hooks.before(writer.module, _scaler(active, units[here] - start, 1 + step * sign[here]))
        for number, routed in enumerate(block.routed):
            first = block.first_expert(routed)
            added = torch.zeros(model.hidden_size)
            for expert, (units, sign) in ((e, pair) for e, pair in signs.items() if e is not None):
                if first <= expert < first + routed.experts:
                    record = acts.routed[layer][0][expert]
                    moved = record.weight * step * sign * record.activation[units].float()
                    vectors = expert_weight(routed, expert - first)
                    added += vectors[:, units.to(vectors.device)].float().cpu() @ moved

            def add(out: Tensor, added: Tensor = added) -> Tensor:
                rows = out.clone().reshape(-1, out.shape[-1])
                rows[-1] += added.to(rows.device, rows.dtype)
                return rows.reshape(out.shape)

            change_output(hooks, routed_unit(block, number), add, block)
        logits = model.forward(subject.inputs, rows=[-1])
    value = float(logits[0, -1, subject.target.token_id])
    if not math.isfinite(value):
        raise Deviation(f"the logit is not finite once activations of layer {layer} are moved by {step:.3g}")
    return value


def _scaler(active: Callable[[], bool], units: Tensor, factors: Tensor) -> Any:
    def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
        if not active():
            return None
        inputs = first_tensor(args, kwargs)
        moved = inputs.clone().reshape(-1, inputs.shape[-1])
        moved[-1, units.to(moved.device)] *= factors.to(moved.device, moved.dtype)
        return replace_first(args, kwargs, moved.reshape(inputs.shape))

    return before
