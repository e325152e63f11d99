"""Knowledge neurons: value vectors moved from the old answer's embedding to the new one's ([KN] §5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuronwise.answers.request import forced, listed, requests
from neuronwise.data.facts import Fact
from neuronwise.edit.delta import deltas_of, value_vectors
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.presets import Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.errors import EditError, MethodError, PromptError
from neuronwise.locate import refine, score_all
from neuronwise.model.lock import alone
from neuronwise.model.model import Model
from neuronwise.model.run import Run, Target
from neuronwise.model.weights import plain_weight
from neuronwise.neurons import Neuron, NeuronSet


@dataclass(frozen=True)
class KnowledgeNeuronsSettings:
    """How neurons are found ([KN] §3) and what is done to them (§5).

    ``mode`` "update" or "erase". ``lambda_old`` (λ₁) and ``lambda_new`` (λ₂) count in norms of the value vector.
    ``steps`` is m of the integral; ``threshold`` makes the coarse set (a share of the largest score); ``paraphrases``
    are further prompts of the fact (with {} for the subject): neurons in ``share`` of the coarse sets remain, the share
    moving until ``at_least`` to ``at_most`` are left. Without paraphrases the ``at_most`` best of the coarse set (our
    choice; the paper always has paraphrases). ``embeddings`` "output" (what logits are read with) or "input".
    ``signed`` turns the change around for a neuron whose activation is negative, as gated models have them (ours).
    """

    mode: str = "update"
    lambda_old: float = 1.0
    lambda_new: float = 8.0
    steps: int = 20
    threshold: float = 0.2
    share: float = 0.7
    at_least: int = 2
    at_most: int = 5
    paraphrases: tuple[str, ...] = ()
    embeddings: str = "output"
    signed: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("update", "erase"):
            raise MethodError(f"mode={self.mode!r} is unknown; choose update or erase.")
        if self.embeddings not in ("output", "input"):
            raise MethodError(f"embeddings={self.embeddings!r} is unknown; choose output or input.")
        if not 0 < self.threshold <= 1 or not 0 < self.share <= 1:
            raise MethodError("threshold and share must be above 0 and at most 1.")
        if not 1 <= self.at_least <= self.at_most or self.steps < 1:
            raise MethodError("at_least must be 1 or more and not above at_most; steps must be 1 or more.")


PRESETS: dict[str, Preset[KnowledgeNeuronsSettings]] = {
    "default": Preset(KnowledgeNeuronsSettings(), "Dai et al. 2022, for BERT"),
    "gpt2-xl": Preset(KnowledgeNeuronsSettings(share=0.4), "ROME hparams/KN/gpt2-xl.json"),
    "gptj": Preset(KnowledgeNeuronsSettings(threshold=0.1, share=0.4), "EasyEdit hparams/KN/gpt-j-6B.yaml"),
}  # fmt: skip


@alone
def knowledge_neurons(
    model: Model, facts: Fact | Sequence[Fact], settings: KnowledgeNeuronsSettings | None = None, **changes: object
) -> Edit:
    """v_i ← v_i − λ₁·‖v_i‖·E(old)/‖E(old)‖ + λ₂·‖v_i‖·E(new)/‖E(new)‖ for the fact's knowledge neurons, or v_i ← 0.

    The paper writes v_i ← v_i − λ₁·t + λ₂·t′ with λ₁ = 1 and λ₂ = 8 and t, t′ the word embeddings of the old and the
    new answer; its published code first gives both embeddings the norm of the value vector, which is the norm
    matching meant here. The old answer is what the model says now. The neurons are those of its integrated gradients.

    Our choices: a target of several tokens is edited token by token, teacher forced, each against what the model says
    there now (the paper's answers are single tokens); where it says the target already, nothing is done; changes of a
    neuron add up. The paper's third filter, neurons that other facts of the relation share, needs other facts and is
    left out. Raises ``EditError`` when the model says the targets already or no neuron supports the old answers.
    """
    given = listed(facts)
    settings = resolved(model, settings, PRESETS, changes)
    facts = requests(model, given)
    embeddings = _embeddings(model, settings)
    moved: dict[Neuron, Tensor] = {}
    for fact, asked in zip(facts, given, strict=True):
        paraphrases = _paraphrased(asked, settings.paraphrases)
        said = requests(model, paraphrases) if paraphrases else []
        for old, new, found in _found(model, [fact, *said], settings):
            for member, value in zip(found, value_vectors(model, found.neurons), strict=True):
                if settings.mode == "erase":
                    moved[member.neuron] = -value
                    continue
                move = settings.lambda_new * _of_norm(embeddings[new], value)
                move = move - settings.lambda_old * _of_norm(embeddings[old], value)
                if settings.signed and member.activation is not None and member.activation < 0:
                    move = -move
                moved[member.neuron] = moved.get(member.neuron, torch.zeros_like(value)) + move
    if not moved:
        raise EditError("There is nothing to edit: the model says the new target already, or no neuron supports it.")
    ordered = {neuron: moved[neuron] for neuron in sorted(moved)}
    return edited(
        "knowledge_neurons", model, settings, facts, deltas_of(model, ordered), neurons=[str(n) for n in ordered]
    )


def _found(
    model: Model, asked: Sequence[Fact], settings: KnowledgeNeuronsSettings
) -> Iterator[tuple[int, int, NeuronSet]]:
    """For each token of a fact's target: the token said now, the new one, and the neurons behind the one said now.

    ``asked``: the fact, and its paraphrases.
    """
    runs = [forced(model, one) for one in asked]
    first = runs[0]
    count = len(first.output_ids)
    with torch.no_grad():
        logits = model.forward(first.forced_inputs(), rows=[first.row(k) for k in range(count)])[0]
    for position, old in enumerate(logits.argmax(-1).tolist()):
        new = first.output_ids[position]
        if old != new or settings.mode == "erase":
            yield old, new, _neurons(model, runs, Target(old, position, ""), settings)


def _neurons(model: Model, runs: list[Run], target: Target, settings: KnowledgeNeuronsSettings) -> NeuronSet:
    scores = [score_all(model, run, [target], "integrated_gradients", steps=settings.steps)[0] for run in runs]
    refined = refine(
        scores,
        coarse=settings.threshold,
        share=settings.share,
        at_least=settings.at_least,
        at_most=settings.at_most,
    )
    best = refined[: settings.at_most] if len(runs) == 1 else refined
    return NeuronSet(tuple(replace(member, activation=scores[0].activation(member.neuron)) for member in best))


def _paraphrased(fact: Fact, paraphrases: Sequence[str]) -> list[Fact]:
    for prompt in paraphrases:
        if "{}" not in prompt and fact.subject not in prompt:
            raise PromptError(f"The paraphrase {prompt!r} has no place {{}} for its subject {fact.subject!r}.")
    return [replace(fact, prompt=prompt) for prompt in paraphrases]


def _embeddings(model: Model, settings: KnowledgeNeuronsSettings) -> Tensor:
    """(V, d)"""
    table = model.unembedding if settings.embeddings == "output" else plain_weight(model.module.get_input_embeddings())
    if table.shape[1] != model.hidden_size:
        raise MethodError(
            f"The {settings.embeddings} embeddings of {model.name} have {table.shape[1]} numbers, its value vectors "
            f"{model.hidden_size}: knowledge_neurons cannot add one to the other."
        )
    return table.detach()


def _of_norm(embedding: Tensor, value: Tensor) -> Tensor:
    """The embedding's direction with the norm of the value vector."""
    direction = embedding.float().cpu()
    return direction * (value.norm() / direction.norm().clamp(min=1e-12))


EDITOR = Editor(
    "knowledge_neurons", knowledge_neurons, KnowledgeNeuronsSettings, PRESETS,
    layers="where neurons are found",
    says="moves the value vectors of a fact's knowledge neurons from the old answer's embedding to the new one's",
    cites="Dai et al. 2022, arXiv 2104.08696",
)  # fmt: skip
