"""A LLaMA layer with modality-adaptive parts: norms, keys and values have one way for words and one for images.

Paper, section 3.2 (modality-adaptive module): the two modalities are normed and projected to keys and values apart,
and share queries, output projection and feed-forward block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaRMSNorm,
    apply_rotary_pos_emb,
    eager_attention_forward,
)

from neuronwise.architectures.mplug_owl2.config import MPLUGOwl2Config


class Multiway(nn.Module):
    """Two modules of one kind: `multiway[0]` for words, `multiway[1]` where `is_image` (B, T) is true."""

    def __init__(self, make: Callable[[], nn.Module]):
        super().__init__()
        self.multiway = nn.ModuleList([make(), make()])

    def forward(self, hidden_states: Tensor, is_image: Tensor | None) -> Tensor:
        words = self.multiway[0](hidden_states)
        if is_image is None:
            return words
        return torch.where(is_image[..., None].to(words.device), self.multiway[1](hidden_states), words)


class MPLUGOwl2Attention(LlamaAttention):
    """LLaMA's attention with keys and values of their own for images."""

    def __init__(self, config: MPLUGOwl2Config, layer_idx: int):
        super().__init__(config, layer_idx)
        width, out, bias = config.hidden_size, (config.num_key_value_heads or 0) * self.head_dim, config.attention_bias
        self.k_proj: Any = Multiway(lambda: nn.Linear(width, out, bias=bias))
        self.v_proj: Any = Multiway(lambda: nn.Linear(width, out, bias=bias))

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        is_image: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        shape = hidden_states.shape[:-1]
        query, key, value = (
            states.view(*shape, -1, self.head_dim).transpose(1, 2)
            for states in (
                self.q_proj(hidden_states),
                self.k_proj(hidden_states, is_image),
                self.v_proj(hidden_states, is_image),
            )
        )
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        kind: str | None = getattr(self.config, "_attn_implementation", None)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(kind or "eager", eager_attention_forward)
        dropout = self.attention_dropout if self.training else 0.0
        seen, weights = attend(self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs)
        return self.o_proj(seen.reshape(*shape, -1).contiguous()), weights


class MPLUGOwl2DecoderLayer(LlamaDecoderLayer):
    """LLaMA's layer with norms of their own for images."""

    def __init__(self, config: MPLUGOwl2Config, layer_idx: int):
        super().__init__(config, layer_idx)
        self.self_attn = MPLUGOwl2Attention(config, layer_idx)
        self.input_layernorm: Any = Multiway(lambda: LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps))
        self.post_attention_layernorm: Any = Multiway(lambda: LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps))

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, is_image: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        normed = self.input_layernorm(hidden_states, is_image)
        hidden_states = hidden_states + self.self_attn(normed, is_image=is_image, **kwargs)[0]
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states, is_image))
