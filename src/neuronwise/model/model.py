"""One uniform view of any Hugging Face language or image-text model: its neurons, its unembedding, its runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Unpack, overload

from PIL import Image

from neuronwise.errors import ModelError, NeuronwiseError
from neuronwise.images import ImageLike
from neuronwise.model.chat import Message
from neuronwise.model.halving import BatchSize, require_size
from neuronwise.model.lock import alone
from neuronwise.model.many import Asked, Each, Many, Said, Saying, each, say, say_all
from neuronwise.model.modes import computes
from neuronwise.model.prompt import Prompted, exact_tokens
from neuronwise.model.recorded import record_together
from neuronwise.model.run import Run
from neuronwise.model.state import Opened, state_of
from neuronwise.model.wrapper import Wrapper


class Model(Wrapper):
    """Wraps a loaded transformers model and its processor or tokenizer; nothing in the model is changed.

    ``blocks[l].value_vectors`` is the (d, f) view of layer l's W_down; ``num_layers`` counts decoder layers,
    ``num_neurons`` the decoder's feed-forward neurons over all layers. At construction a check runs that activations
    and value vectors reproduce what each feed-forward block really writes; raises ``ModelError`` when they do not. Of a
    model under ``torch.compile`` ``module`` is the uncompiled one. ``tagger`` names the noun tagger of what it says:
    set it for a model that does not speak English. ``name``: in records, without folders; ``source`` opens it again,
    with the options in ``opened`` where ``load`` opened it.
    """

    opened: Opened | None = None

    @computes
    def run(
        self,
        image: ImageLike | Sequence[ImageLike] | None = None,
        prompt: str | None = None,
        *,
        messages: Sequence[Message] | None = None,
        template: Mapping[str, object] | None = None,
        text: str | None = None,
        max_new_tokens: int = 50,
        chat: bool | None = None,
        heat: bool = False,
    ) -> Run:
        """Generate greedily with the key-value cache, recording at each step only the last position's activations.

        With ``text`` nothing is generated: the run is that of the prompt followed by this text, exactly as written.
        ``image`` is a path, a PIL image or an array, ``None`` for text alone, a list for several where the model's
        processor takes them; ``prompt=None`` asks in the model's own habit. ``messages`` are a whole conversation in
        place of a prompt, with ``template`` for options of the chat template (``{"enable_thinking": False}``);
        ``Run.rendered`` is what was really asked. ``chat=None`` applies the chat template where the tokenizer has one.
        ``max_new_tokens=0`` runs one forward pass, whose last position predicts. ``heat`` also keeps the activations at
        the image's tokens, so that heatmaps need no pass of their own, unless they would take more than ``HEAT_SHARE``
        of the weights' memory.
        Raises ``ImageError`` and ``PromptError``, ``TargetError`` for an empty text.
        """
        self._require_length(max_new_tokens)
        prompted, picture = self.prepare(image, prompt, chat, messages=messages, template=template)
        if prompted.note is not None:
            warnings.warn(prompted.note, stacklevel=3)
        if text is not None:
            return self._forced(prompted, picture, text, max_new_tokens)
        return self.run_prompted(prompted, picture, max_new_tokens=max_new_tokens, heat=heat)

    @alone
    def run_prompted(
        self, prompted: Prompted, picture: Image.Image | None = None, *, max_new_tokens: int = 50, heat: bool = False
    ) -> Run:
        """``run`` on a prompt that is laid out already."""
        self._require_length(max_new_tokens)
        how = Saying(max_new_tokens, heat)
        return self._run_of(prompted, picture, say(self, [(prompted, picture)], how)[0], how)

    @overload
    def run_many(self, *each: Each, errors: Literal["return"], **how: Unpack[Many]) -> list[Run | NeuronwiseError]: ...
    @overload
    def run_many(self, *each: Each, errors: Literal["raise"] = "raise", **how: Unpack[Many]) -> list[Run]: ...
    @computes
    def run_many(
        self,
        images: Sequence[ImageLike | Sequence[ImageLike] | None] | None = None,
        prompts: str | Sequence[str | None] | None = None,
        texts: Sequence[str | None] | None = None,
        *,
        errors: Literal["raise", "return"] = "raise",
        batch_size: BatchSize = "auto",
        max_new_tokens: int = 50,
        chat: bool | None = None,
        heat: bool = False,
        record: bool = True,
        progress: Callable[[int, int], object] | None = None,
    ) -> list[Run] | list[Run | NeuronwiseError]:
        """The runs that ``run`` gives one by one, in their order, in batches.

        One of each for every run: ``images``, ``prompts`` (a single one is for all), ``texts`` that are forced in place
        of generated ones. A batch holds prompts that give together what they give alone, as far as single precision
        tells; where an architecture has none such, each is run by itself. ``batch_size``: the most in one; "auto"
        begins with 16 (64 on an accelerator), halves a batch that does not fit into memory, and remembers.
        ``errors="return"``: the error of a photo or prompt that fails is in its run's place. ``record=False`` keeps no
        activations: they take a pass of their own if they are asked for. ``progress(done, all)`` is called as batches
        end. Raises as ``run`` does, ``PromptError`` for lists of several lengths.
        """
        self._require_length(max_new_tokens)
        members = each(images, prompts, texts)
        require_size(batch_size)
        found: dict[int, Run | NeuronwiseError] = {}
        asked: dict[int, Asked] = {}
        for number, (image, prompt, text) in enumerate(members):
            try:
                asked[number] = prompted, picture = self.prepare(image, prompt, chat)
                if text is not None:
                    found[number] = self._forced(prompted, picture, text, max_new_tokens)
            except NeuronwiseError as error:
                if errors == "raise":
                    raise
                found[number] = error
        for note in dict.fromkeys(prompted.note for prompted, _ in asked.values() if prompted.note is not None):
            warnings.warn(note, stacklevel=3)
        if record:
            forced = [run for run in found.values() if isinstance(run, Run)]
            record_together([(run, run.word_positions) for run in forced], size=batch_size)
        numbers = [number for number in asked if number not in found]
        how = Saying(max_new_tokens, heat, record)
        for place, said in say_all(self, [asked[number] for number in numbers], how, batch_size):
            number = numbers[place]
            if errors == "raise" and isinstance(said, NeuronwiseError):
                raise said
            found[number] = said if isinstance(said, NeuronwiseError) else self._run_of(*asked[number], said, how)
            if progress is not None:
                progress(len(found), len(members))
        return [found[number] for number in range(len(members))]

    def _run_of(self, prompted: Prompted, picture: Image.Image | None, said: Said, how: Saying) -> Run:
        made = Run.of(self, prompted, said.ids, picture, max_new_tokens=how.length)
        if how.record:
            made.steps, made.seen, made.state = said.steps, said.seen, state_of(self)
        if said.likeliest is not None:
            made.answer = said.likeliest
        return made

    def _forced(self, prompted: Prompted, picture: Image.Image | None, text: str, max_new_tokens: int) -> Run:
        said = exact_tokens(self.tokenizer, self.vocabulary_size, text, role="text").token_ids
        self.require_ids([*prompted.input_ids, *said])
        return Run.of(self, prompted, said, picture, max_new_tokens=max_new_tokens)

    def _require_length(self, max_new_tokens: int) -> None:
        if max_new_tokens < 0:
            raise ModelError(f"max_new_tokens is {max_new_tokens}; it counts tokens, so 0 or more.")
        if max_new_tokens and getattr(self.module, "generation_config", None) is None:
            raise ModelError(f"{self.name} does not generate; run it with max_new_tokens=0.")
