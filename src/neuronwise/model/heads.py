"""Attention heads: slices of what an attention module's output projection reads, found by structure.

The projection is one matrix (d, heads · size) that reads the heads' outputs side by side. Everything that an
architecture does to a head before (shared keys and values, latent attention, a gate, a norm) has been done by then, so
that what a head adds to the stream is its slice of the matrix times its slice of the input.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neuronwise.errors import MethodError, NeuronError
from neuronwise.model.anatomy import mixes_tokens
from neuronwise.model.blocks import Block
from neuronwise.model.passes import edit_input, inputs_of, stop_after
from neuronwise.model.prompt import Inputs
from neuronwise.model.weights import linear_shape
from neuronwise.model.writers import Site, Writer
from neuronwise.neurons import Head

if TYPE_CHECKING:
    from neuronwise.model.model import Model
    from neuronwise.model.passes import Change

_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "num_q_heads")
# Projections that read for the heads; where one of them maps d to d, only its name tells it from the output's.
_READS = re.compile(r"^w?(q|k|v|kv|qk|qkv|query|key|value|query_key_value|in|c_attn|gate)(_\w+)?$", re.IGNORECASE)
# Mixers whose parts are no heads of attention: recurrent ones, and pairs of heads that are subtracted.
_HEADLESS = re.compile(r"mamba|ssm|lstm|rnn|recurrent|rglru|conv|delta|retention|hyena|^diff", re.IGNORECASE)


@dataclass(frozen=True)
class Attention:
    """The heads of one attention module. Column c of ``writer``, its output projection, belongs to head c // size.

    ``first`` is the number of its first head in the layer, ``path`` the module's place there, ``kind`` its class.
    """

    writer: Writer
    first: int
    count: int
    path: str
    kind: str

    @property
    def size(self) -> int:
        """The width of one head's output."""
        return self.writer.width // self.count

    @property
    def site(self) -> Site:
        """Where what the heads write lands in the stream."""
        return self.writer.site

    @property
    def heads(self) -> tuple[Head, ...]:
        """Its heads, in order."""
        return tuple(Head(self.writer.layer, self.first + number) for number in range(self.count))

    def columns(self, head: Head) -> slice:
        """Those of the output projection that read one head."""
        start = (head.head - self.first) * self.size
        return slice(start, start + self.size)

    def apart(self, values: Tensor) -> Tensor:
        """(…, heads · size) → (…, heads, size)."""
        return values.unflatten(-1, (self.count, self.size))


def attentions(model: Model) -> tuple[Attention, ...]:
    """The attention modules of all layers whose heads can be told apart, in order of layer and definition."""
    return model.memo("attentions", lambda: tuple(one for block in model.blocks for one in _of_layer(model, block)))


def require_heads(model: Model) -> tuple[Attention, ...]:
    """``attentions``; raises ``MethodError``, naming the mixers, for a model of which no layer has heads."""
    found = attentions(model)
    if not found:
        first = next((one for one in headless(model)), None)
        what = "its layers hold no attention" if first is None else (
            f"{first[2]} (layer {first[0]}, '{first[1]}') has no output projection that reads them side by side"
        )  # fmt: skip
        raise MethodError(f"{model.name} has no attention heads that can be told apart: {what}.")
    return found


def attention_of(model: Model, head: Head) -> Attention:
    """The module of one head; raises ``NeuronError`` where the model has no such head."""
    own = [one for one in attentions(model) if one.writer.layer == head.layer]
    for one in own:
        if one.first <= head.head < one.first + one.count:
            return one
    count = sum(one.count for one in own)
    where = f"layer {head.layer} has {f'heads 0 to {count - 1}' if count else 'no attention heads'}"
    if head.layer >= model.num_layers:
        where = f"{model.name} has layers 0 to {model.num_layers - 1}"
    raise NeuronError(f"There is no head {head}: {where}.")


def headless(model: Model) -> list[tuple[int, str, str]]:
    """(layer, path, class) of the mixers of positions without heads."""
    own = {(one.writer.layer, one.path) for one in attentions(model)}
    return [
        (block.layer, path, type(module).__name__)
        for block in model.blocks
        for path, module in _mixers(block)
        if (block.layer, path) not in own
    ]


def _of_layer(model: Model, block: Block) -> Iterator[Attention]:
    first = 0
    for path, mixer in _mixers(block):
        found = _output_projection(path, mixer, block.hidden_size)
        if found is None or _HEADLESS.search(type(mixer).__name__):
            continue
        place, projection, width = found
        count = _head_count(model, block, place)
        if count is None or width % count:
            continue
        site = (block.layer, place)
        writer = Writer(block.layer, None, projection, 0, width, place, block.hidden_size, site)
        yield Attention(writer, first, count, path, type(mixer).__name__)
        first += count


def _mixers(block: Block) -> list[tuple[str, nn.Module]]:
    """The outermost mixers of positions in a layer."""
    found: list[tuple[str, nn.Module]] = []
    for path, module in block.module.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer, _ in found)
        if path and not inside and mixes_tokens(module) and any(True for _ in module.parameters()):
            found.append((path, module))
    return found


def _output_projection(path: str, mixer: nn.Module, hidden_size: int) -> tuple[str, nn.Module, int] | None:
    """The last linear module that maps to the stream and does not read for the heads: its path, itself, its inputs."""
    found, outermost = None, ""
    for name, module in mixer.named_modules():
        shape = linear_shape(module)
        if shape is None or (outermost and name.startswith(f"{outermost}.")):
            continue
        outermost = name  # what an adapter wraps is a part of it
        if shape[1] == hidden_size and not _READS.match(name.rpartition(".")[2]):
            found = (f"{path}.{name}", module, shape[0])
    return found


def _head_count(model: Model, block: Block, place: str) -> int | None:
    """Read from the modules around the projection, the nearest first, then from their or the decoder's settings."""
    around: list[object] = []
    while place:
        place = place.rpartition(".")[0]
        around.append(block.module.get_submodule(place))
    settings = [getattr(one, "config", None) for one in around]
    for owner in (*around[:-1], *settings, model.config.get_text_config(decoder=True)):
        for name in _COUNTS:
            value = getattr(owner, name, None)
            if isinstance(value, int) and value > 0:
                return value
    return None


@torch.no_grad()
def mixed(model: Model, inputs: Inputs, rows: Sequence[int]) -> dict[Attention, Tensor]:
    """(rows, heads · size) what each output projection read at some rows of one pass, in the model's precision."""
    found = attentions(model)
    with contextlib.ExitStack() as stack:
        seen = {
            one: stack.enter_context(inputs_of(one.writer.module, model.blocks[one.writer.layer].module))
            for one in found
        }
        stack.enter_context(stop_after(model.blocks[found[-1].writer.layer].module))
        model.forward(inputs, rows=[-1])
    return {one: kept[-1].reshape(-1, kept[-1].shape[-1])[list(rows)] for one, kept in seen.items()}


def edit_heads(model: Model, attention: Attention, change: Change) -> contextlib.AbstractContextManager[None]:
    """What the output projection reads passes through ``change`` in every pass of the body."""
    return edit_input(attention.writer.module, change, within=model.blocks[attention.writer.layer].module)
