"""Checks of what a pass records: activations, and the same ones from cached generation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from neuronwise.check.result import Deviation, Measured, NotApplicable, difference, within
from neuronwise.check.subject import Subject, allowed
from neuronwise.model.blocks import writer_bias
from neuronwise.model.experts import RoutedCall, expert_output, record_routed, watching
from neuronwise.model.hooks import Hooks
from neuronwise.model.record import Activations, Recorder, parent_of

ALTERED = 0.25  # share of layers whose experts half precision may route otherwise


def logits(subject: Subject) -> Measured:
    """The logits are finite, and those of the model called as it is."""
    model = subject.model
    with torch.no_grad():
        output = model.module(**model.placed(subject.inputs), use_cache=False)
    own = (output.logits if hasattr(output, "logits") else output[0])[0, -1]
    if not torch.isfinite(own).all():
        raise Deviation(f"{int((~torch.isfinite(own)).sum())} of {len(own)} logits are not finite")
    return within(
        "difference", difference(subject.logits(), allowed(own.float())), subject.tolerance, f"{len(own)} logits"
    )


def activations(subject: Subject) -> Measured:
    """Recorded activations times value vectors, biases added, are what each feed-forward block writes."""
    model = subject.model
    written: dict[tuple[int, str], Tensor] = {}
    calls: list[tuple[int, RoutedCall]] = []
    with Recorder(model.blocks) as recorder, Hooks() as hooks:
        for block in model.blocks:
            active = hooks.inside(block.module)
            for writer in block.dense:

                def keep(module: nn.Module, args: Any, kwargs: Any, output: Tensor, key: Any, active: Any) -> None:
                    if active() and not watching():
                        # Falcon and Llama 4 go on to add to it in place.
                        written[key] = output.detach().reshape(-1, output.shape[-1])[-1].clone().float().cpu()

                key = (block.layer, writer.path)
                hooks.after(writer.module, lambda *call, key=key, active=active: keep(*call, key=key, active=active))
            for routed in block.routed:
                parent = parent_of(block.module, routed.path)
                first = block.first_expert(routed)
                record_routed(
                    hooks, routed, parent, block.dense, recorder.tokens,
                    lambda call, layer=block.layer, first=first: calls.append((layer, call)),
                )  # fmt: skip
        with torch.no_grad():
            model.forward(subject.inputs, rows=[-1])
    acts = recorder.activations(0)
    worst, count = 0.0, 0
    for block in model.blocks:
        vectors = block.value_vectors.float() if block.dense else None
        for writer, start in block.dense_from():
            if (block.layer, writer.path) not in written:
                raise Deviation(f"layer {block.layer} was not passed")
            assert vectors is not None
            units = slice(start, start + writer.width)
            found = vectors[:, units] @ acts.dense[block.layer][0, units].to(vectors.device).float()
            bias = writer_bias(writer.module)
            found = found.cpu() if bias is None else found.cpu() + bias.float().cpu()
            worst = max(worst, difference(found, written[block.layer, writer.path]))
            count += 1
    for layer, call in calls:
        worst = max(worst, _routed(subject, acts, layer, call))
        count += 1
    return within("difference", worst, subject.tolerance, f"{count} blocks", blocks=count)


def _routed(subject: Subject, acts: Activations, layer: int, call: RoutedCall) -> float:
    block = subject.model.blocks[layer]
    first = block.first_expert(call.routed)
    wanted = call.output.reshape(call.tokens, -1)[-1].float().cpu()
    found = torch.zeros_like(wanted)
    for expert, record in acts.routed[layer][0].items():
        if first <= expert < first + call.routed.experts:
            found += record.weight * expert_output(call.routed, expert - first, record.activation).cpu()
    if not wanted.any() and not found.any():
        return 0.0  # no expert had room for this token
    return difference(found, wanted)


def generation(subject: Subject) -> Measured:
    """What was recorded step by step, with the cache, is what one pass over the whole text shows."""
    model, run = subject.model, subject.run
    if not run.output_ids:
        raise NotApplicable("the model generates nothing after this prompt")
    rows = [run.row(position) for position in range(len(run.output_ids))]
    whole = model.record(run.forced_inputs(), rows=rows)
    worst, altered, layers = 0.0, 0, 0
    for number in range(len(rows)):
        step = run.steps[number]
        for layer, values in step.dense.items():
            worst = max(worst, difference(values[0], whole.dense[layer][number]) if values.any() else 0.0)
        for layer, routed in step.routed.items():
            layers += 1
            one, other = routed[0], whole.routed[layer][number]
            if one.keys() != other.keys():
                altered += 1
                continue
            for expert, record in one.items():
                worst = max(worst, difference(record.written, other[expert].written))
    most = 0 if subject.exact else math.ceil(ALTERED * layers)
    note = f", {altered} of {layers} routed otherwise" if layers else ""
    what = f"{len(rows)} tokens{note}"
    if altered > most:
        raise Deviation(f"{what}, allowed {most}", difference=worst, routed_otherwise=altered)
    # Two ways of attention round differently, layer upon layer.
    return within("difference", worst, subject.tolerance * (1 if subject.exact else 3), what, routed_otherwise=altered)
