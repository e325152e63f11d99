"""How much a neuron alone raises the target's log-probability at the residual stream it writes into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate.scores import Scores
from neuronwise.model.blocks import dense_weight, expert_weight
from neuronwise.model.logit_lens import LogitLens
from neuronwise.model.run import Run, Target

if TYPE_CHECKING:
    from neuronwise.model import Model


def log_prob_increase(model: Model, run: Run, targets: Sequence[Target], *, chunk: int = 512) -> list[Scores]:
    """log p(t | h + a·v) − log p(t | h), read through the final norm and U ([YU] eq. 6).

    h is the residual stream at the predicting position before the layer's feed-forward block writes. Exact, and so
    one product of neurons and vocabulary: ``chunk`` neurons at a time. Raises ``MethodError`` where what a neuron
    writes reaches the stream through more than a norm or a multiplier.
    """
    results = [Scores() for _ in targets]
    for position in sorted({target.position for target in targets}):
        indices = [i for i, target in enumerate(targets) if target.position == position]
        tokens = [targets[i].token_id for i in indices]
        acts = run.activations(position)
        lens = LogitLens(model, run.forced_inputs(position))
        for block in model.blocks:
            groups: list[tuple[int | None, Tensor, Tensor, Tensor]] = []
            a = acts.dense.get(block.layer)
            start = 0
            for writer in block.dense:
                part = a[0, start : start + writer.width].float() if a is not None else torch.zeros(writer.width)
                written = lens.into_stream(block.layer, writer.path, dense_weight(writer).float().T.cpu())
                groups.append((None, part, part.unsqueeze(1) * written, part))
                start += writer.width
            for expert, record in (acts.routed[block.layer][0] if block.layer in acts.routed else {}).items():
                routed, local = block.expert(expert)
                part = record.activation.float()
                from neuronwise.model.stream import unit_path

                path = unit_path(block, block.routed.index(routed))
                written = lens.into_stream(block.layer, path, expert_weight(routed, local).float().T.cpu())
                groups.append((expert, part, record.weight * part.unsqueeze(1) * written, part))
            if not groups:
                continue
            residual = lens.residual_before(block.layer)
            before = lens.log_probabilities(residual.unsqueeze(0))[0, tokens]
            for expert, part, written, _ in groups:
                increases = torch.cat(
                    [lens.log_probabilities(residual + piece)[:, tokens] - before for piece in written.split(chunk)]
                )
                if not torch.isfinite(increases).all():
                    raise MethodError("log_prob_increase met numbers that are not finite; load the model in float32.")
                for column, index in enumerate(indices):
                    place = (block.layer, expert)
                    earlier = results[index].values.get(place)
                    values = increases[:, column]
                    results[index].values[place] = values if earlier is None else torch.cat([earlier, values])
                    seen = results[index].activations.get(place)
                    results[index].activations[place] = part if seen is None else torch.cat([seen, part])
    return results
