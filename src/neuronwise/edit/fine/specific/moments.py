"""Which neurons respond to a subject and to little else: not to any text, nor to other names (ours)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from neuronwise.data.facts import Fact
from neuronwise.edit.fine.specific.settings import SpecificSettings
from neuronwise.edit.memory.kept import kept
from neuronwise.edit.memory.keys import look_at, writer_in
from neuronwise.edit.memory.passages import Passage, fact_passage, side_by_side
from neuronwise.edit.memory.statistics import Statistics
from neuronwise.errors import ModelError, NonFiniteError
from neuronwise.model.model import Model
from neuronwise.model.passes import inputs_of, stop_after
from neuronwise.model.prompt import Inputs
from neuronwise.model.sample import seeded

STARTS = "The In A I He She It We On When After This For One As There".split()
PHRASES = ("I read about {}", "The {}")
NAMES = (
    "Ada Lovelace", "Galileo Galilei", "Jane Austen", "Johann Sebastian Bach", "Frida Kahlo", "Nikola Tesla",
    "Cleopatra", "Confucius", "Usain Bolt", "Anna Kournikova", "Charlie Chaplin", "Aretha Franklin", "Haruki Murakami",
    "Simon Bolivar", "Indira Gandhi", "David Jones", "Madrid", "Vienna", "Lagos", "Seoul", "Boston", "Lima", "Warsaw",
    "Bangkok", "Istanbul", "Melbourne", "Spain", "Japan", "Egypt", "Argentina", "Norway", "India", "Kenya", "Poland",
    "Florida", "Bavaria", "Mount Fuji", "the Danube", "Lake Victoria", "Amazon", "Siemens", "Ford", "Nokia", "Philips",
    "Pepsi", "Intel", "Oxford University", "Reuters", "Gmail", "Linux", "Nintendo Switch", "Fiat Panda",
    "Adobe Photoshop", "Queen", "Harry Potter", "Sesame Street", "Twitter", "Don Quixote", "Buddhism", "Java",
    "the Cold War", "the World Cup",
)  # fmt: skip
ITEMS = 32  # passages in one pass


class Moments:
    """C = (1 − w)·E[a aᵀ] over text + w·E[a aᵀ] over names, of one layer: (f, f) float32.

    ``factor`` is the Cholesky factor of C + ridge·mean(diag C)·I, shared by all facts.
    """

    def __init__(self, moment: Tensor, ridge: float, record: Mapping[str, object]) -> None:
        self.damped = moment.clone()
        self.damped.diagonal().add_(ridge * moment.diagonal().mean())
        factor, failed = torch.linalg.cholesky_ex(self.damped)
        if int(failed) or not bool(torch.isfinite(factor).all()):
            raise NonFiniteError("The activations are not finite or zero; load the model with dtype=torch.float32.")
        self.factor = factor
        self.record = record

    def solve(self, key: Tensor, units: Tensor) -> Tensor:
        """(C_SS + ridge·…)⁻¹ k_S for the units S."""
        if len(units) == len(self.damped):
            return torch.cholesky_solve(key.unsqueeze(1), self.factor).squeeze(1)
        return torch.linalg.solve(self.damped[units][:, units], key[units])


def gate(moments: Moments, key: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Units S (n,) and weights k̂ (n,) with k̂·k_S = 1 for the subject's activations ``key`` (f,).

    x = (C_SS + ridge)⁻¹ k_S, k̂ = x / (x·k_S): of all weights that give 1 at the subject those that give the least
    square elsewhere. From all units the larger half by x_i·k_i, the share that each has in the 1, stays until n are
    left.
    """
    units = torch.arange(len(key))
    weights = moments.solve(key, units)
    while len(units) > n:
        shares = weights * key[units]
        units = units[shares.topk(max(n, len(units) // 2)).indices.sort().values]
        weights = moments.solve(key, units)
    reached = weights @ key[units]
    if not float(reached) > 1e-12:
        raise NonFiniteError("The subject's activations are zero or not finite in this layer; choose another layer.")
    return units, weights / reached


def moments_of(model: Model, layer: int, settings: SpecificSettings, statistics: Statistics | None = None) -> Moments:
    """The moments of a layer, made once for a model (as it is then) and kept with it.

    Those over text are also kept in the cache folder, see ``kept``. ``statistics`` replace the self-written text.
    Raises ``EditError`` for those of another model or layer.
    """
    if statistics is not None:
        statistics.require(model, [layer])
        source: tuple[object, ...] = ("statistics", statistics.about["digest"], statistics.tokens)
        text = model.memo(("moment", layer, *source), lambda: statistics.second_moment(layer).float())
        record = statistics.record()
    else:
        count, length, seed = settings.texts, settings.text_tokens, settings.seed
        source = ("written", count, length, seed)

        def gathered() -> Tensor:
            return over_text(model, layer, model.memo(source, lambda: written(model, count, length, seed)))

        name = f"L{layer}-{count}x{length}-seed{seed}"
        text = model.memo(("moment", layer, *source), lambda: kept(model, name, gathered))
        record = {"text": "self-written", "texts": count, "text_tokens": length}
    names = model.memo(("moment", layer, "names"), lambda: over_names(model, layer))
    weight = settings.names_weight
    record |= {"names": len(NAMES) * len(PHRASES), "names_weight": weight}
    last: dict[object, Moments] = model.memo("moments", dict)  # one (f, f) factor at a time
    key = (layer, *source, weight, settings.ridge)
    if key not in last:
        last.clear()
        last[key] = Moments((1 - weight) * text + weight * names, settings.ridge, record)
    return last[key]


def written(model: Model, count: int, length: int, seed: int) -> list[Passage]:
    """``count`` passages of up to ``length`` tokens drawn from the model's own distribution, begun by ``STARTS``."""
    if getattr(model.module, "generation_config", None) is None:
        raise ModelError(f"{model.name} does not generate; gather key statistics from a text and give them.")
    openings = [STARTS[number % len(STARTS)] for number in range(count)]
    starts = [model.prepare(prompt=opening, chat=False, bare=True)[0].input_ids for opening in openings]
    most = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    length = min(length, most) if isinstance(most, int) and most > 0 else length
    found: list[Passage] = []
    with torch.no_grad(), seeded(model, seed):
        for size in sorted({len(ids) for ids in starts if len(ids) < length}):
            ids = torch.tensor([ids for ids in starts if len(ids) == size])
            drawn = model.greedy(length - size)
            drawn.update(
                do_sample=True, temperature=1.0, top_k=0, top_p=1.0, min_length=None, min_new_tokens=length - size
            )
            inputs = model.placed({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
            rows = model.generate(inputs, drawn)
            found += [Passage(tuple(row), 0) for row in rows.tolist()]
    return found


def over_text(model: Model, layer: int, passages: Sequence[Passage]) -> Tensor:
    """Mean of a aᵀ over all positions but the first, where activations are of their own kind (attention sinks)."""
    total, count = torch.zeros(()), 0
    for start in range(0, len(passages), ITEMS):
        batch = side_by_side(model, passages[start : start + ITEMS])
        mask = batch.inputs["attention_mask"].bool()
        mask[:, 0] = False
        rows = _activations(model, layer, batch.inputs)[mask.flatten()]
        total, count = total + rows.T @ rows, count + len(rows)
    return total / count


def over_names(model: Model, layer: int) -> Tensor:
    """Mean of a aᵀ at the last token of ``NAMES`` in neutral phrases."""
    passages = [fact_passage(model, Fact(phrase, name, name)) for phrase in PHRASES for name in NAMES]
    rows = look_at(model, passages, layer).keys[layer]
    return rows.T @ rows / len(rows)


def _activations(model: Model, layer: int, inputs: Inputs) -> Tensor:
    """(items · positions, f) float32 on the CPU: what goes into the layer's W_down."""
    writer, block = writer_in(model, layer).module, model.blocks[layer].module
    with torch.no_grad(), inputs_of(writer, block) as seen, stop_after(block):
        model.forward(inputs, rows=[-1])
    return seen[0].detach().reshape(-1, seen[0].shape[-1]).float().cpu()
