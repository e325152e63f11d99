"""A tiny MiniGPT-4 in the published layout: names and shapes as published, seeded random weights, a tiny tokenizer.

``write_parts`` makes the files that a user downloads. ``tools/published/record_minigpt4.py`` ran the published code on
the same weights; what it computed is in minigpt4.safetensors and minigpt4.json.
"""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).parent
TOKENIZER = HERE / "minigpt4.model"  # SentencePiece, as LLaMA's
RECORDED = HERE / "minigpt4.safetensors"
RECORDED_TEXT = HERE / "minigpt4.json"

VOCABULARY = 400
VISION = {"width": 176, "hidden": 96, "blocks": 3, "patch": 14, "side": 4}  # two heads of 88; 56 × 56 pixels
QFORMER = {"width": 128, "hidden": 64, "layers": 4, "queries": 8}  # two heads of 64
LANGUAGE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
    "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip
LORA = 4  # the rank of MiniGPT-v2's change here

Shapes = dict[str, tuple[int, ...]]


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """Random numbers that hang on the tensor's name alone, of a scale at which nothing may be ignored."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("weight") and len(shape) == 1:
        values = 1 + 0.3 * values
    elif name.endswith("bias"):
        values *= 0.3
    elif len(shape) > 1 and name.endswith("weight") and "embed_tokens" not in name:
        values *= (0.3 if ".lora_" in name else 1.5) / float(np.prod(shape[1:])) ** 0.5
    return torch.from_numpy(values)


def eva_shapes(side: int = VISION["side"]) -> Shapes:
    width, hidden, patch = VISION["width"], VISION["hidden"], VISION["patch"]
    shapes: Shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, side * side + 1, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
    }
    for i in range(VISION["blocks"]):
        block: Shapes = {
            "norm1.weight": (width,), "norm1.bias": (width,), "norm2.weight": (width,), "norm2.bias": (width,),
            "attn.q_bias": (width,), "attn.v_bias": (width,), "attn.qkv.weight": (3 * width, width),
            "attn.proj.weight": (width, width), "attn.proj.bias": (width,),
            "mlp.fc1.weight": (hidden, width), "mlp.fc1.bias": (hidden,),
            "mlp.fc2.weight": (width, hidden), "mlp.fc2.bias": (width,),
        }  # fmt: skip
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return shapes


def qformer_shapes() -> Shapes:
    """BLIP-2's file: the Q-Former with its text side, query tokens, the norm after the encoder, T5's projector."""
    width, hidden, seen = QFORMER["width"], QFORMER["hidden"], VISION["width"]
    shapes: Shapes = {
        "query_tokens": (1, QFORMER["queries"], width),
        "ln_vision.weight": (seen,), "ln_vision.bias": (seen,),
        "Qformer.bert.embeddings.LayerNorm.weight": (width,), "Qformer.bert.embeddings.LayerNorm.bias": (width,),
        "Qformer.bert.embeddings.position_ids": (1, 512),
        "t5_proj.weight": (24, width), "t5_proj.bias": (24,),
    }  # fmt: skip

    def linear(path: str, out: int, into: int) -> None:
        shapes[f"{path}.weight"], shapes[f"{path}.bias"] = (out, into), (out,)

    for i in range(QFORMER["layers"]):
        layer = f"Qformer.bert.encoder.layer.{i}"
        for attention, source in (("attention", width), ("crossattention", seen)):
            if attention == "crossattention" and i % 2:
                continue
            linear(f"{layer}.{attention}.self.query", width, width)
            linear(f"{layer}.{attention}.self.key", width, source)
            linear(f"{layer}.{attention}.self.value", width, source)
            linear(f"{layer}.{attention}.output.dense", width, width)
            shapes[f"{layer}.{attention}.output.LayerNorm.weight"] = (width,)
            shapes[f"{layer}.{attention}.output.LayerNorm.bias"] = (width,)
        for kind in ("_query", ""):  # the last is the text side
            linear(f"{layer}.intermediate{kind}.dense", hidden, width)
            linear(f"{layer}.output{kind}.dense", width, hidden)
            shapes[f"{layer}.output{kind}.LayerNorm.weight"] = (width,)
            shapes[f"{layer}.output{kind}.LayerNorm.bias"] = (width,)
    return shapes


def own_shapes(variant: str) -> Shapes:
    into = QFORMER["width"] if variant == "vicuna" else 4 * VISION["width"]
    hidden = LANGUAGE["hidden_size"]
    shapes: Shapes = {"llama_proj.weight": (hidden, into), "llama_proj.bias": (hidden,)}
    if variant == "v2":
        for i in range(LANGUAGE["num_hidden_layers"]):
            for part in ("q_proj", "v_proj"):
                path = f"llama_model.base_model.model.model.layers.{i}.self_attn.{part}"
                shapes |= {f"{path}.lora_A.weight": (LORA, hidden), f"{path}.lora_B.weight": (hidden, LORA)}
    return shapes


def language_shapes() -> Shapes:
    hidden, inner = LANGUAGE["hidden_size"], LANGUAGE["intermediate_size"]
    shapes: Shapes = {
        "model.embed_tokens.weight": (VOCABULARY, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (VOCABULARY, hidden),
    }
    for i in range(LANGUAGE["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.self_attn.{part}_proj.weight": (hidden, hidden) for part in "qkvo"}
        shapes |= {f"{layer}.mlp.{part}_proj.weight": (inner, hidden) for part in ("gate", "up")}
        shapes[f"{layer}.mlp.down_proj.weight"] = (hidden, inner)
        shapes |= {f"{layer}.{part}_layernorm.weight": (hidden,) for part in ("input", "post_attention")}
    return shapes


def weights(shapes: Shapes) -> dict[str, Tensor]:
    return {
        name: torch.arange(shape[1])[None] if name.endswith("position_ids") else drawn(name, shape)
        for name, shape in shapes.items()
    }


def write_parts(folder: Path, variant: str) -> list[Path]:
    """The files of ``variant`` (vicuna, llama2 or v2) as they are published; their paths, in the order of the docs."""
    folder.mkdir(parents=True, exist_ok=True)
    eva, qformer = folder / "eva_vit_g.pth", folder / "blip2_pretrained_flant5xxl.pth"
    own, language = folder / "pretrained_minigpt4.pth", folder / ("vicuna-v0" if variant == "vicuna" else "llama2")
    torch.save(weights(eva_shapes()), eva)
    torch.save({"model": weights(qformer_shapes())}, qformer)
    torch.save({"model": weights(own_shapes(variant)), "optimizer": {}, "epoch": 4}, own)
    write_language(language)
    return [eva, qformer, own, language] if variant == "vicuna" else [eva, own, language]


def write_language(folder: Path) -> None:
    """A LLaMA folder as of 2023: pytorch_model.bin in two shards with an index, tokenizer.model, no tokenizer.json."""
    folder.mkdir()
    settings: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32", "hidden_act": "silu",
        "initializer_range": 0.02, "pad_token_id": 0, "use_cache": True, **LANGUAGE,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    tensors = weights(language_shapes())
    names = list(tensors)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    where = {}
    for i, half in enumerate(halves, 1):
        file = f"pytorch_model-{i:05d}-of-00002.bin"
        torch.save({name: tensors[name] for name in half}, folder / file)
        where |= dict.fromkeys(half, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    shutil.copy(TOKENIZER, folder / "tokenizer.model")
    about = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**about, "add_bos_token": True, "add_eos_token": False}))
