"""The check of attention heads: all heads of a module and its bias add up to what the module adds to the logit."""

from __future__ import annotations

from neuronwise.check.result import Measured, NotApplicable, within
from neuronwise.check.subject import Subject
from neuronwise.errors import MethodError
from neuronwise.locate.heads import contribution
from neuronwise.locate.shares import component_scale, direct_shares
from neuronwise.model.heads import attentions


def heads(subject: Subject) -> Measured:
    """Of every attention module, heads' scores and bias are its share: gradient · what the module really wrote."""
    model, run, target = subject.model, subject.run, subject.target
    try:
        scores = contribution(model, run, [target])[0]
    except MethodError as error:
        raise NotApplicable(str(error)) from error
    written = direct_shares(model, run, [(target.position, {target.token_id: 1.0})])
    values = dict(zip(scores.heads, scores.values.double().tolist(), strict=True))
    least = 1e-3 * component_scale(written, 0)  # a module that adds next to nothing is not judged by its rounding
    worst = 0.0
    for module in attentions(model):
        own = [values[head] for head in module.heads]
        bias, total = module.writer.bias, sum(own)
        if bias is not None and module.site in written.gradients[0]:
            total += float(written.gradients[0][module.site] @ bias.detach().float().cpu())
        share = written.shares[0].get(module.site, 0.0)
        worst = max(worst, abs(total - share) / (sum(map(abs, own)) + abs(share) + least))
    detail = " ".join([f"{len(values)} heads of {len(attentions(model))} modules", *scores.notes])
    return within("difference", worst, subject.tolerance, detail, heads=len(values))
