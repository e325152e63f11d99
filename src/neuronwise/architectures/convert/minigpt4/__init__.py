"""MiniGPT-4 from its published parts: image encoder, Q-Former, projector and language model.

The parts are read as the published code loads them (github.com/Vision-CAIR/MiniGPT-4): EVA ViT-g first, the Q-Former's
file over it, MiniGPT-4's own .pth over both. A later file replaces what an earlier one says.

On Vicuna it becomes transformers' own ``Blip2ForConditionalGeneration``; on Llama-2, which has no Q-Former, and for
MiniGPT-v2, ``neuronwise.architectures.minigpt4``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuronwise.architectures.convert.minigpt4.language import Language
from neuronwise.architectures.convert.minigpt4.names import BLOCKS, adapted, ignored, qformer_name, vision
from neuronwise.architectures.convert.minigpt4.parts import Parts, tell_parts, tell_variant
from neuronwise.architectures.convert.minigpt4.prompt import companions
from neuronwise.architectures.convert.plan import Plan, Recipe, state_names
from neuronwise.architectures.minigpt4 import JOINED, MiniGPT4PatchesConfig, MiniGPT4PatchesForConditionalGeneration

HEAD_WIDTH = {"vision": 88, "qformer": 64}
V2_SCALE = 2  # MiniGPT-v2 sees 448 pixels where the image encoder was trained on 224


def plan(paths: Sequence[Path]) -> Plan:
    """Lay out the conversion of MiniGPT-4's parts, given in any order; raises ``ModelError`` for parts that do not fit.

    ``paths``: eva_vit_g.pth, on Vicuna blip2_pretrained_flant5xxl.pth, MiniGPT-4's .pth, and the folder of the language
    model (Vicuna v0 with its deltas merged, or Llama-2 Chat).
    """
    parts = tell_parts(paths)
    variant = tell_variant(parts)
    if variant == "vicuna":
        return _vicuna(parts)
    return _patches(parts, lora=variant == "v2")


def _vicuna(parts: Parts) -> Plan:
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    assert parts.qformer is not None
    queries, width = parts.shape("query_tokens")[-2:]
    layers = max(part.count(r"^Qformer\.bert\.encoder\.layer\.(\d+)\.attention\.") for part in parts.files)
    pattern = r"^Qformer\.bert\.encoder\.layer\.(\d+)\.crossattention\."
    crossing = sorted({int(m[1]) for part in parts.files for n in part.tensors if (m := re.search(pattern, n))})
    qformer = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // HEAD_WIDTH["qformer"]),
        "intermediate_size": parts.shape("Qformer.bert.encoder.layer.0.intermediate_query.dense.weight")[0],
        "cross_attention_frequency": crossing[1] - crossing[0] if len(crossing) > 1 else max(layers, 1),
    }
    language = parts.language
    config = Blip2Config(
        vision_config=_vision_config(parts), qformer_config=qformer, text_config=language.grown().to_dict(),
        num_query_tokens=queries, image_token_index=language.image_token_id,
    )  # fmt: skip
    recipes: dict[str, Recipe] = {}
    for name in state_names(Blip2ForConditionalGeneration, config):
        head, _, rest = name.partition(".")
        if head == "vision_model":
            recipes[name] = vision(parts, rest)
        elif head == "qformer":
            recipes[name] = parts.take(qformer_name(rest))
        elif head == "language_model":
            recipes[name] = language.take(rest)
        elif head == "language_projection":
            recipes[name] = parts.take(f"llama_proj.{rest}")
        elif head == "query_tokens":
            recipes[name] = parts.take("query_tokens")
    return Plan(
        "minigpt4", "MiniGPT-4 on Vicuna", Blip2ForConditionalGeneration, config, recipes,
        [*parts.files, language.weights],
        lambda folder: companions(folder, language, "vicuna", _size(config), queries),
        language.dtype, ignored(parts), _doubts(language, 4096, "Llama-2", "Vicuna v0"),
    )  # fmt: skip


def _patches(parts: Parts, lora: bool) -> Plan:
    language = parts.language
    encoder = _vision_config(parts, V2_SCALE if lora else 1)
    side = encoder["image_size"] // encoder["patch_size"]
    config = MiniGPT4PatchesConfig(
        vision_config=encoder, text_config=language.grown().to_dict(), image_token_index=language.image_token_id,
        image_seq_length=side * side // JOINED,
    )  # fmt: skip
    recipes: dict[str, Recipe] = {}
    for name in state_names(MiniGPT4PatchesForConditionalGeneration, config):
        path = name.removeprefix("model.")
        head, _, rest = path.partition(".")
        if head == "vision_tower":
            recipes[name] = vision(parts, rest, side)
        elif head == "multi_modal_projector":
            recipes[name] = parts.take(f"llama_proj.{rest}")
        else:
            inner = f"model.{rest}" if head == "language_model" else path
            recipes[name] = adapted(parts, inner) if lora else language.take(inner)
    variant, kind = ("MiniGPT-v2", "v2") if lora else ("MiniGPT-4 on Llama-2", "llama2")
    return Plan(
        "minigpt4", variant, MiniGPT4PatchesForConditionalGeneration, config, recipes,
        [*parts.files, language.weights],
        lambda folder: companions(folder, language, kind, _size(config), side * side // JOINED),
        language.dtype, ignored(parts), _doubts(language, 2048, "Vicuna or LLaMA-1", "Llama-2 Chat"),
    )  # fmt: skip


def _doubts(language: Language, positions: int, like: str, trained: str) -> tuple[str, ...]:
    """A note where the language model's length says that it is another than the projector was trained on."""
    if language.config.max_position_embeddings != positions:
        return ()
    return (f"{language.label} reads {positions} tokens, as {like} does; this projector was trained on {trained}.",)


def _size(config: Any) -> int:
    return config.vision_config.image_size


def _vision_config(parts: Parts, scale: int = 1) -> dict[str, Any]:
    width, _, patch, _ = parts.shape("visual_encoder.patch_embed.proj.weight")
    own = round((parts.shape("visual_encoder.pos_embed")[1] - 1) ** 0.5) * patch
    return {
        "hidden_size": width,
        "intermediate_size": parts.shape("visual_encoder.blocks.0.mlp.fc1.weight")[0],
        "num_hidden_layers": min(BLOCKS, parts.eva.count(r"^visual_encoder\.blocks\.(\d+)\.")),
        "num_attention_heads": max(1, width // HEAD_WIDTH["vision"]),
        "model_type": "blip_2_vision_model",
        "image_size": scale * own,
        "patch_size": patch,
    }
