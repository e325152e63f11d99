"""A run: one recorded forward pass or generation, with its tokens, words and activations where they matter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from neuronwise.errors import MethodError, PromptError, TargetError
from neuronwise.images import ImageLike, open_image
from neuronwise.images.open import file_of
from neuronwise.model.activations import Activations
from neuronwise.model.chat import reworded
from neuronwise.model.concepts import Concept, concept_of, concepts_in
from neuronwise.model.prompt import Inputs, Prompted, target_tokens
from neuronwise.model.state import State, state_of
from neuronwise.registry.arguments import checked

if TYPE_CHECKING:
    from neuronwise.model.model import Model


KINDS = ("ffn", "gate")  # W_down's input, or the gate's output before it is multiplied


@dataclass(frozen=True)
class Target:
    """A token to be scored and where: ``position`` counts generated tokens from 0.

    The scored row is the one that predicts that token: the last of the prompt for position 0. ``note`` says what a
    reader must know (a word of several tokens is scored at its first).
    """

    token_id: int
    position: int
    text: str
    note: str | None = None


@dataclass(eq=False)
class Run:
    """What the model read and said. ``text`` is the generated text; ``output_ids`` its tokens, without the end token.

    ``steps[k]`` holds the activations of the position that predicted generated token k (``Run.activations(k)``);
    ``seen``, where they were asked for, those at the image's tokens. ``state`` is the model's when they were recorded.
    """

    model: Model = field(repr=False)
    prompted: Prompted = field(repr=False)
    output_ids: list[int]
    steps: list[Activations] = field(repr=False)
    image: Image.Image | None = field(default=None, repr=False)
    seen: Activations | None = field(default=None, repr=False)
    max_new_tokens: int = 0
    state: State | None = field(default=None, repr=False)
    _extra: dict[tuple[str, int], Activations] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        model: Model,
        prompted: Prompted,
        output_ids: Sequence[int] = (),
        image: Image.Image | None = None,
        *,
        max_new_tokens: int = 0,
    ) -> Run:
        """A run of a prompt and the tokens that followed it, given instead of generated.

        Nothing is computed: activations are recorded by a pass of their own once they are asked for.
        """
        return cls(model, prompted, list(output_ids), [], image, None, max_new_tokens)

    @property
    def lock(self) -> RLock:
        """The model's."""
        return self.model.lock

    @property
    def prompt(self) -> str:
        """The prompt that was given."""
        return self.prompted.prompt

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """The photos, in order; ``image`` is None where there are several."""
        return self.prompted.ask.images if self.image is None else (self.image,)

    @property
    def photo(self) -> Image.Image:
        """The run's photo; raises ``PromptError`` for a run without one, or of several."""
        if self.image is None:
            raise PromptError(
                "This run has no image, so there is no map." if len(self.images) < 2
                else f"This run has {len(self.images)} images; maps are of runs with one."
            )  # fmt: skip
        return self.image

    @property
    def file(self) -> str | None:
        """The name of the photo's file, without its folders; None without a photo, or for one that is from no file."""
        return None if self.image is None else file_of(self.image)

    @property
    def chat(self) -> bool:
        """Whether the chat template was applied to the prompt."""
        return self.prompted.chat

    @cached_property
    def rendered(self) -> str:
        """The prompt as the model read it: with its chat template and special tokens, an image's tokens as one."""
        ids = [token for token in self.prompted.input_ids if token >= 0]
        image = self.model.image_token_id
        once = [t for t, before in zip(ids, [None, *ids], strict=False) if not (t == before == image)]
        return self.model.tokenizer.decode(once, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    @cached_property
    def text(self) -> str:
        """The generated text."""
        return self.model.decode_ids(self.output_ids).strip()

    @cached_property
    def answer(self) -> int:
        """The token that the model generated first, or where it generated nothing, the one that it would."""
        if self.output_ids:
            return self.output_ids[0]
        with torch.no_grad():
            return int(self.model.forward(self.forced_inputs(), rows=[-1])[0, -1].argmax())

    @cached_property
    def concepts(self) -> tuple[Concept, ...]:
        """The nouns of the generated text, with all their occurrences, tokens and positions."""
        return concepts_in(self.model.tokenizer, self.output_ids, self.model.tagger)

    @checked
    def concept(self, word: str) -> Concept:
        """Any word of the generated text; raises ``TargetError`` listing the nouns when it does not occur."""
        return concept_of(self.model.tokenizer, self.output_ids, word, self.concepts)

    @checked
    def target(
        self,
        concept: str | Concept | None = None,
        target: str | int | None = None,
        position: int | None = None,
        occurrence: int = 0,
    ) -> Target:
        """What to score: a concept of the text, or any target token.

        A target is scored where it was generated (its first time), else at the first generated position (after the
        prompt); ``position`` names another. Raises ``TargetError`` for what cannot be scored.
        """
        if (concept is None) == (target is None):
            raise TargetError("Name either a concept of the text or a target token to score.")
        if concept is not None:
            if position is not None:
                raise TargetError("position is of a target; a concept's place is named by occurrence.")
            return self._concept_target(concept, occurrence)
        assert target is not None
        if occurrence:
            raise TargetError("occurrence is of a concept; a target's place is named by position.")
        tokens = target_tokens(self.model.tokenizer, self.model.vocabulary_size, target)
        note = tokens.note
        if position is None:
            position = self.output_ids.index(tokens.token_id) if tokens.token_id in self.output_ids else 0
            if self.output_ids and tokens.token_id not in self.output_ids:
                unsaid = f"{tokens.text!r} was not generated; it is scored at the first generated position (0)."
                note = f"{note} {unsaid}" if note else unsaid
        if not 0 <= position <= len(self.output_ids):
            raise TargetError(
                f"Position {position} is outside of this run: it generated {len(self.output_ids)} tokens."
            )
        return Target(tokens.token_id, position, tokens.text, note)

    def _concept_target(self, concept: str | Concept, occurrence: int) -> Target:
        found = self.concept(concept) if isinstance(concept, str) else concept
        if not 0 <= occurrence < len(found.occurrences):
            raise TargetError(
                f"{found.word!r} occurs {len(found.occurrences)} times; there is no occurrence {occurrence}."
            )
        place = found.occurrences[occurrence]
        first, *others = place.tokens
        note = f"{found.word!r} is {1 + len(others)} tokens; scored is the first, {first!r}." if others else None
        return Target(place.token_ids[0], place.positions[0], found.word, note)

    def again(self) -> str:
        """What the model, as it is now, says to the same prompt and photo."""
        return self.model.run_prompted(self.prompted, self.image, max_new_tokens=self.max_new_tokens).text

    def asked(self, image: ImageLike | None = None, prompt: str | None = None) -> tuple[Prompted, Image.Image | None]:
        """The same question laid out with another photo, or with another text in place of the prompt."""
        ask = self.prompted.ask
        if image is not None:
            ask = replace(ask, images=(open_image(image),))
        if prompt is not None and ask.messages:
            ask = replace(ask, messages=tuple(reworded(ask.messages, prompt)))
        elif prompt is not None:
            ask = replace(ask, prompt=prompt)
        return self.model.laid_out(ask)

    @checked
    def activations(self, position: int, kind: str = "ffn") -> Activations:
        """Activations at the position that predicts generated token ``position``.

        ``kind="ffn"``: recorded as the token was generated. ``kind="gate"``: the gate's output before it is
        multiplied, by one more pass, kept for later. Raises ``MethodError`` for a model without a separate gate.
        """
        key = (kind, position)
        if self.missing([position], kind):
            self.require_state(state_of(self.model))
            inputs = self.forced_inputs()
            self._extra[key] = self.model.record(inputs, rows=[self.row(position)], kind=kind)
        return self._extra[key] if key in self._extra else self.steps[position]

    @property
    def word_positions(self) -> list[int]:
        """The positions that predict the tokens of the text's nouns, and its first token."""
        return [0, *(position for concept in self.concepts for position in concept.positions)]

    def missing(self, positions: Iterable[int], kind: str = "ffn") -> list[int]:
        """Which of some positions are not recorded yet, each once; raises ``MethodError`` for what is no position."""
        if kind not in KINDS:
            raise MethodError(f"activation={kind!r} is unknown; choose one of {', '.join(KINDS)}.")
        wrong = [position for position in positions if not 0 <= position <= len(self.output_ids)]
        if wrong:
            raise MethodError(f"There is no position {wrong[0]}: this run has 0 to {len(self.output_ids)}.")
        steps = len(self.steps) if kind == "ffn" else 0
        return [one for one in dict.fromkeys(positions) if one >= steps and (kind, one) not in self._extra]

    def keep(self, positions: Sequence[int], recorded: Activations, kind: str = "ffn") -> None:
        """Keep what was recorded at positions, a row for each, by a pass over ``forced_inputs``."""
        for position, own in zip(positions, recorded.split([1] * len(positions)), strict=True):
            self._extra[kind, position] = own

    def require_state(self, now: State) -> None:
        """Raise ``MethodError`` where the model's state is no longer that in which the run was recorded.

        A run of which nothing is recorded yet is of the state ``now`` from here on.
        """
        changed = None if self.state is None else self.state.difference(now)
        if changed is not None:
            raise MethodError(f"This run was recorded in another state of {self.model.name}: {changed}. Run it again.")
        self.state = now

    def rows(self, rows: list[int], kind: str = "ffn") -> Activations:
        """Activations of many rows of the full sequence, by one more pass."""
        return self.model.record(self.forced_inputs(), rows=rows, kind=kind)

    @property
    def length(self) -> int:
        """The number of rows of the full sequence in the decoder."""
        inputs = self.forced_inputs()
        return inputs.get("decoder_input_ids", inputs["input_ids"]).shape[1]

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The text of the token at each row of the full sequence in the decoder, leading spaces kept; "" for none."""
        inputs = self.forced_inputs()
        ids = inputs.get("decoder_input_ids", inputs["input_ids"])[0].tolist()
        return tuple(self.model.tokenizer.decode([token]) if token >= 0 else "" for token in ids)

    @property
    def has_image_tokens(self) -> bool:
        """Whether the prompt holds tokens of an image."""
        seen = bool(self.images) and self.model.image_token_id in self.prompted.input_ids
        return seen and not self.model.is_encoder_decoder

    @property
    def image_rows(self) -> list[int]:
        """``image_positions``; none for a run without tokens of an image."""
        try:
            return self.image_positions.tolist()
        except PromptError:
            return []

    def row(self, position: int) -> int:
        """The row that predicts generated token ``position`` in a pass over the full sequence, from its end."""
        return position - len(self.output_ids) - 1

    def forced_inputs(self, upto: int | None = None) -> Inputs:
        """Inputs of one pass over the prompt and the first ``upto`` generated tokens (all by default)."""
        return self.model.extend(self.prompted.inputs, self.output_ids[:upto])

    @cached_property
    def image_positions(self) -> Tensor:
        """Positions of the image's tokens in the prompt, found where the input ids equal the image token.

        Kosmos-2 has none; its processor marks the places.
        """
        if self.model.is_encoder_decoder:
            raise PromptError("The image's tokens are read by this model's encoder; its decoder has no rows for them.")
        token, marked = self.model.image_token_id, self.prompted.inputs.get("image_embeds_position_mask")
        if self.images and marked is not None:
            return torch.nonzero(marked[0]).flatten()
        if not self.images or token is None:
            raise PromptError("This run has no image, or this model has no image tokens in its prompt.")
        ids = torch.tensor(self.prompted.input_ids)
        positions = torch.nonzero(ids == token).flatten()
        if len(positions) == 0:
            raise PromptError("The prompt of this run holds no image tokens.")
        return positions
