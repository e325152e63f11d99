"""mPLUG-Owl2 as published (pickled shards, tokenizer and image settings apart) to an ordinary folder.

The names of the tensors stay as they are; constants that follow from the configuration are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from neuronwise.architectures.convert.plan import Plan, state_names, taken
from neuronwise.architectures.convert.weights import open_weights
from neuronwise.architectures.mplug_owl2 import MPLUGOwl2Config, MPLUGOwl2ForConditionalGeneration, MPLUGOwl2Processor
from neuronwise.architectures.mplug_owl2.language import PUBLISHED_CONSTANTS
from neuronwise.architectures.mplug_owl2.variants import variant_of_names
from neuronwise.errors import ModelError, NeuronwiseError
from neuronwise.model.complete import settings_of
from neuronwise.model.source import relative_of_type

EMBEDDING = "model.embed_tokens.weight"


def plan(parts: Sequence[Path]) -> Plan:
    """Lay out the conversion of one published folder; raises ``ModelError`` for what is not an mPLUG-Owl2 model."""
    if len(parts) != 1 or not parts[0].is_dir():
        named = ", ".join(f"'{part}'" for part in parts) or "nothing"
        raise ModelError(f"mPLUG-Owl2 is converted from the one folder of its published checkpoint, not from {named}.")
    folder = parts[0]
    config = _config(folder)
    weights = open_weights(folder)
    names = state_names(MPLUGOwl2ForConditionalGeneration, config)
    if not any(name in weights for name in names if name.startswith("model.visual_abstractor.")):
        looks = variant_of_names(weights.tensors)
        raise ModelError(f"'{folder}' holds no mPLUG-Owl2{f': it looks like {looks}' if looks else ''}.")
    processor = _processor(folder)
    return Plan(
        "mplug_owl2", "mPLUG-Owl2", MPLUGOwl2ForConditionalGeneration, config,
        {name: taken(weights, name) for name in names},
        [weights],
        lambda out: _companions(folder, processor, config, out),
        weights[EMBEDDING].dtype if EMBEDDING in weights else torch.float32,
        {weights: PUBLISHED_CONSTANTS},
    )  # fmt: skip


def _config(folder: Path) -> MPLUGOwl2Config:
    model_type = settings_of(folder).get("model_type")
    if model_type != MPLUGOwl2Config.model_type:
        what = relative_of_type(model_type) or f"a model of type '{model_type}'"
        raise ModelError(f"'{folder}' is not an mPLUG-Owl2 model: it looks like {what}.")
    return MPLUGOwl2Config.from_pretrained(folder)


def _processor(folder: Path) -> Any:
    try:
        return MPLUGOwl2Processor.from_pretrained(folder)
    except NeuronwiseError:
        raise
    except (OSError, ValueError, ImportError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"'{folder}' has no tokenizer or image settings that open: {reason}") from error


def _companions(folder: Path, processor: Any, config: MPLUGOwl2Config, out: Path) -> None:
    from transformers import GenerationConfig

    processor.save_pretrained(out)
    if (folder / "generation_config.json").is_file():
        settings = GenerationConfig.from_pretrained(folder)
    else:
        settings = GenerationConfig.from_model_config(config)
    settings.temperature = settings.top_p = settings.top_k = None  # of sampling, which no run here does
    settings.do_sample = False
    settings.save_pretrained(out)
