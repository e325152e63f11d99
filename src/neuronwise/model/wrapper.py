"""A loaded transformers model seen uniformly: its neurons, its unembedding, one pass and one generation."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from threading import RLock
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.utils.generic import ModelOutput

from neuronwise.errors import ModelError, NeuronError, PromptError, told
from neuronwise.files import shareable
from neuronwise.images import ImageLike
from neuronwise.model.anatomy import dissect, uncompiled
from neuronwise.model.chat import Message
from neuronwise.model.check import require_readable, require_sums
from neuronwise.model.gate import GateRecorder
from neuronwise.model.generation import as_set, greedy_settings
from neuronwise.model.lock import alone, lock_of
from neuronwise.model.norms import last_norm
from neuronwise.model.passes import Rows, only_rows, stop_after
from neuronwise.model.prompt import Ask, Inputs, Preface, Prompted, asked_of, before_prompts, lay_out
from neuronwise.model.record import Activations, Recorder, require_complete
from neuronwise.model.stop import StoppingTexts
from neuronwise.model.weights import cast_routers, dtype_of, keep_readable, output_head, plain_weight
from neuronwise.model.writers import Writer
from neuronwise.neurons import Neuron

T = TypeVar("T")

EDITS = "_neuronwise_edits"  # where ``home`` keeps the ledger of the edits


class Wrapper:
    """A transformers model and its processor or tokenizer, as far as single passes go; ``Model`` adds runs.

    At construction a check runs that activations and value vectors reproduce what each feed-forward block really
    writes; raises ``ModelError`` when they do not.
    """

    tagger = "pattern"

    def __init__(
        self, module: nn.Module, processor: Any = None, *, name: str | None = None, check: bool = True
    ) -> None:
        if not isinstance(module, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ModelError(f"{module!r:.80} is not a loaded model; open it by its name with neuronwise.load.")
        module = uncompiled(module)
        self.module: Any = module.eval()  # its attributes are the architecture's, unknown to a type checker
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.config: Any = getattr(module, "config", None)
        self.name = shareable(name or getattr(self.config, "name_or_path", "") or type(module).__name__)
        self.source = self.name
        self.anatomy = dissect(module)
        self.blocks = list(self.anatomy.layers)
        self.head = output_head(module)
        self._memos: dict[Hashable, object] = {}
        keep_readable(module)
        cast_routers(module)
        if check:
            require_readable(self.name, self.head, self.hidden_size)
            require_sums(self.name, module, self.blocks, self.device)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, layers={self.num_layers}, neurons={self.num_neurons})"

    @property
    def num_layers(self) -> int:
        """The number of decoder layers."""
        return len(self.blocks)

    @property
    def num_neurons(self) -> int:
        """The number of feed-forward neurons over all decoder layers."""
        return self.anatomy.num_neurons

    @property
    def hidden_size(self) -> int:
        """d, the width of the residual stream."""
        return self.anatomy.hidden_size

    @property
    def vocabulary_size(self) -> int:
        """V, the number of rows of the unembedding."""
        return self.unembedding.shape[0]

    @property
    def edits(self) -> tuple[object, ...]:
        """The edits that are applied now, in the order in which they were."""
        ledger = self.home.__dict__.get(EDITS)
        return () if ledger is None else ledger.edits

    @property
    def prefaces(self) -> tuple[Preface, ...]:
        """What the edits put before every prompt, in their order."""
        return tuple(preface for edit in self.edits for preface in getattr(edit, "prefaces", ()))

    @property
    def home(self) -> nn.Module:
        """The first decoder layer, which is the same whatever wraps it: what belongs to the weights is kept there."""
        return self.blocks[0].module

    @property
    def lock(self) -> RLock:
        """Held by the thread that uses the model; others wait."""
        return lock_of(self.home)

    @property
    def unembedding(self) -> Tensor:
        """(V, d): the output embeddings U."""
        return plain_weight(self.head)

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether an encoder reads the prompt and the decoder has tokens of its own."""
        inner = getattr(self.module, "language_model", None)
        configs = (self.config, getattr(inner, "config", None))
        return any(bool(getattr(config, "is_encoder_decoder", False)) for config in configs)

    @property
    def device(self) -> torch.device:
        """Where inputs go: the device of the token embeddings, or where accelerate computes them when offloaded."""
        embeddings = self.module.get_input_embeddings()
        device = next(p.device for p in embeddings.parameters())
        hook = getattr(embeddings, "_hf_hook", None)
        return torch.device(hook.execution_device) if device.type == "meta" and hook is not None else device

    @property
    def image_token_id(self) -> int | None:
        """The token that marks an image's positions in the prompt; None without one."""
        for owner in (self.config, self.processor):
            for name in ("image_token_id", "image_token_index"):
                if isinstance(getattr(owner, name, None), int):
                    return getattr(owner, name)
        return None

    @cached_property
    def writers(self) -> tuple[Writer, ...]:
        """Every matrix of value vectors, in the order (layer, expert, first): all neurons, each once."""
        return tuple(writer for block in self.blocks for writer in block.writers)

    @cached_property
    def final_norm(self) -> nn.Module | None:
        """The norm before the output head; None for a model without one."""
        return last_norm(self.module.get_submodule(self.anatomy.decoder_path), self.blocks, self.hidden_size)

    def writer(self, neuron: Neuron) -> Writer:
        """The writer whose column a neuron is; raises ``NeuronError`` when the model has no such neuron."""
        if not 0 <= neuron.layer < self.num_layers:
            raise NeuronError(f"There is no neuron {neuron}: {self.name} has layers 0 to {self.num_layers - 1}.")
        return self.blocks[neuron.layer].writer(neuron)

    @property
    def stop(self) -> StoppingTexts:
        """The texts at which an answer ends, by the generation settings as they are now."""
        return StoppingTexts.of(self.module, self.tokenizer)

    def by_writer(self, neurons: Iterable[Neuron]) -> dict[Writer, list[Neuron]]:
        """Neurons by the writer whose columns they are; raises ``NeuronError`` for one that the model lacks."""
        groups: dict[Writer, list[Neuron]] = {}
        for neuron in neurons:
            groups.setdefault(self.writer(neuron), []).append(neuron)
        return groups

    def memo(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` gave the first time it was asked for under ``key``, as long as this wrapper lives.

        Nothing is forgotten when weights change: a value that depends on them has what changes them in its key.
        """
        if key not in self._memos:
            self._memos[key] = make()
        return self._memos[key]  # type: ignore[return-value]

    def latest(self, key: Hashable, state: Hashable, make: Callable[[], T]) -> T:
        """As ``memo``, of a value that depends on a state: kept until it is asked for in another."""
        kept: Any = self._memos.get(key)
        if kept is None or kept[0] != state:
            kept = self._memos[key] = state, make()
        return kept[1]

    def remembers(self, key: Hashable) -> bool:
        """Whether ``memo`` has been asked for ``key``."""
        return key in self._memos

    def decode_ids(self, ids: Sequence[int]) -> str:
        """The text of some tokens, without special ones."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def prepare(
        self,
        image: ImageLike | Sequence[ImageLike] | None = None,
        prompt: str | None = None,
        chat: bool | None = None,
        *,
        messages: Sequence[Message] | None = None,
        template: Mapping[str, object] | None = None,
        whole: bool = True,
        bare: bool = False,
    ) -> tuple[Prompted, Image.Image | None]:
        """The prompt as ``run`` lays it out, and the opened image where it is one; no pass; raises as ``run`` does.

        ``whole=False``: it is read in parts and may be longer than the model reads. ``bare=True``: without what edits
        put before prompts."""
        return self.laid_out(Ask.of(image, prompt, chat, messages, template), whole, bare)

    def laid_out(self, ask: Ask, whole: bool = True, bare: bool = False) -> tuple[Prompted, Image.Image | None]:
        """``prepare`` of what is to be asked."""
        if self.tokenizer is None:
            raise ModelError("This model has no tokenizer or processor; wrap it as Model(module, processor).")
        model_type = getattr(self.config, "model_type", "")
        with told(PromptError, f"The processor of {self.name} cannot lay out {asked_of(ask.images)}"):
            before = "" if bare else before_prompts(self.prefaces)
            prompted = lay_out(self.processor, self.tokenizer, model_type, ask, self.is_encoder_decoder, before)
        self.require_ids(prompted.input_ids if whole else prompted.input_ids[: self.longest])
        if not ask.images and self.image_token_id is not None and self.image_token_id in prompted.input_ids:
            raise PromptError("The prompt has the place of an image, but no image is given; give one, or leave it out.")
        return prompted, ask.images[0] if len(ask.images) == 1 else None

    @property
    def longest(self) -> int | None:
        """The most tokens that the model has positions for, prompt and answer together; None where none is known."""
        most = getattr(self.config.get_text_config(decoder=True), "max_position_embeddings", None)
        return most if isinstance(most, int) and most > 0 else None

    def require_ids(self, ids: Sequence[int]) -> None:
        """Raise ``PromptError`` for a prompt that is too long, or that the tokenizer wrote for another model."""
        if self.longest is not None and self.longest < len(ids):
            raise PromptError(f"The prompt has {len(ids)} tokens; {self.name} reads at most {self.longest}.")
        known = self.module.get_input_embeddings().weight.shape[0]
        # An image token may be outside the vocabulary: the image's features take its place.
        largest = max((token for token in ids if token != self.image_token_id), default=0)
        if largest >= known:
            raise PromptError(
                f"The tokenizer gives token {largest}, but {self.name} has embeddings for {known}: "
                "they do not belong together."
            )

    def greedy(self, max_new_tokens: int, after: int = 0) -> GenerationConfig:
        """Settings for greedy generation; texts at which an answer ends are left to ``stop``.

        It ends where the model's positions do, ``after`` being the tokens of the prompt; raises ``PromptError`` where
        none is left.
        """
        if self.longest is not None:
            room = self.longest - (1 if self.is_encoder_decoder else after)
            if room < min(max_new_tokens, 1):
                raise PromptError(f"The prompt takes all {self.longest} positions of {self.name}; nothing can follow.")
            max_new_tokens = min(max_new_tokens, room)
        return greedy_settings(self.module.generation_config, max_new_tokens)

    def generate(self, inputs: Inputs, settings: GenerationConfig, **more: Any) -> Any:
        """What transformers' ``generate`` returns by these settings alone."""
        module = self.reader(inputs)
        with self.lock, as_set(module, settings):
            return module.generate(**self.placed(inputs), **more, generation_config=settings)

    def extend(self, inputs: Inputs, output_ids: Sequence[int]) -> Inputs:
        """Inputs of one pass over the prompt's ``inputs`` followed by ``output_ids`` (the decoder's, if it has two)."""
        added = torch.tensor([list(output_ids)], dtype=torch.long)
        if self.is_encoder_decoder:
            start = self._decoder_start()
            return {**inputs, "decoder_input_ids": torch.cat([torch.tensor([[start]]), added], dim=1)}
        if not output_ids:
            return dict(inputs)
        length = inputs["input_ids"].shape[1]
        longer = {name: value for name, value in inputs.items() if name != "input_ids"}
        for _ in output_ids:  # masks and types of generated tokens as the model's own generation has them
            longer = self.module._update_model_kwargs_for_generation(ModelOutput(), longer, False)
        for name, value in longer.items():
            if isinstance(value, Tensor) and value.dim() >= 2 and value.shape[:2] == (1, length):
                longer[name] = torch.cat([value, value[:, -1:].expand(1, len(output_ids), *value.shape[2:])], dim=1)
        return {"input_ids": torch.cat([inputs["input_ids"], added], dim=1), **longer}

    def _decoder_start(self) -> int:
        inner = getattr(self.module, "language_model", self.module)
        for owner in (getattr(self.module, "generation_config", None), self.config, getattr(inner, "config", None)):
            for name in ("decoder_start_token_id", "bos_token_id"):
                if isinstance(getattr(owner, name, None), int):
                    return getattr(owner, name)
        return 0

    def forward(self, inputs: Inputs, rows: Rows | None = None) -> Tensor:
        """Logits (batch, rows, V) of one pass without cache; only ``rows`` pass the output head (all for ``None``).

        With one list of rows for each sequence of the batch, logits are (1, all of them, V), one after another.
        The logits are what the model returns: after any scale and soft cap of the architecture.
        """
        with self.lock, only_rows(self, rows):
            output = self.reader(inputs)(**self.placed(inputs), use_cache=False)
        logits = output.logits if hasattr(output, "logits") else output[0]
        return logits

    def reader(self, inputs: Inputs) -> Any:
        """The module to call with ``inputs``: of one that must have an image (BLIP-2) the decoder alone, for a text."""
        inner = getattr(self.module, "language_model", None)
        if inner is None or any("pixel" in name for name in inputs):
            return self.module
        pixels = inspect.signature(self.module.forward).parameters.get("pixel_values")
        needed = pixels is not None and pixels.default is inspect.Parameter.empty
        return inner if needed and inner.get_output_embeddings() is self.head else self.module

    @alone
    def record(
        self,
        inputs: Inputs,
        rows: Rows | None = None,
        units: dict[int, Tensor] | None = None,
        kind: str = "ffn",
    ) -> Activations:
        """Activations of chosen rows and units in one pass over ``inputs``; ``kind`` "ffn" or "gate".

        With one list of rows for each sequence of the batch, one sequence's after another. The pass ends after the last
        layer that is asked for; of all units, the stream behind it is recorded too.
        """
        recording, sequences = Recorder if kind == "ffn" else GateRecorder, len(inputs["input_ids"])
        recorder = recording(self.blocks, rows, units, sequences=sequences)
        if kind == "ffn" and units is None:
            recorder.final_norm = self.final_norm
        ending = contextlib.nullcontext() if recorder.final_norm else stop_after(recorder.blocks[-1].module)
        with recorder, torch.no_grad(), ending:
            self.forward(inputs, rows=[-1])
        require_complete(recorder.passes, recorder.blocks, 1)
        return recorder.activations(0)

    def placed(self, inputs: Inputs) -> Inputs:
        """Inputs on the model's device, pixels in its dtype."""
        dtype = dtype_of(self.module)
        return {
            name: value.to(self.device, dtype if value.is_floating_point() and "pixel" in name else value.dtype)
            for name, value in inputs.items()
        }
