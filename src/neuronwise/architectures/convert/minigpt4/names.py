"""Each tensor of the new checkpoint, from the published names: image encoder, Q-Former, low-rank changes."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from neuronwise.architectures.convert.minigpt4.parts import LORA, Parts
from neuronwise.architectures.convert.plan import Recipe
from neuronwise.architectures.convert.weights import Weights

BLOCKS = 39  # of the 40 in EVA ViT-g's file, as BLIP-2 has it
LORA_ALPHA = 16  # MiniGPT-v2's; the file does not hold it
# What the files hold beside the parts that are used: the encoder's head, the Q-Former's text side, other projectors.
_UNUSED = (
    rf"^visual_encoder\.blocks\.(?:{BLOCKS}|[4-9]\d|\d{{3,}})\.",
    r"^visual_encoder\.(?!blocks\.|cls_token$|pos_embed$|patch_embed\.)",
    r"^Qformer\.cls\.",
    r"^Qformer\.bert\.embeddings\.(?:word_embeddings|position_embeddings|position_ids)",
    r"^Qformer\.bert\.encoder\.layer\.\d+\.(?:intermediate|output)\.",
    r"^(?:t5_proj|opt_proj|vision_proj|text_proj|itm_head)\.",
    r"^temp$",
    r"rotary_emb\.inv_freq$",
)
_VISION = {
    "embeddings.class_embedding": "cls_token",
    "embeddings.position_embedding": "pos_embed",
    "embeddings.patch_embedding": "patch_embed.proj",
}
_BLOCK = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.qkv": "attn.qkv",
    "self_attn.projection": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def vision(parts: Parts, name: str, side: int | None = None) -> Recipe:
    """A tensor of ``Blip2VisionModel``; position embeddings for a grid of ``side`` × ``side`` where that is given."""
    if name.startswith("post_layernorm."):
        kind = name.rpartition(".")[2]
        if any(f"ln_vision.{kind}" in part for part in parts.files) or parts.qformer is not None:
            return parts.take(f"ln_vision.{kind}")
        # Without the Q-Former's file the published code leaves this norm as it was made.
        width = parts.shape("visual_encoder.cls_token")[-1]
        return Recipe((), lambda: torch.ones(width) if kind == "weight" else torch.zeros(width))
    for ours, theirs in _VISION.items():
        if name.startswith(ours):
            found = f"visual_encoder.{theirs}{name.removeprefix(ours)}"
            if theirs == "pos_embed" and side is not None:
                return parts.take(found, make=lambda positions: resized(positions, side))
            return parts.take(found)
    _, _, number, rest = name.split(".", 3)
    block = f"visual_encoder.blocks.{number}."
    if rest == "self_attn.qkv.bias":
        return parts.take(f"{block}attn.q_bias", f"{block}attn.v_bias", make=joined_bias)
    part, _, kind = rest.rpartition(".")
    return parts.take(f"{block}{_BLOCK[part]}.{kind}")


def joined_bias(query: Tensor, value: Tensor) -> Tensor:
    """(3·d,): the keys' part is zero, for EVA has a bias for queries and values alone."""
    return torch.cat([query, torch.zeros_like(query), value])


def resized(positions: Tensor, side: int) -> Tensor:
    """(1, 1 + n, d) position embeddings for a grid of ``side`` × ``side``, bicubic; the class token's is kept."""
    count, width = positions.shape[1] - 1, positions.shape[2]
    own = round(count**0.5)
    if own == side:
        return positions
    grid = positions[:, 1:].float().reshape(1, own, own, width).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    grid = grid.permute(0, 2, 3, 1).reshape(1, side * side, width)
    return torch.cat([positions[:, :1].float(), grid], dim=1)


def qformer_name(name: str) -> str:
    """The published name of a tensor of ``Blip2QFormerModel``."""
    if name.startswith("layernorm."):
        return f"Qformer.bert.embeddings.LayerNorm.{name.removeprefix('layernorm.')}"
    return "Qformer.bert." + name.replace(".attention.attention.", ".attention.self.").replace(
        ".crossattention.attention.", ".crossattention.self."
    )


def adapted(parts: Parts, name: str) -> Recipe:
    """A tensor of the language model with MiniGPT-v2's low-rank change merged in, where it has one."""
    plain = parts.language.take(name)
    module = name.removesuffix(".weight")
    pair = {m[2]: n for n in parts.own.tensors if (m := LORA.match(n)) and m[1] == module}
    if not pair:
        return plain
    down, up = (pair.get(side, f"llama_model.base_model.model.{module}.lora_{side}.weight") for side in "AB")

    def merged(weight: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return weight.float() + LORA_ALPHA / first.shape[0] * (second.float() @ first.float())

    return Recipe((*plain.parts, (parts.own, down), (parts.own, up)), merged)


def ignored(parts: Parts) -> dict[Weights, list[str]]:
    """What is left out on purpose: parts without use, and what a later file replaces."""
    left_out: dict[Weights, list[str]] = {}
    for i, part in enumerate(parts.files):
        replaced = [f"^{re.escape(n)}$" for n in part.tensors if any(n in later for later in parts.files[i + 1 :])]
        left_out[part] = [*_UNUSED, *replaced]
    left_out[parts.language.weights] = list(_UNUSED[-1:])
    return left_out
