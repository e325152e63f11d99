"""Two encoders side by side as a vision tower: DINOv2 says what belongs together where, EfficientNet-Lite what it is.

Each cell of DINOv2's joined grid gets the features of both, a mixture of features (Tong et al. 2024, arXiv:2401.06209).
EfficientNet-Lite has a stride of 32 pixels where a cell of DINOv2 is 28 wide, so it sees the photo enlarged by 32/28.
Importing this file registers the tower with `AutoConfig` and `AutoModel`.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from neuronwise.architectures.dinov2_grid import Dinov2GridConfig, Dinov2GridModel
from neuronwise.architectures.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, by which the tower's pixels are normalized, as DINOv2 expects them."""


class PairedGridConfig(PreTrainedConfig):
    """Shape of the tower; the defaults are DINOv2-small and EfficientNet-Lite2 on 224 × 224 pixels.

    `dinov2` and `efficientnet` hold what the encoders' own configs take.
    """

    model_type = "paired_grid"

    image_size: int = 224
    patch_size: int = 28
    hidden_size: int = 2816
    num_channels: int = 3
    dinov2: dict[str, object] | None = None
    efficientnet: dict[str, object] | None = None


class PairedGridModel(PreTrainedModel):
    """Maps photos (B, 3, H, W) to features (B, H/28 · W/28, 1536 + 1280), row by row from the top left."""

    config_class = PairedGridConfig
    base_model_prefix = "pair"
    main_input_name = "pixel_values"
    input_modalities = ["image"]

    def __init__(self, config: PairedGridConfig):
        super().__init__(config)
        self.dinov2 = Dinov2GridModel(Dinov2GridConfig.from_dict(dict(config.dinov2 or {})))
        self.efficientnet = EfficientNetLiteModel(EfficientNetLiteConfig.from_dict(dict(config.efficientnet or {})))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """DINOv2's patch embeddings."""
        return self.dinov2.get_input_embeddings()

    def efficientnet_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return EfficientNet-Lite's features (B, cells, 1280) of pixels that are normalized for DINOv2."""
        mean, deviation = (pixel_values.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
        # EfficientNet-Lite was trained on (pixel - 127) / 128.
        own = ((pixel_values * deviation + mean) * 255 - 127) / 128
        stride, side = self.efficientnet.config.patch_size, self.config.patch_size
        rows, columns = (size // side * stride for size in own.shape[2:])
        own = nn.functional.interpolate(own, (rows, columns), mode="bilinear", align_corners=False)
        features: torch.Tensor = self.efficientnet(own).last_hidden_state
        return features

    def forward(self, pixel_values: torch.Tensor, **_: object) -> BaseModelOutputWithPooling:
        """Return both encoders' features, joined cell by cell, as `last_hidden_state` and last of `hidden_states`.

        Raises:
            ValueError: the pixels are not (B, 3, H, W) with sides that are multiples of `patch_size`.
        """
        seen = self.dinov2(pixel_values).last_hidden_state
        features = torch.cat([seen, self.efficientnet_features(pixel_values).to(seen.dtype)], dim=-1)
        return BaseModelOutputWithPooling(
            last_hidden_state=features,  # type: ignore[arg-type]
            pooler_output=features.mean(1),  # type: ignore[arg-type]
            hidden_states=(features,),  # type: ignore[arg-type]
        )


AutoConfig.register("paired_grid", PairedGridConfig, exist_ok=True)
AutoModel.register(PairedGridConfig, PairedGridModel, exist_ok=True)
