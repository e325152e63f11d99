"""Checks of scores and of what neurons are read as: exact shares, the plain contribution, gradients, tokens."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from neuronwise.check.result import Deviation, Measured, NotApplicable, within
from neuronwise.check.subject import FORBIDDEN, Subject
from neuronwise.locate import score_all
from neuronwise.locate.shares import component_scale, direct_shares
from neuronwise.model.activations import Activations
from neuronwise.model.passes import edit, edit_input, outputs_of
from neuronwise.model.writers import Writer
from neuronwise.read.decode import decode_all
from neuronwise.read.extremes import top_tokens

Signs = dict[Writer, tuple[Tensor, Tensor]]  # columns (k,) of a writer, and by which sign each is moved

STEPS = (1.0, 0.1, 0.01)  # a step may cross a kink, or send a token to other experts: then a smaller one is tried
CHANGED = 16  # neurons of one layer whose activations are moved together
READ = 5  # tokens that a neuron is read as
SLOPES = {True: 0.02, False: 0.2}  # relative difference that a slope may have, in single precision and below it


def shares(subject: Subject) -> Measured:
    """With ``normalize=True`` all neurons' scores, attention, embeddings and biases add up to the logit."""
    model, run, target = subject.model, subject.run, subject.target
    scores = score_all(model, run, [target], "contribution", normalize=True)[0]
    written = direct_shares(model, run, [(target.position, {target.token_id: 1.0})])
    gradients, parts = dict(written.gradients[0]), dict(written.shares[0])
    acts = run.activations(target.position)
    total = written.constants[0] + sum(float(values.double().sum()) for values in scores.values())
    for site, sites in itertools.groupby(sorted(model.writers, key=lambda writer: writer.site), lambda w: w.site):
        gradient = gradients.pop(site, None)
        if gradient is not None:
            total += sum(float(gradient @ bias.float().cpu()) for bias in _biases(list(sites), acts))
    total += sum(parts[key] for key in gradients)
    real = _uncapped(subject)
    scale = component_scale(written, 0)
    count = sum(len(values) for values in scores.values())
    what = f"{count} neurons and {len(gradients)} other parts add up to {total:.4f}, the logit is {real:.4f}"
    return within("share of all sizes", abs(total - real) / scale, subject.tolerance, what, total=total, logit=real)


def _biases(writers: list[Writer], acts: Activations) -> Iterator[Tensor]:
    """(d,) each: the biases that are written at one site, with the router's weight for an expert's."""
    experts = writers[0].experts
    if experts is not None and experts.unit_bias is not None:
        yield experts.unit_bias
    for writer in writers:
        weights, bias = writer.fired_rows(acts).weights, writer.bias
        if bias is not None and len(weights):
            yield float(weights[0]) * bias


def _uncapped(subject: Subject) -> float:
    """The target's logit, before any soft cap, with the scale of the architecture applied."""
    model, token = subject.model, subject.target.token_id
    with outputs_of(model.head) as seen, torch.no_grad():
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
        writer = model.writer(neuron)
        at, values = int(writer.columns([neuron])), writer.fired(acts)
        fired = 0.0 if values is None else float(values[at])
        vector = writer.vectors[:, at].double().cpu()
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
            own = {writer: values for writer, values in scores.items() if writer.layer == layer}
            slope, expected, noise = _slope(subject, own, size)
            if not subject.exact and noise > 0.5 * expected:
                raise NotApplicable(f"finite differences drown in the rounding of {subject.dtype} (layer {layer})")
            off = max(0.0, abs(slope - expected) - (0 if subject.exact else noise))
            share = off / max(expected, 1e-12)
            if share <= SLOPES[subject.exact]:
                break
        lines.append(f"layer {layer}: {slope:.4g} for {expected:.4g}")
        worst = max(worst, share)
    return within("difference", worst, SLOPES[subject.exact], "; ".join(lines))


