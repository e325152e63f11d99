"""Checks of what a pass records: activations, and the same ones from cached generation."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import torch
from torch import Tensor

from neuronwise.check.result import Deviation, Measured, NotApplicable, difference, within
from neuronwise.check.subject import Subject, allowed
from neuronwise.model.activations import Activations
from neuronwise.model.experts import RoutedCall, record_routed
from neuronwise.model.hooks import Hooks
from neuronwise.model.passes import edit
from neuronwise.model.products import watching
from neuronwise.model.record import Recorder
from neuronwise.model.writers import Site

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
    written: dict[Site, Tensor] = {}
    calls: list[RoutedCall] = []
    with contextlib.ExitStack() as stack:
        recorder = stack.enter_context(Recorder(model.blocks))
        hooks = stack.enter_context(Hooks())
        for block in model.blocks:
            for writer in block.dense:
                stack.enter_context(edit(writer.module, _keeper(written, writer.site), within=block.module))
            for experts in block.experts:
                record_routed(hooks, experts, block.writers, recorder.tokens, calls.append)
        with torch.no_grad():
            model.forward(subject.inputs, rows=[-1])
    acts = recorder.activations(0)
    worst = 0.0
    dense = [writer for writer in model.writers if writer.expert is None]
    for writer in dense:
        fired = writer.fired(acts)
        if fired is None or writer.site not in written:
            raise Deviation(f"layer {writer.layer} was not passed")
        worst = max(worst, difference(writer.written(fired).cpu(), written[writer.site]))
    for call in calls:
        worst = max(worst, _routed(acts, call))
    count = len(dense) + len(calls)
    return within("difference", worst, subject.tolerance, f"{count} blocks", blocks=count)


def _keeper(written: dict[Site, Tensor], site: Site) -> Callable[[Tensor], Tensor]:
    def keep(output: Tensor) -> Tensor:
        if not watching():  # a copy: Falcon and Llama 4 go on to add to it in place
            written[site] = output.detach().reshape(-1, output.shape[-1])[-1].clone().float().cpu()
        return output

    return keep


def _routed(acts: Activations, call: RoutedCall) -> float:
    wanted = call.output.reshape(call.tokens, -1)[-1].float().cpu()
    found = torch.zeros_like(wanted)
    for writer in call.experts.writers:
        fired = writer.fired_rows(acts)
        if fired.rows:
            found += writer.written(fired.values, fired.weights)[0].cpu()
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
