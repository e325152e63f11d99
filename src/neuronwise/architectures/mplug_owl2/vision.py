"""The ViT of mPLUG-Owl2: a photo becomes a class token and a grid of patch features.

CLIP's vision transformer but for its attention, whose query, key and value come from one projection that holds the
three side by side for each head, and for its embedding's names.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import CLIPMLP, eager_attention_forward

from neuronwise.architectures.mplug_owl2.config import MPLUGOwl2VisionConfig
from neuronwise.errors import ImageError


class MPLUGOwl2VisionEmbeddings(nn.Module):
    """Pixels (B, 3, H, W) → class token and patches with their places, normed: (B, 1 + patches, d)."""

    def __init__(self, config: MPLUGOwl2VisionConfig):
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.image_size = config.image_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.patch_embed = nn.Conv2d(config.num_channels, width, kernel_size=patch, stride=patch, bias=False)
        self.position_embedding = nn.Parameter(torch.zeros(1, (config.image_size // patch) ** 2 + 1, width))
        self.pre_layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        if pixel_values.dim() != 4 or tuple(pixel_values.shape[2:]) != (self.image_size, self.image_size):
            raise ImageError(
                f"pixel_values must be (images, 3, {self.image_size}, {self.image_size}), "
                f"not {tuple(pixel_values.shape)}."
            )
        patches = self.patch_embed(pixel_values.to(self.patch_embed.weight.dtype)).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(patches), 1, -1), patches], dim=1)
        return self.pre_layernorm(tokens + self.position_embedding)


class MPLUGOwl2VisionAttention(nn.Module):
    """Self-attention of the image encoder, queries, keys and values in one product."""

    def __init__(self, config: MPLUGOwl2VisionConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // self.num_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor | None]:
        batch, length, width = hidden_states.shape
        mixed = self.query_key_value(hidden_states).view(batch, length, self.num_heads, 3, self.head_dim)
        query, key, value = mixed.permute(3, 0, 2, 1, 4)
        kind: str | None = getattr(self.config, "_attn_implementation", None)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(kind or "eager", eager_attention_forward)
        dropout = self.config.attention_dropout if self.training else 0.0
        seen, weights = attend(self, query, key, value, None, scaling=self.scaling, dropout=dropout)
        return self.dense(seen.reshape(batch, length, width)), weights


class MPLUGOwl2VisionLayer(GradientCheckpointingLayer):
    """One layer of the image encoder."""

    def __init__(self, config: MPLUGOwl2VisionConfig):
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = MPLUGOwl2VisionAttention(config)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = CLIPMLP(config)

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = hidden_states + self.self_attn(self.input_layernorm(hidden_states))[0]
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class MPLUGOwl2VisionEncoder(nn.Module):
    """The layers of the image encoder."""

    def __init__(self, config: MPLUGOwl2VisionConfig):
        super().__init__()
        self.layers = nn.ModuleList([MPLUGOwl2VisionLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, hidden_states: Tensor) -> Tensor:
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return hidden_states


class MPLUGOwl2VisionModel(nn.Module):
    """Pixels (B, 3, H, W) → features (B, 1 + patches, d): the class token first, then the patches row by row."""

    def __init__(self, config: MPLUGOwl2VisionConfig):
        super().__init__()
        self.embeddings = MPLUGOwl2VisionEmbeddings(config)
        self.encoder = MPLUGOwl2VisionEncoder(config)
        self.post_layernorm: Any = (
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.use_post_layernorm else nn.Identity()
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.post_layernorm(self.encoder(self.embeddings(pixel_values)))
