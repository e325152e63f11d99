"""Telling MiniGPT-4's published files by what they hold, and which of its variants they make."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from neuronwise.architectures.convert.minigpt4.language import Language, open_language
from neuronwise.architectures.convert.plan import Recipe
from neuronwise.architectures.convert.weights import Weights, open_weights
from neuronwise.architectures.minigpt4 import JOINED
from neuronwise.errors import ModelError

LORA = re.compile(r"^llama_model\.base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight$")
_SIGNS = {
    "own": r"^llama_proj\.",
    "qformer": r"^Qformer\.",
    "eva": r"^(?:visual_encoder\.)?(?:patch_embed\.proj|blocks\.\d+\.attn\.qkv)\.weight$",
}
_PARTS = {
    "eva": "the image encoder (eva_vit_g.pth)",
    "qformer": "the Q-Former",
    "own": "MiniGPT-4's own .pth (with llama_proj)",
    "language": "the language model's folder",
}
_WANTED = (
    "eva_vit_g.pth, blip2_pretrained_flant5xxl.pth (on Vicuna), MiniGPT-4's own .pth and the folder of the language "
    "model"
)
_WHERE = "It is blip2_pretrained_flant5xxl.pth. Nothing was written."
PUBLISHED = {
    "visual_encoder.patch_embed.proj.weight": (1408, 3, 14, 14),
    "visual_encoder.pos_embed": (1, 257, 1408),
    "visual_encoder.cls_token": (1, 1, 1408),
    "visual_encoder.blocks.0.mlp.fc1.weight": (6144, 1408),
    "query_tokens": (1, 32, 768),
    "Qformer.bert.encoder.layer.0.intermediate_query.dense.weight": (3072, 768),
}
_SIZES = {4096: "7B", 5120: "13B"}


@dataclass(frozen=True)
class Parts:
    """The published files, each tensor under its name in MiniGPT-4's own module."""

    eva: Weights
    qformer: Weights | None
    own: Weights
    language: Language

    @property
    def files(self) -> tuple[Weights, ...]:
        """In the order in which they replace each other."""
        return tuple(part for part in (self.eva, self.qformer, self.own) if part is not None)

    def find(self, name: str) -> Weights:
        """The last file that has the tensor (that which should have it, where none does)."""
        found = [part for part in self.files if name in part]
        if found:
            return found[-1]
        if name.startswith("visual_encoder."):
            return self.eva
        return self.own if name.startswith("llama_") or self.qformer is None else self.qformer

    def take(self, *names: str, make: Callable[..., Tensor] | None = None) -> Recipe:
        """A recipe from tensors of these names, whichever part holds them."""
        parts = tuple((self.find(name), name) for name in names)
        return Recipe(parts) if make is None else Recipe(parts, make)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape; the published one where it is missing, so that everything missing is reported at once."""
        source = self.find(name)
        return source[name].shape if name in source else PUBLISHED[name]


def tell_parts(paths: Sequence[Path]) -> Parts:
    """Tell the parts by what they hold."""
    found: dict[str, list[Any]] = {"language": [], "eva": [], "qformer": [], "own": []}
    for path in paths:
        if path.is_dir():
            found["language"].append(path)
            continue
        weights = open_weights(path)
        kind = next((k for k, sign in _SIGNS.items() if any(re.search(sign, n) for n in weights.tensors)), None)
        if kind is None:
            raise ModelError(f"'{path}' is not a part of MiniGPT-4{_likeness(weights)}; it takes {_WANTED}.")
        found[kind].append(_named(weights) if kind == "eva" else weights)
    for kind, what in _PARTS.items():
        if len(found[kind]) > 1:
            raise ModelError(f"There are two parts that are {what}; name one.")
    absent = [what for kind, what in _PARTS.items() if kind != "qformer" and not found[kind]]
    if absent:
        raise ModelError(f"MiniGPT-4 lacks {' and '.join(absent)}; it takes {_WANTED}.")
    qformer = found["qformer"][0] if found["qformer"] else None
    if qformer is not None and "llm_proj.weight" in qformer:
        raise ModelError(f"{qformer.label} looks like InstructBLIP's Q-Former; MiniGPT-4 uses BLIP-2's. {_WHERE}")
    return Parts(found["eva"][0], qformer, found["own"][0], open_language(found["language"][0]))


def _likeness(weights: Weights) -> str:
    """What a file that does not belong here looks like."""
    for sign, what in (
        (r"mm_projector\.", "LLaVA's projector"),
        (r"visual_abstractor\.|visual_model\.", "mPLUG-Owl"),
        (r"llm_proj\.", "InstructBLIP"),
        (r"^(?:vision_model|visual)\.", "a CLIP image encoder"),
        (r"^model\.layers\.\d+\.", "a language model's shard, whose folder is wanted"),
    ):
        if weights.matching(sign):
            return f": it looks like {what}"
    return ""


def _named(weights: Weights) -> Weights:
    """EVA's file under the names that it has inside of MiniGPT-4."""
    if weights.matching(r"^visual_encoder\."):
        return weights
    prefix = "visual_encoder."
    return Weights(weights.path, weights.files, {prefix + name: t for name, t in weights.tensors.items()}, prefix)


def tell_variant(parts: Parts) -> str:
    """vicuna, llama2 or v2, recognized by the projector; raises ``ModelError`` for parts of different variants."""
    if "llama_proj.weight" not in parts.own:
        raise ModelError(f"{parts.own.label} lacks llama_proj.weight. Nothing was written.")
    width, reads = parts.own["llama_proj.weight"].shape
    vision = parts.shape("visual_encoder.patch_embed.proj.weight")[0]
    language = parts.language
    if width != language.config.hidden_size:
        raise ModelError(
            f"{parts.own.label} projects to {width} features, but {language.label} has a hidden size of "
            f"{language.config.hidden_size}: it looks like the {_SIZES.get(width, 'other')} variant of MiniGPT-4, for "
            "another language model. Nothing was written."
        )
    if reads == JOINED * vision:
        variant = "v2" if parts.own.matching(LORA.pattern) else "llama2"
        if parts.qformer is not None:
            what = "MiniGPT-v2" if variant == "v2" else "the Llama-2 variant"
            raise ModelError(
                f"{parts.own.label} looks like {what}, which has no Q-Former: leave {parts.qformer.label} out."
            )
        return variant
    if parts.qformer is None:
        raise ModelError(
            f"{parts.own.label} looks like the Vicuna variant, which has a Q-Former: add "
            "blip2_pretrained_flant5xxl.pth. Nothing was written."
        )
    query = parts.shape("query_tokens")[-1]
    if reads != query:
        raise ModelError(
            f"{parts.own.label} projects from {reads} features; the Q-Former in {parts.qformer.label} gives {query}, "
            f"and {JOINED} joined patches of {parts.eva.label} would be {JOINED * vision}. Nothing was written."
        )
    return "vicuna"
