"""Relatives of mPLUG-Owl2 that are other models, recognized by the names of their tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable

NAMES = (  # a pattern of tensor names → whose they are
    (r"^transformer\.(h|visual_abstractor)\.", "mPLUG-Owl2.1 (built on Qwen)"),
    (r"hyper_attn|^language_model\.model\.layers\.\d+\.self_attn\.v_kv_proj", "mPLUG-Owl3"),
    (r"hreducer|vision2text", "mPLUG-DocOwl"),
    (r"^(abstractor|language_model\.model\.layers\.\d+)\.", "mPLUG-Owl (the first)"),
    (r"mm_projector|multi_modal_projector|vision_tower", "LLaVA"),
    (r"qformer|Qformer", "BLIP-2 or a model on it"),
    (r"\.self_attn\.[kv]_proj\.(weight|bias)$", "a LLaMA without modality-adaptive parts"),
)


def variant_of_names(names: Iterable[str]) -> str | None:
    """The model that a checkpoint with these tensors looks like, None when no name says so."""
    listed = list(names)
    return next((what for pattern, what in NAMES if any(re.search(pattern, name) for name in listed)), None)
