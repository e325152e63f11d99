"""What a subject's neurons shall not answer to: the layer's activations on any text, and on other names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuronwise.data.facts import Fact
from neuronwise.edit.fine.specific.settings import SpecificSettings
from neuronwise.edit.memory.keys import look, writer_in
from neuronwise.edit.memory.passages import Passage, batched, fact_passage
from neuronwise.edit.memory.statistics import Statistics
from neuronwise.errors import ModelError, NonFiniteError
from neuronwise.model.hooks import Hooks, first_tensor
from neuronwise.model.model import Model

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

    def __init__(self, moment: Tensor, ridge: float, record: dict[str, Any]) -> None:
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


def moments_of(model: Model, layer: int, settings: SpecificSettings, statistics: Statistics | None = None) -> Moments:
    """The moments of a layer, made once for a model (as it is then) and kept with it.

    ``statistics`` stand in for the self-written text. Raises ``EditError`` for those of another model or layer.
    """
    kept: dict[Any, Any] = model.__dict__.setdefault("_specific", {})
    source: tuple[Any, ...]
    if statistics is not None:
        statistics.require(model, [layer])
        source, said = ("statistics", statistics.about["digest"], statistics.tokens), statistics.record()
        text = _once(kept, (layer, *source), lambda: statistics.second_moment(layer).float())
    else:
        source = (settings.texts, settings.text_tokens, settings.seed)
        said = {"text": "self-written", "texts": settings.texts, "text_tokens": settings.text_tokens}
        passages = _once(kept, source, lambda: written(model, *source))
        text = _once(kept, (layer, *source), lambda: over_text(model, layer, passages))
    names = _once(kept, (layer, "names"), lambda: over_names(model, layer))
    weight = settings.names_weight
    last = (layer, *source, weight, settings.ridge)
    if kept.get("last", (None, None))[0] != last:  # one (f, f) factor at a time
        record = {**said, "names": len(NAMES) * len(PHRASES), "names_weight": weight}
        kept["last"] = last, Moments((1 - weight) * text + weight * names, settings.ridge, record)
    return kept["last"][1]


def _once(kept: dict[Any, Any], key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    if key not in kept:
        kept[key] = make()
    return kept[key]


def written(model: Model, count: int, length: int, seed: int) -> list[Passage]:
    """``count`` passages of up to ``length`` tokens drawn from the model's own distribution, begun by ``STARTS``."""
    if getattr(model.module, "generation_config", None) is None:
        raise ModelError(f"{model.name} does not generate; gather key statistics from a text and give them.")
    starts = [model.prepare(prompt=STARTS[number % len(STARTS)], chat=False)[0].input_ids for number in range(count)]
    most = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    length = min(length, most) if isinstance(most, int) and most > 0 else length
    found: list[Passage] = []
    device = model.device
    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for size in sorted({len(ids) for ids in starts if len(ids) < length}):
            ids = torch.tensor([ids for ids in starts if len(ids) == size])
            drawn = model.greedy(length - size)
            drawn.update(
                do_sample=True, temperature=1.0, top_k=0, top_p=1.0, min_length=None, min_new_tokens=length - size
            )
            inputs = model.placed({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
            rows = model.reader(inputs).generate(**inputs, generation_config=drawn)
            found += [Passage(tuple(row), 0) for row in rows.tolist()]
    return found


def over_text(model: Model, layer: int, passages: Sequence[Passage]) -> Tensor:
    """Mean of a aᵀ over all positions but the first, where activations are of their own kind (attention sinks)."""
    total, count = torch.zeros(()), 0
    for start in range(0, len(passages), ITEMS):
        batch = batched(model, passages[start : start + ITEMS])
        mask = batch.inputs["attention_mask"].bool()
        mask[:, 0] = False
        rows = _activations(model, layer, batch.inputs)[mask.flatten()]
        total, count = total + rows.T @ rows, count + len(rows)
    return total / count


def over_names(model: Model, layer: int) -> Tensor:
    """Mean of a aᵀ at the last token of ``NAMES`` in neutral phrases."""
    passages = [fact_passage(model, Fact(phrase, name, name)) for phrase in PHRASES for name in NAMES]
    parts = [
        look(model, batched(model, passages[start : start + ITEMS]), [layer]).keys[layer]
        for start in range(0, len(passages), ITEMS)
    ]
    rows = torch.cat(parts)
    return rows.T @ rows / len(rows)


class _Enough(Exception):
    """Ends a pass after the layer that is asked for."""


def _activations(model: Model, layer: int, inputs: dict[str, Any]) -> Tensor:
    """(items · positions, f) float32 on the CPU: what goes into the layer's W_down."""
    block, seen = model.blocks[layer], []
    with Hooks() as hooks, torch.no_grad(), contextlib.suppress(_Enough):
        active = hooks.inside(block.module)

        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            if active():
                values = first_tensor(args, kwargs).detach()
                seen.append(values.reshape(-1, values.shape[-1]).float().cpu())
                raise _Enough

        hooks.before(writer_in(model, layer).module, before)
        model.forward(inputs, rows=[-1])
    return seen[0]
