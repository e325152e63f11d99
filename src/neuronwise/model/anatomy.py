"""Where a model keeps its feed-forward neurons, found by the structure of its modules.

No list of model names: the decoder is the stack of layers around the token embedding, and a layer's feed-forward
writers are the projections back to the hidden size (width f to d) that have a partner from the hidden size (d to f
or 2f) outside of every token-mixing module. Works on the meta device, so that an architecture can be judged without
weights; ``neuronwise.model.check`` then proves the finding by numbers on the real one.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from neuronwise.errors import ModelError
from neuronwise.model.blocks import Block
from neuronwise.model.weights import MERGE, linear_shape, lora_factors
from neuronwise.model.writers import Experts, Writer

# Modules whose output at one position depends on other positions: their projections are no feed-forward neurons.
_ATTENTION = re.compile(r"attention|attn", re.IGNORECASE)
_MIXER = re.compile(r"mamba|ssm|lstm|rnn|recurrent|rglru|conv|delta|retention|hyena|indexer|rotary", re.IGNORECASE)
# A name that ends in "feed-forward" wins over the second list (xLSTMFeedForward, NemotronHMLP ...).
_FEED_FORWARD = re.compile(r"(mlp|feed_?forward|ffn|experts?|expertglu|moe)$", re.IGNORECASE)
# Only consulted where shapes alone leave two readings (an expert's up and down weights of one shape).
_DOWN = re.compile(r"down|fc2|fc_out|c_proj|4h_to_h|^wo$|^w2$|lin2|output|linear_2|proj_out|w_out", re.IGNORECASE)
_NOT_TEXT = re.compile(r"vision|visual|image|audio|speech|codec|vq|depth_decoder|vit|qformer|perceiver", re.IGNORECASE)


@dataclass(frozen=True)
class Anatomy:
    """The decoder of a language model: its layers with their writers, and the hidden size d."""

    decoder_path: str
    hidden_size: int
    layers: tuple[Block, ...]

    @property
    def num_neurons(self) -> int:
        """The number of feed-forward neurons over all layers."""
        return sum(writer.width for parts in self.layers for writer in parts.writers)


def dissect(module: nn.Module) -> Anatomy:
    """Find the decoder layers and feed-forward writers of ``module``; raises ``ModelError`` saying why it cannot."""
    decoder_path, decoder = _decoder(module)
    stack_path, stack = _layer_stack(decoder)
    hidden_size = _hidden_size(decoder.get_submodule(stack_path.rpartition(".")[0]), decoder, module)
    prefix = ".".join(part for part in (decoder_path, stack_path) if part)
    layers = []
    for number, layer in enumerate(stack):
        layers.append(_parts(number, f"{prefix}.{number}", layer, hidden_size))
    if any(_packed(part) for part in stack.modules()):
        raise ModelError(
            f"The experts of {type(module).__name__} are packed in MXFP4, so single neurons cannot be read; load it "
            "with quantization_config=transformers.Mxfp4Config(dequantize=True)."
        )
    if not any(parts.writers for parts in layers):
        mixers = sorted({type(m).__name__ for m in stack.modules() if mixes_tokens(m)})
        what = f" (its layers hold {', '.join(mixers[:3])})" if mixers else ""
        raise ModelError(
            f"{type(module).__name__} has no addressable feed-forward neurons: none of its decoder layers projects "
            f"from an inner width back to the hidden size {hidden_size} outside of token mixing{what}."
        )
    return Anatomy(decoder_path, hidden_size, tuple(layers))


def uncompiled(module: nn.Module) -> nn.Module:
    """The module under ``torch.compile``; raises ``ModelError`` where only parts are compiled, or in place.

    Compiled code may leave out hooks, by which activations are read and changed.
    """
    module = getattr(module, "_orig_mod", module)
    for name, part in module.named_modules():
        if hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) is not None:
            raise ModelError(
                f"{f'The part {name!r} of ' if name else ''}{type(module).__name__} is compiled (torch.compile), and "
                "compiled code does not run hooks reliably; wrap the model before compiling it."
            )
    return module


def holds_feed_forward_parts(module: nn.Module) -> bool:
    """Whether any part is called a feed-forward block: then neurons may exist that ``dissect`` did not find."""
    return any(
        _FEED_FORWARD.search(type(part).__name__) for name, part in module.named_modules() if not _NOT_TEXT.search(name)
    )


def _decoder(module: nn.Module) -> tuple[str, nn.Module]:
    """The smallest module around the token embedding that also holds a stack of layers."""
    config = getattr(module, "config", None)
    paths = {id(m): name for name, m in module.named_modules()}
    if getattr(config, "is_encoder_decoder", False) or _inner_encoder_decoder(module) is not None:
        owner = module if getattr(config, "is_encoder_decoder", False) else _inner_encoder_decoder(module)
        decoder = owner.get_decoder()  # type: ignore[union-attr]
        return paths.get(id(decoder), ""), decoder
    embedding = _token_embedding(module)
    path = paths.get(id(embedding), "") if embedding is not None else ""
    while path:
        path = path.rpartition(".")[0]
        if path.rpartition(".")[2].endswith("encoder"):  # a part that reads for the decoder (BLT's bytes)
            continue
        candidate = module.get_submodule(path)
        if any(_is_stack(name, child) for name, child in candidate.named_modules()):
            return path, candidate
    return "", module


def _token_embedding(module: nn.Module) -> nn.Module | None:
    try:
        return module.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError, TypeError):
        return next((m for m in module.modules() if isinstance(m, nn.Embedding)), None)


def _inner_encoder_decoder(module: nn.Module) -> nn.Module | None:
    """The encoder-decoder language model inside an image-text model (BLIP-2 with T5), if there is one."""
    inner = getattr(module, "language_model", None)
    if inner is not None and getattr(getattr(inner, "config", None), "is_encoder_decoder", False):
        return inner
    return None


def _is_stack(name: str, module: nn.Module) -> bool:
    if not isinstance(module, nn.ModuleList) or len(module) == 0 or _NOT_TEXT.search(name):
        return False
    return any(parameter.dim() >= 2 for parameter in module[0].parameters())


def _layer_stack(decoder: nn.Module) -> tuple[str, nn.ModuleList]:
    """The outermost ModuleList with the most parameters: the layers. Of several alike, the one called a decoder."""
    outermost: list[tuple[str, nn.ModuleList]] = []
    for name, child in decoder.named_modules():
        if isinstance(child, nn.ModuleList) and _is_stack(name, child):
            if any(name.startswith(f"{other}.") for other, _ in outermost):
                continue
            outermost.append((name, child))
    if not outermost:
        raise ModelError(f"{type(decoder).__name__} has no stack of decoder layers, so it has no addressable neurons.")
    largest = max(outermost, key=lambda item: sum(p.numel() for p in item[1].parameters()))
    alike = [item for item in outermost if type(item[1][0]) is type(largest[1][0])]
    if len(alike) == 1:
        return largest
    named = [item for item in alike if "decoder" in item[0]]
    if len(named) == 1:
        return named[0]
    raise ModelError(
        f"{type(decoder).__name__} has several stacks of layers ({', '.join(name for name, _ in alike)}) that take "
        "turns within one pass, so its neurons have no one layer and no one activation."
    )


def _hidden_size(*owners: nn.Module) -> int:
    """Read from the configuration of the first of ``owners`` that has it."""
    for owner in owners:
        config = getattr(owner, "config", None)
        if config is not None and hasattr(config, "get_text_config"):
            config = config.get_text_config(decoder=True)
        for name in ("hidden_size", "d_model", "n_embd"):
            if isinstance(getattr(config, name, None), int):
                return getattr(config, name)
    raise ModelError(f"The hidden size of {type(owners[-1]).__name__} cannot be read from its configuration.")


def _parts(number: int, path: str, layer: nn.Module, hidden_size: int) -> Block:
    """Number what ``_found`` finds: units over the dense writers, experts over all that are routed."""
    dense, routed = _found(layer, hidden_size)
    writers, first = [], 0
    for linear in dense:
        lora_factors(linear.module)  # refuses what cannot be read
        site = (number, linear.path)
        writers.append(Writer(number, None, linear.module, first, linear.inputs, linear.path, hidden_size, site))
        first += linear.inputs
    experts, first = [], 0
    for one in routed:
        group = one(number, first, layer)
        experts.append(group)
        for expert in group.linears:
            lora_factors(expert)
        writers += group.writers
        first += group.count
    return Block(number, path, layer, writers, experts, hidden_size)


class _Linear(NamedTuple):
    path: str
    module: nn.Module
    inputs: int
    outputs: int


@dataclass(frozen=True)
class _Routed:
    """Experts before they are numbered."""

    path: str
    module: nn.Module
    count: int
    width: int
    hidden_size: int
    parameter: str | None = None
    transposed: bool = False
    linears: tuple[nn.Module, ...] = ()

    def __call__(self, layer: int, first: int, within: nn.Module) -> Experts:
        around = self.path.rpartition(".")[0]
        unit, unit_path = self.module, self.path
        if not _called_by_token(self.module):
            unit, unit_path = within.get_submodule(around), around
        return Experts(
            layer, self.path, self.module, first, self.count, self.width, self.hidden_size, unit, unit_path,
            self.parameter, self.transposed, self.linears,
        )  # fmt: skip


def _called_by_token(experts: nn.Module) -> bool:
    """Whether the experts' module takes its arguments by token.

    Experts that take the hidden states alone (Llama 4's get one copy for each expert) or have no forward of their own
    (a plain ModuleList) are called through the module around them.
    """
    if isinstance(experts, nn.ModuleList | nn.ModuleDict) and type(experts).__module__.startswith("torch"):
        return False
    holds_router = any("router" in name.lower() or name.lower() == "gate" for name, _ in experts.named_children())
    return holds_router or len(inspect.signature(experts.forward).parameters) > 1


def _found(layer: nn.Module, hidden_size: int) -> tuple[list[_Linear], list[_Routed]]:
    linears: list[_Linear] = []
    routed: list[_Routed] = []
    inside: list[str] = []
    for path, module in _outside_mixers(layer):
        if any(path.startswith(f"{outer}.") for outer in inside):
            continue
        experts = _fused_experts(path, module, hidden_size) or _listed_experts(path, module, hidden_size)
        if experts is not None:
            _require_no_adapter(layer, path)
            routed.append(experts)
            inside.append(path)
            continue
        if re.search(r"experts?$", type(module).__name__, re.IGNORECASE) and _own_weights(module):
            # Experts that write into a space of their own (MuseSpark's): what surrounds them holds no neurons either.
            linears = [item for item in linears if item.path.rpartition(".")[0] != path.rpartition(".")[0]]
            inside += [path, path.rpartition(".")[0] or path]
            continue
        shape = linear_shape(module)
        if shape is not None:
            linears.append(_Linear(path, module, *shape))
            inside.append(path)  # what an adapter wraps is a part of it
    dense = list(_dense_writers(linears, hidden_size))
    if any(writer.inputs >= hidden_size for writer in dense):
        # Beside a full block, a narrow bottleneck is an adapter or a low-rank shortcut, unless it is an expert.
        dense = [w for w in dense if w.inputs >= hidden_size or "expert" in w.path]
    return dense, routed


def _require_no_adapter(layer: nn.Module, path: str) -> None:
    """Raise ``ModelError`` where an adapter acts on the parameter of fused experts (PEFT's ``target_parameters``)."""
    while path:
        path = path.rpartition(".")[0]
        around = layer.get_submodule(path)
        if isinstance(getattr(around, "base_layer", None), nn.Module):
            lora = any(True for name in around.adapter_layer_names if len(getattr(around, name)))  # type: ignore[union-attr]
            if lora and not getattr(around, "merged", False) and not getattr(around, "disable_adapters", False):
                raise ModelError(f"An adapter acts on the routed experts at '{path}', which cannot be read. {MERGE}")


def _outside_mixers(layer: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in layer.named_children():
        path = f"{prefix}.{name}" if prefix else name
        if mixes_tokens(child) or "norm" in name.lower():
            continue
        yield path, child
        yield from _outside_mixers(child, path)


def _own_weights(module: nn.Module) -> bool:
    return any(p.dim() == 3 for p in module.parameters(recurse=False))


def mixes_tokens(module: nn.Module) -> bool:
    """Whether what a module returns at one position depends on other positions."""
    kind = type(module).__name__
    if linear_shape(module) is not None or _holds_feed_forward(module):
        return False  # a whole layer (ZambaAttentionDecoderLayer) holds more than its mixer
    return bool(_ATTENTION.search(kind) or (_MIXER.search(kind) and not _FEED_FORWARD.search(kind)))


def _holds_feed_forward(module: nn.Module) -> bool:
    return any(_FEED_FORWARD.search(type(child).__name__) for child in module.children())


def _dense_writers(linears: list[_Linear], hidden_size: int) -> Iterator[_Linear]:
    """Those linears of width f to d that have a partner of d to f, or d to 2f, beside or around them."""
    for index, linear in enumerate(linears):
        path, _, width, out = linear
        if out != hidden_size or width == 1:
            continue
        family = path.rpartition(".")[0]
        around = family.rpartition(".")[0]
        partners = [
            other
            for other, (other_path, _, inputs, outputs) in enumerate(linears)
            if other != index
            and inputs == hidden_size
            and outputs in (width, 2 * width)
            and (other_path.rpartition(".")[0] == family or other_path.startswith(f"{around}." if around else ""))
        ]
        if not partners:
            continue
        name = path.rpartition(".")[2]
        if width == hidden_size and (
            name in ("o_proj", "out_proj") or (not _DOWN.search(name) and index < max(partners))
        ):
            continue  # two square projections: the later one writes, and an attention's output is none
        yield linear


def _fused_experts(path: str, module: nn.Module, hidden_size: int) -> _Routed | None:
    """Experts whose weights are one parameter: (E, d, f), (E, f, d), or (E·f, d) with ``ffn_hidden_size`` given."""
    if _packed(module):  # its scales have an expert's dimensions, but are no weights
        return None
    own = {n: p for n, p in module.named_parameters(recurse=False) if p.dim() == 3 and min(p.shape[1:]) > 1}
    for name, child in module.named_children():  # JetMoE wraps each of the two parameters in a module of its own
        inner = [(n, p) for n, p in child.named_parameters(recurse=False) if p.dim() == 3 and min(p.shape[1:]) > 1]
        if len(inner) == 1 and not own.get(name):
            own[f"{name}.{inner[0][0]}"] = inner[0][1]
    if own and linear_shape(module) is None:
        downs = [n for n in own if _DOWN.search(n)] or list(own)[-1:]
        for name in downs:
            experts, rows, columns = own[name].shape
            others = [p.shape for n, p in own.items() if n != name]
            if not others or hidden_size not in (rows, columns):
                continue
            transposed = rows != hidden_size if rows != columns else bool(getattr(module, "is_transposed", False))
            width = rows if transposed else columns
            if any(width in shape[1:] or 2 * width in shape[1:] for shape in others):
                return _Routed(path, module, experts, width, hidden_size, name, transposed)
    for owner, child in module.named_children():  # DBRX's container hands flat slices to the module that holds them
        flat = {n: p for n, p in child.named_parameters(recurse=False) if p.dim() == 2}
        width = getattr(child, "ffn_hidden_size", None)
        if len(flat) >= 2 and width and linear_shape(child) is None and _FEED_FORWARD.search(type(child).__name__):
            name = ([n for n in flat if _DOWN.search(n)] or list(flat))[-1]
            rows, columns = flat[name].shape
            if columns == hidden_size and rows % width == 0:
                return _Routed(path, module, rows // width, width, hidden_size, f"{owner}.{name}", True)
    return None


def _packed(module: nn.Module) -> bool:
    return type(module).__name__.startswith("Mxfp4")


def _listed_experts(path: str, module: nn.Module, hidden_size: int) -> _Routed | None:
    """A ModuleList or ModuleDict of alike feed-forward modules that are called for the tokens routed to them."""
    if not isinstance(module, (nn.ModuleList, nn.ModuleDict)) or not re.search("expert", path, re.IGNORECASE):
        return None
    if "shared" in path.lower():  # every token passes all of these: dense writers
        return None
    members = list(module.values()) if isinstance(module, nn.ModuleDict) else list(module)
    writers = []
    for member in members:
        inner = list(_linears_of(member))
        found = list(_dense_writers(inner, hidden_size))
        if len(found) != 1:
            return None
        writers.append(found[0])
    if not writers or len({w.inputs for w in writers}) != 1:
        return None
    linears = tuple(w.module for w in writers)
    return _Routed(path, module, len(writers), writers[0].inputs, hidden_size, linears=linears)


def _linears_of(module: nn.Module) -> Iterator[_Linear]:
    """The linear modules inside, outermost ones alone."""
    inside: list[str] = []
    for path, part in module.named_modules():
        shape = linear_shape(part)
        if shape is not None and not any(path.startswith(f"{outer}.") for outer in inside):
            inside.append(path)
            yield _Linear(path, part, *shape)
