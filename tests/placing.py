"""Tiny models of many families with their real processors, in which no position sees another.

``placing("internvl") -> (model, prompt)``: random weights, and attention that writes nothing, so that a patch of the
photo alone decides what fires at the tokens that hold it, by whatever way the family's own code takes it there
(embedding, merging, shuffling, cutting, unpadding). Where tokens are answers to queries, the queries look at what is
red.
"""

from __future__ import annotations

import copy
from typing import Any
from unittest import mock

import torch
import transformers
from torch import nn

import families
from neuronwise.model.model import Model
from processors import BUILDERS
from processors_codes import red_codes


def placing(name: str, seed: int = 0) -> tuple[Model, str]:
    """The model with its processor, and a prompt that holds the photo's mark."""
    torch.manual_seed(seed)
    with mock.patch.object(transformers.ProcessorMixin, "check_argument_for_proper_class"):  # no processor of films
        settings, processor, prompt = BUILDERS[name]()
    settings = copy.deepcopy(settings)
    kind = settings.pop("model_type")
    tokens = processor.tokenizer
    for key in [key for key in settings if key.endswith("_token")]:
        number = tokens.convert_tokens_to_ids(settings.pop(key))
        settings[f"{key}_id"] = settings[f"{key}_index"] = number
    config = transformers.AutoConfig.for_model(kind, **settings)
    auto = transformers.AutoModelForCausalLM if kind == "fuyu" else transformers.AutoModelForImageTextToText
    module: Any = auto.from_config(config, dtype=torch.float32).eval()
    families.shake(module)
    _still(module)
    if kind in ("chameleon", "emu3"):
        module.model.vqmodel.encode = red_codes
    return Model(module, processor, name=f"tiny {name}"), prompt


WRITERS = ("o_proj", "out_proj", "proj", "dense", "projection", "projection_layer", "c_proj")


@torch.no_grad()
def _still(module: nn.Module) -> None:
    """Attention writes nothing and positions are alike; that of queries and across modalities stays.

    A patch's embedding is of its mean color, so that half a red patch is half as red.
    """
    for child in module.modules():
        if isinstance(child, nn.Conv2d | nn.Conv3d) and child.stride == child.kernel_size:
            pixels = tuple(range(2, child.weight.dim()))
            child.weight.copy_(child.weight.mean(pixels, keepdim=True).expand_as(child.weight))
    for path, child in module.named_modules():
        if any(kept in path for kept in ("qformer", "resampler", "cross", "projection.x_attn")):
            continue
        if "Attention" in type(child).__name__:
            for name, linear in child.named_modules():
                if isinstance(linear, nn.Linear) and name.rpartition(".")[2] in WRITERS and "cross" not in name:
                    linear.weight.zero_()
                    if linear.bias is not None:
                        linear.bias.zero_()
    for name, parameter in (*module.named_parameters(), *module.named_buffers()):
        if not parameter.is_floating_point() or "rotary" in name:
            continue
        if "position" in name or "pos_embed" in name or "tile_embedding" in name:
            parameter.zero_()


@torch.no_grad()
def look_at_red(model: Model, plain: dict[str, Any], red: dict[str, Any]) -> None:
    """Wire the queries' attention so that it falls on the key that differs between two photos.

    The first number of each head's key is high for that key and zero for the others, the second is the reverse (a norm
    of keys would undo a length alone); the first number of each head's query is high.
    """
    for owner, query, key in _crossings(model.module):
        before, after = (_inputs_of(model, inputs, (query, key)) for inputs in (plain, red))
        changed = (after[1] - before[1]).norm(dim=-1)
        spot = changed.flatten().argmax()
        keys = torch.stack([before[1].flatten(0, -2).mean(0), after[1].flatten(0, -2)[spot]])  # (2, d)
        heads = _heads(owner, model)
        _send(key, keys, torch.tensor([[0.0, 1.0], [1.0, 0.0]]), heads)
        if "Mllama" in type(owner).__name__:  # what it reads outweighs the words that it is added to
            owner.o_proj.weight.mul_(30)
        queries = torch.cat([before[0].flatten(0, -2), after[0].flatten(0, -2)])
        _send(query, queries, torch.tensor([[1.0, 0.0]]).expand(len(queries), 2), heads)
        if hasattr(owner, "multihead_attn"):  # Aria projects once more
            part = owner.multihead_attn.in_proj_weight
            part.copy_(torch.eye(part.shape[1]).repeat(3, 1))
            owner.multihead_attn.in_proj_bias.zero_()


def _crossings(module: nn.Module) -> list[tuple[Any, nn.Linear, nn.Linear]]:
    found: list[Any] = []
    for path, child in module.named_modules():
        if "cross" in path or "resampler" in path or "x_attn" in path:
            pair = [
                getattr(child, names[0], getattr(child, names[1], None))
                for names in (("query", "q_proj"), ("key", "k_proj"))
            ]
            if all(isinstance(one, nn.Linear) for one in pair):
                found.append((child, *pair))
    return found


def _heads(owner: Any, model: Model) -> int:
    return next(getattr(owner, name) for name in ("num_attention_heads", "num_heads") if hasattr(owner, name))


def _inputs_of(model: Model, inputs: dict[str, Any], linears: tuple[nn.Linear, ...]) -> list[torch.Tensor]:
    seen: dict[int, torch.Tensor] = {}
    handles = [
        linear.register_forward_pre_hook(lambda m, args: seen.__setitem__(id(m), args[0].double()))
        for linear in linears
    ]
    model.forward(inputs, rows=[-1])
    for handle in handles:
        handle.remove()
    return [seen[id(linear)] for linear in linears]


def _send(linear: nn.Linear, sources: torch.Tensor, goals: torch.Tensor, heads: int, scale: float = 8.0) -> None:
    """Make each head's first two numbers what ``goals`` (n, 2) say for ``sources`` (n, d), and the others zero."""
    part = linear.out_features // heads
    rows = scale * (torch.linalg.pinv(sources) @ goals.double()).T  # (2, d)
    linear.weight.zero_()
    for head in range(linear.out_features // part):
        linear.weight[head * part : head * part + 2] = rows.to(linear.weight.dtype)
    if linear.bias is not None:
        linear.bias.zero_()
