"""Editing in context: the fact is told before every prompt and no weight changes; a baseline ([IKE])."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neuronwise.answers.request import requests
from neuronwise.data.facts import Fact
from neuronwise.data.facts.fact import joined
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.presets import Preset, resolved
from neuronwise.edit.record import edited
from neuronwise.errors import MethodError
from neuronwise.model.lock import alone
from neuronwise.model.model import Model
from neuronwise.model.prompt import Preface


@dataclass(frozen=True)
class InContextSettings:
    """``template`` tells one fact, with {} in place of its prompt and new target; ``lead`` is right before a prompt.

    ``demonstrations`` are texts before all that, which show how to use a new fact and when not to.
    """

    template: str = "New Fact: {}\n"
    lead: str = "Prompt: "
    demonstrations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.template.count("{}") != 1:
            raise MethodError(f"The template {self.template!r} needs one place {{}} for the fact.")


PRESETS = {
    "default": Preset(
        InContextSettings(),
        "EasyEdit easyeditor/evaluate/evaluate.py, of IKE without demonstrations (use_icl_examples)",
    )
}


@alone
def in_context(
    model: Model, facts: Fact | Sequence[Fact], settings: InContextSettings | None = None, **changes: object
) -> Edit:
    """An edit that tells the facts before every prompt; the model itself is left as it is.

    While it is applied, whatever is asked is read behind "New Fact: {prompt} {target}", as in Zheng et al. 2023 (§3.2).
    There 32 demonstrations for each fact are retrieved from a corpus by a sentence encoder; here they are texts that
    you give, or none. Such an edit fits any model, and neither checkpoints nor adapters can hold it.
    """
    settings = resolved(model, settings, PRESETS, changes)
    facts = requests(model, facts)
    told = [
        settings.template.replace("{}", fact.text + joined(fact.text, fact.target_new, fact.join)) for fact in facts
    ]
    before = Preface("".join([*(f"{text}\n\n" for text in settings.demonstrations), *told]), settings.lead)
    return edited("in_context", model, settings, facts, (), None, [before])


EDITOR = Editor(
    "in_context", in_context, InContextSettings, PRESETS,
    layers="none",
    says="tells the facts before every prompt and changes no weight",
    cites="Zheng et al. 2023, arXiv 2305.12740; EasyEdit",
    weights=False,
)  # fmt: skip
