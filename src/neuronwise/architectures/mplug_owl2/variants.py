"""Relatives of mPLUG-Owl2 that are other models, told by their configuration's type or their tensors' names."""

from __future__ import annotations

import re
from collections.abc import Iterable

TYPES = {
    "mplug-owl": "mPLUG-Owl (the first)",
    "mplug_owl": "mPLUG-Owl (the first)",
    "mplug_owl2_1": "mPLUG-Owl2.1 (built on Qwen)",
    "mplug_docowl": "mPLUG-DocOwl",
    "mplug_docowl2": "mPLUG-DocOwl2",
    "mplugowl3": "mPLUG-Owl3",
    "mplug_owl3": "mPLUG-Owl3",
    "llava": "LLaVA",
    "llava_llama": "LLaVA in its authors' layout (the converted ones have type llava)",
    "llava_mistral": "LLaVA in its authors' layout (the converted ones have type llava_next)",
    "llama": "a plain LLaMA",
    "blip-2": "BLIP-2",
    "instructblip": "InstructBLIP",
}
NAMES = (  # a pattern of tensor names → whose they are
    (r"^transformer\.(h|visual_abstractor)\.", "mPLUG-Owl2.1 (built on Qwen)"),
    (r"hyper_attn|^language_model\.model\.layers\.\d+\.self_attn\.v_kv_proj", "mPLUG-Owl3"),
    (r"hreducer|vision2text", "mPLUG-DocOwl"),
    (r"^(abstractor|language_model\.model\.layers\.\d+)\.", "mPLUG-Owl (the first)"),
    (r"mm_projector|multi_modal_projector|vision_tower", "LLaVA"),
    (r"qformer|Qformer", "BLIP-2 or a model on it"),
    (r"\.self_attn\.[kv]_proj\.(weight|bias)$", "a LLaMA without modality-adaptive parts"),
)


def variant_of_type(model_type: object) -> str | None:
    """The model that has this `model_type`; ``None`` for mPLUG-Owl2 and what is not known."""
    return TYPES.get(str(model_type).lower())


def variant_of_names(names: Iterable[str]) -> str | None:
    """The model that a checkpoint with these tensors looks like, ``None`` when no name tells."""
    listed = list(names)
    return next((what for pattern, what in NAMES if any(re.search(pattern, name) for name in listed)), None)
