"""The whole model: photo → ViT → abstractor → a LLaMA that reads the image's tokens among the words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, LlamaModel, LlamaPreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

from neuronwise.architectures.mplug_owl2.abstractor import (
    MPLUGOwl2CrossAttention,
    MPLUGOwl2VisualAbstractor,
    patch_places,
    query_places,
)
from neuronwise.architectures.mplug_owl2.config import MPLUGOwl2Config
from neuronwise.architectures.mplug_owl2.decoder import MPLUGOwl2Attention, MPLUGOwl2DecoderLayer
from neuronwise.architectures.mplug_owl2.variants import variant_of_names
from neuronwise.architectures.mplug_owl2.vision import MPLUGOwl2VisionEmbeddings, MPLUGOwl2VisionModel
from neuronwise.errors import PromptError

# Patterns of constants that published folders keep: rotary frequencies, and sine waves of the abstractor.
PUBLISHED_CONSTANTS = [r"rotary_emb\.inv_freq$", r"crossattention\.(attention\.)?[qk]_pos_embed$"]


class MPLUGOwl2PreTrainedModel(LlamaPreTrainedModel):
    """What all mPLUG-Owl2 models share."""

    config: MPLUGOwl2Config  # type: ignore[assignment]
    config_class = MPLUGOwl2Config
    input_modalities = ["image", "text"]
    _no_split_modules = [
        "MPLUGOwl2DecoderLayer", "MPLUGOwl2VisionEmbeddings", "MPLUGOwl2VisionLayer", "MPLUGOwl2VisualAbstractor",
    ]  # fmt: skip
    _can_record_outputs = {"hidden_states": MPLUGOwl2DecoderLayer, "attentions": MPLUGOwl2Attention}
    _keys_to_ignore_on_load_unexpected = PUBLISHED_CONSTANTS

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MPLUGOwl2CrossAttention):
            init.copy_(module.q_pos_embed, query_places(module.config))
            init.copy_(module.k_pos_embed, patch_places(module.config))
        elif isinstance(module, MPLUGOwl2VisionEmbeddings | MPLUGOwl2VisualAbstractor):
            for parameter in module.parameters(recurse=False):
                init.normal_(parameter, mean=0.0, std=self.config.initializer_range)


class MPLUGOwl2Model(MPLUGOwl2PreTrainedModel, LlamaModel):  # type: ignore[misc]
    """`LlamaModel` with modality-adaptive layers, a ViT and an abstractor in front of them."""

    def __init__(self, config: MPLUGOwl2Config):
        super(LlamaModel, self).__init__(config)  # not LlamaModel's own layers
        kind = getattr(config, "_attn_implementation")  # noqa: B009
        setattr(config, "_attn_implementation", kind)  # noqa: B010  (its setter reaches the parts' configurations)
        self.padding_idx, self.vocab_size = config.pad_token_id, config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        self.layers = nn.ModuleList([MPLUGOwl2DecoderLayer(config, i) for i in range(config.num_hidden_layers)])
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config=config)
        self.gradient_checkpointing = False
        self.vision_model = MPLUGOwl2VisionModel(config.vision_config)
        self.visual_abstractor = MPLUGOwl2VisualAbstractor(config.abstractor_config, config.hidden_size)
        self.post_init()

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Pixels (images, 3, H, W) → (images, image_tokens, hidden_size)."""
        return self.visual_abstractor(self.vision_model(pixel_values))

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `LlamaModel`, with the features of `pixel_values` where the input ids are the image token.

        Raises `PromptError` when the images and their places in the prompt do not match.
        """
        is_image = None
        if input_ids is not None and inputs_embeds is None:
            is_image = input_ids == self.config.image_token_index
            places = int(is_image.sum())
            if places == 0:
                is_image = None
            embeds: Tensor = self.embed_tokens(input_ids if is_image is None else input_ids.masked_fill(is_image, 0))
            inputs_embeds = embeds
            self._require_match(places, pixel_values)
            if is_image is not None and pixel_values is not None:
                features = self.get_image_features(pixel_values).to(embeds)
                inputs_embeds = embeds.masked_scatter(is_image[..., None], features)
        elif pixel_values is not None:
            raise PromptError("An image needs input_ids, which say where its tokens go; inputs_embeds do not.")
        return super().forward(inputs_embeds=inputs_embeds, is_image=is_image, **kwargs)  # type: ignore[call-arg]

    def _require_match(self, places: int, pixel_values: Tensor | None) -> None:
        images, each = 0 if pixel_values is None else len(pixel_values), self.config.image_tokens
        if places != images * each:
            raise PromptError(
                f"The prompt has places for {places} image tokens, but the {images} image(s) given make "
                f"{images * each} ({each} each)."
            )


class MPLUGOwl2ForConditionalGeneration(MPLUGOwl2PreTrainedModel, LlamaForCausalLM):  # type: ignore[misc]
    """mPLUG-Owl2 with its output head; reads and writes the published checkpoint's names."""

    def __init__(self, config: MPLUGOwl2Config):
        super(LlamaForCausalLM, self).__init__(config)
        self.model = MPLUGOwl2Model(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """(images, tokens, d): what the abstractor makes of images (images, 3, h, w)."""
        return self.model.get_image_features(pixel_values)

    @staticmethod
    def looks_like(names: Iterable[str]) -> str | None:
        """Another model that a checkpoint with tensors of these names looks like."""
        return variant_of_names(names)

    def forward(  # type: ignore[override]
        self,
        input_ids: Any = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """As `LlamaForCausalLM`, with `pixel_values` (images, 3, H, W) in the order of their places in the prompts."""
        more: dict[str, Any] = {**kwargs, "pixel_values": pixel_values}
        return super().forward(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=past_key_values, inputs_embeds=inputs_embeds, labels=labels, use_cache=use_cache,
            logits_to_keep=logits_to_keep, **more,
        )  # fmt: skip
