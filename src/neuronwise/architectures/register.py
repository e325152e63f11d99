"""Architectures that transformers lacks. Importing this registers them with the Auto classes."""

from __future__ import annotations

from neuronwise.architectures import dinov2_grid, efficientnet_lite, paired_grid  # noqa: F401  (built-in towers)
from neuronwise.architectures.minigpt4 import MiniGPT4PatchesConfig, MiniGPT4PatchesForConditionalGeneration
from neuronwise.architectures.mplug_owl2 import MPLUGOwl2Config, MPLUGOwl2ForConditionalGeneration

IMAGE_TEXT: dict[str, type] = {
    MiniGPT4PatchesConfig.model_type: MiniGPT4PatchesForConditionalGeneration,
    MPLUGOwl2Config.model_type: MPLUGOwl2ForConditionalGeneration,
}
