"""MiniGPT-4 without a Q-Former (its Llama-2 variant, and MiniGPT-v2): four neighboring patches are one token.

MiniGPT-4 (Zhu et al. 2023, arXiv:2304.10592) on Vicuna is BLIP-2's architecture with a LLaMA decoder, which
transformers has. On Llama-2 the Q-Former is left out: the image encoder's patches, in rows from the top left, are
joined four by four along their features and projected by one linear layer. Importing this file registers the variant
with ``AutoConfig`` and ``AutoModelForImageTextToText``.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    Blip2VisionModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

JOINED = 4  # patches in one token
NORM_EPS = 1e-5  # of the norm after the image encoder, whose own norms have 1e-6


class MiniGPT4PatchesConfig(LlavaConfig):
    """LLaVA's configuration with BLIP-2's image encoder; a token covers ``JOINED`` patches."""

    model_type = "minigpt4_patches"

    def __post_init__(self, **kwargs: Any) -> None:
        if self.vision_config is None:
            self.vision_config = {"model_type": "blip_2_vision_model"}
        super().__post_init__(**kwargs)

    @property
    def image_token_grid(self) -> tuple[int, int] | None:
        """Rows and columns of the image's tokens: each covers ``JOINED`` patches of one row of the photo.

        None where a row of patches cannot be divided so, and tokens reach from one row into the next.
        """
        vision: Any = self.vision_config
        side = vision.image_size // vision.patch_size
        return None if side % JOINED else (side, side // JOINED)


class MiniGPT4PatchesModel(LlavaModel):
    """Image encoder, linear projector and decoder, without the output head."""

    config_class = MiniGPT4PatchesConfig

    def __init__(self, config: MiniGPT4PatchesConfig) -> None:
        super(LlavaModel, self).__init__(config)
        vision: Any = config.vision_config
        decoder: Any = config.text_config
        self.vision_tower = Blip2VisionModel._from_config(vision)
        self.vision_tower.post_layernorm.eps = NORM_EPS
        self.multi_modal_projector = nn.Linear(JOINED * vision.hidden_size, decoder.hidden_size)
        self.language_model = AutoModel.from_config(decoder)
        self.post_init()

    def get_image_features(  # type: ignore[override]
        self, pixel_values: Tensor, return_dict: bool | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Pixels (B, 3, H, W) to ``pooler_output``: for each image its tokens (patches / ``JOINED``, d)."""
        encoded = self.vision_tower(pixel_values, return_dict=True).last_hidden_state
        batch, patches, width = encoded[:, 1:].shape  # without the class token
        joined = encoded[:, 1:].reshape(batch, patches // JOINED, JOINED * width)
        features = self.multi_modal_projector(joined)
        return BaseModelOutputWithPooling(last_hidden_state=encoded, pooler_output=list(features))  # type: ignore[arg-type]


class MiniGPT4PatchesForConditionalGeneration(LlavaForConditionalGeneration):
    """MiniGPT-4 without a Q-Former, as transformers generates with it."""

    config_class = MiniGPT4PatchesConfig

    def __init__(self, config: MiniGPT4PatchesConfig) -> None:
        super(LlavaForConditionalGeneration, self).__init__(config)
        decoder: Any = config.text_config
        self.model = MiniGPT4PatchesModel(config)
        self.lm_head = nn.Linear(decoder.hidden_size, decoder.vocab_size, bias=False)
        self.post_init()


AutoConfig.register(MiniGPT4PatchesConfig.model_type, MiniGPT4PatchesConfig, exist_ok=True)
AutoModelForImageTextToText.register(MiniGPT4PatchesConfig, MiniGPT4PatchesForConditionalGeneration, exist_ok=True)
