"""The visual abstractor: learned queries look at the patches, and at each other, and sum up the photo.

Each layer's keys and values are the queries followed by the patches (the class token first). Fixed sine waves tell
places: along the queries, and over the grid of patches, where the first half of the channels encodes the column and the
second half the row.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import eager_attention_forward

from neuronwise.architectures.mplug_owl2.config import MPLUGOwl2AbstractorConfig


class MPLUGOwl2CrossAttention(nn.Module):
    """Queries (B, q, d) look at themselves and at patches (B, p, d); returns what they saw and the weights, if shown.

    The weights are (B, heads, q, q + p): the queries' columns first, then the class token's, then the patches'.
    """

    def __init__(self, config: MPLUGOwl2AbstractorConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // self.num_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.encoder_hidden_size, config.hidden_size)
        self.value = nn.Linear(config.encoder_hidden_size, config.hidden_size)
        # They follow from the configuration, so no folder has to hold them.
        self.q_pos_embed: Tensor
        self.k_pos_embed: Tensor
        self.register_buffer("q_pos_embed", query_places(config), persistent=False)
        self.register_buffer("k_pos_embed", patch_places(config), persistent=False)

    def forward(self, queries: Tensor, patches: Tensor) -> tuple[Tensor, Tensor | None]:
        batch, count, width = queries.shape
        around = torch.cat([queries, patches], dim=1)
        query_place = self.q_pos_embed.to(queries.dtype)
        places = torch.cat([query_place, self.k_pos_embed.to(queries.dtype)])
        query, key, value = (
            states.view(batch, -1, self.num_heads, self.head_dim).transpose(1, 2)
            for states in (self.query(queries + query_place), self.key(around + places), self.value(around))
        )
        kind: str | None = getattr(self.config, "_attn_implementation", None)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(kind or "eager", eager_attention_forward)
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        seen, weights = attend(self, query, key, value, None, scaling=self.scaling, dropout=dropout)
        return seen.reshape(batch, count, width), weights


class MPLUGOwl2AbstractorMLP(nn.Module):
    """A gated block with a norm between its halves."""

    def __init__(self, config: MPLUGOwl2AbstractorConfig):
        super().__init__()
        self.act = nn.SiLU()
        self.w1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.w2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.w3 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.ffn_ln = nn.LayerNorm(config.intermediate_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.w2(self.ffn_ln(self.act(self.w1(hidden_states)) * self.w3(hidden_states)))


class MPLUGOwl2AbstractorOutput(nn.Module):
    """The projection behind an attention, with its norm."""

    def __init__(self, config: MPLUGOwl2AbstractorConfig):
        super().__init__()
        self.out_proj = nn.Linear(config.encoder_hidden_size, config.encoder_hidden_size)
        self.norm2 = nn.LayerNorm(config.encoder_hidden_size)
        self.mlp = MPLUGOwl2AbstractorMLP(config)

    def forward(self, seen: Tensor, queries: Tensor) -> Tensor:
        queries = queries + self.out_proj(seen)
        return queries + self.mlp(self.norm2(queries))


class MPLUGOwl2AbstractorBlock(nn.Module):
    """One look: the normed queries, not the queries themselves, are what each look adds to."""

    def __init__(self, config: MPLUGOwl2AbstractorConfig):
        super().__init__()
        self.attention = MPLUGOwl2CrossAttention(config)
        self.output = MPLUGOwl2AbstractorOutput(config)
        self.norm1 = nn.LayerNorm(config.encoder_hidden_size)
        self.normk = nn.LayerNorm(config.encoder_hidden_size)

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        queries = self.norm1(queries)
        return self.output(self.attention(queries, self.normk(patches))[0], queries)


class MPLUGOwl2AbstractorLayer(GradientCheckpointingLayer):
    """Queries attend to patches and to each other, then a feed-forward block."""

    def __init__(self, config: MPLUGOwl2AbstractorConfig):
        super().__init__()
        self.crossattention = MPLUGOwl2AbstractorBlock(config)

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        return self.crossattention(queries, patches)


class MPLUGOwl2AbstractorEncoder(nn.Module):
    """The layers of the abstractor."""

    def __init__(self, config: MPLUGOwl2AbstractorConfig):
        super().__init__()
        self.layers = nn.ModuleList([MPLUGOwl2AbstractorLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        for layer in self.layers:
            queries = layer(queries, patches)
        return queries


class MPLUGOwl2VisualAbstractor(nn.Module):
    """Features (B, 1 + patches, d) → the tokens that the language model reads: (B, queries + 1, its width)."""

    def __init__(self, config: MPLUGOwl2AbstractorConfig, language_width: int):
        super().__init__()
        self.encoder = MPLUGOwl2AbstractorEncoder(config)
        self.visual_fc = nn.Linear(config.hidden_size, language_width)
        self.query_embeds = nn.Parameter(torch.zeros(1, config.num_learnable_queries, config.hidden_size))
        self.vit_eos = nn.Parameter(torch.zeros(1, 1, language_width))

    def forward(self, features: Tensor) -> Tensor:
        batch = len(features)
        queries = self.encoder(self.query_embeds.expand(batch, -1, -1), features)
        return torch.cat([self.visual_fc(queries), self.vit_eos.expand(batch, -1, -1)], dim=1)


def waves(positions: Tensor, width: int) -> Tensor:
    """Sine and cosine waves (n, width) of positions (n,), the sines first."""
    half = width // 2
    angles = positions[:, None] * (1.0 / 10000 ** (torch.arange(half, dtype=torch.float32) / half))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def query_places(config: MPLUGOwl2AbstractorConfig) -> Tensor:
    """(queries, d) sine and cosine waves along the queries."""
    return waves(torch.arange(config.num_learnable_queries, dtype=torch.float32), config.hidden_size)


def patch_places(config: MPLUGOwl2AbstractorConfig) -> Tensor:
    """(1 + grid², d): the class token has no place."""
    side = torch.arange(config.grid_size or 32, dtype=torch.float32)
    row, column = (axis.flatten() for axis in torch.meshgrid(side, side, indexing="ij"))
    half = config.hidden_size // 2
    grid = torch.cat([waves(column, half), waves(row, half)], dim=1)
    return torch.cat([torch.zeros(1, config.hidden_size), grid])