def _slope(subject: Subject, scores: Mapping[Writer, Tensor], size: float) -> tuple[float, float, float]:
    """∂ logit / ∂ s when one layer's neurons of the largest scores all move by s in the direction that raises it.

    By central differences, extrapolated; with what the scores say it is, and how far two steps differ, or how
    coarse the logits' own numbers are.
    """
    flat = torch.cat(list(scores.values()))
    chosen = flat.abs().topk(min(CHANGED, len(flat))).indices
    signs: Signs = {}
    start = 0
    for writer, values in scores.items():
        own = chosen[(chosen >= start) & (chosen < start + len(values))] - start
        if len(own):
            signs[writer] = own, values[own].sign()
        start += len(values)
    expected = float(flat[chosen].abs().sum())
    spread = float(subject.logits().std())
    step = (0.02 if subject.exact else 0.5) * spread / max(expected, 1e-12)
    step = size * min(max(step, 1e-3 if subject.exact else 0.05), 0.1 if subject.exact else 0.5)

    def central(step: float) -> float:
        up, down = (_moved(subject, signs, sign * step) for sign in (1, -1))
        return (up - down) / (2 * step)

    coarse, fine = central(step), central(step / 2)
    resolution = torch.finfo(subject.dtype).eps * float(subject.logits().abs().max()) / step
    return (4 * fine - coarse) / 3, expected, max(abs(fine - coarse), resolution)


def _moved(subject: Subject, signs: Signs, step: float) -> float:
    """The target's logit when the named activations of a layer are a · (1 + step · sign) at the predicting row."""
    model = subject.model
    acts = subject.run.activations(subject.target.position)
    with contextlib.ExitStack() as stack, torch.no_grad():
        for writer, (columns, sign) in signs.items():
            within = model.blocks[writer.layer].module
            if writer.experts is None:
                stack.enter_context(edit_input(writer.module, _scaler(columns, 1 + step * sign), within))
                continue
            fired = writer.fired(acts)
            assert fired is not None
            vectors = writer.vectors
            added = vectors[:, columns.to(vectors.device)].float().cpu() @ (step * sign * fired[columns])
            stack.enter_context(edit(writer.experts.unit, _adder(added), within))
        logits = model.forward(subject.inputs, rows=[-1])
    value = float(logits[0, -1, subject.target.token_id])
    if not math.isfinite(value):
        layer = next(writer.layer for writer in signs)
        raise Deviation(f"the logit is not finite once activations of layer {layer} are moved by {step:.3g}")
    return value


def _adder(vector: Tensor) -> Callable[[Tensor], Tensor]:
    """Adds (d,) to the last row."""

    def change(output: Tensor) -> Tensor:
        rows = output.clone().reshape(-1, output.shape[-1])
        rows[-1] += vector.to(rows.device, rows.dtype)
        return rows.reshape(output.shape)

    return change


def _scaler(columns: Tensor, factors: Tensor) -> Callable[[Tensor], Tensor]:
    """Multiplies some columns of the last row."""

    def change(inputs: Tensor) -> Tensor:
        moved = inputs.clone().reshape(-1, inputs.shape[-1])
        moved[-1, columns.to(moved.device)] *= factors.to(moved.device, moved.dtype)
        return moved.reshape(inputs.shape)

    return change


def decoding(subject: Subject) -> Measured:
    """The tokens of a neuron are those of the largest U · v, and every one has a text."""
    model = subject.model
    vectors = [model.blocks[n.layer].value_vector(n).detach() for n in subject.neurons]
    unembedding = model.unembedding.detach()
    ids = top_tokens(torch.stack([v.to(vectors[0].device) for v in vectors]), unembedding, READ)
    worst = 0.0
    for vector, row in zip(vectors, ids, strict=True):
        read = unembedding.float() @ vector.to(unembedding.device).float()
        lowest, wanted = float(read[row].min()), float(read.topk(READ).values[-1])
        worst = max(worst, (wanted - lowest) / float(read.abs().max().clamp_min(1e-12)))
    if worst > subject.tolerance:
        raise Deviation(f"tokens of a neuron are not those of the largest U · v, by {worst:.1e}", difference=worst)
    if model.tokenizer is None:
        raise NotApplicable("the model has no tokenizer, so tokens have no texts")
    texts = decode_all(model, subject.neurons, READ)
    if any(len(row) != READ for row in texts):
        raise Deviation(f"a neuron is read as {next(row for row in texts if len(row) != READ)}")
    first = " ".join(repr(text)[1:-1] for text in texts[0])
    return Measured(f"{len(texts)} neurons; {subject.neurons[0]}: {first}", {"difference": worst})
