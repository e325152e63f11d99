"""EfficientNet-Lite as a transformers vision tower: a photo becomes a 7 × 7 grid of features.

The architecture is EfficientNet (Tan & Le 2019, arXiv:1905.11946) in its Lite variant: ReLU6 instead of swish, no
squeeze-and-excitation, stem and head not scaled. Importing this file registers it with `AutoConfig` and `AutoModel`,
so that a LLaVA folder whose vision config says `efficientnet_lite` opens with `from_pretrained`.
"""

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling


class EfficientNetLiteConfig(PreTrainedConfig):
    """Shape of an EfficientNet-Lite encoder; the defaults are Lite2.

    `stages` holds one (blocks, kernel, stride, expansion, channels) for each stage. `patch_size` is the encoder's
    total stride: an image of `image_size` pixels gives a grid of (image_size / patch_size)² features of `hidden_size`.
    """

    model_type = "efficientnet_lite"

    image_size: int = 224
    patch_size: int = 32
    num_channels: int = 3
    stem_channels: int = 32
    stages: list[list[int]] | tuple[tuple[int, ...], ...] = (
        (1, 3, 1, 1, 16),
        (3, 3, 2, 6, 24),
        (3, 5, 2, 6, 48),
        (4, 3, 2, 6, 88),
        (4, 5, 1, 6, 120),
        (5, 5, 2, 6, 208),
        (1, 3, 1, 6, 352),
    )
    hidden_size: int = 1280
    batch_norm_eps: float = 1e-3
    initializer_range: float = 0.02


class SamePaddedConv(nn.Conv2d):
    """A convolution padded as TensorFlow's "same": an odd pixel of padding goes right and below, not left and above."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        # F.pad wants the last dimension first: left, right, top, bottom.
        padding: list[int] = []
        for axis in (1, 0):
            size, kernel, stride = input.shape[2 + axis], self.kernel_size[axis], self.stride[axis]
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(nn.functional.pad(input, padding) if any(padding) else input)


class ConvNorm(nn.Module):
    """Convolution, frozen batch norm and, where `activate`, ReLU6."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int, eps: float, activate: bool):
        super().__init__()
        self.conv = SamePaddedConv(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=eps)
        self.activate = activate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        norm = self.norm
        # The statistics are those of ImageNet, also where the surrounding model is in training mode.
        x = nn.functional.batch_norm(
            self.conv(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
        )
        return nn.functional.relu6(x) if self.activate else x


class InvertedResidual(nn.Module):
    """MBConv: widen by `expansion`, convolve each channel alone, project back; with a residual where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, eps: float):
        super().__init__()
        wide = inputs * expansion
        self.expand = ConvNorm(inputs, wide, 1, 1, 1, eps, True) if expansion > 1 else None
        self.depthwise = ConvNorm(wide, wide, kernel, stride, wide, eps, True)
        self.project = ConvNorm(wide, outputs, 1, 1, 1, eps, False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x if self.expand is None else self.expand(x)
        projected = self.project(self.depthwise(wide))
        return x + projected if self.residual else projected


class EfficientNetLiteModel(PreTrainedModel):
    """EfficientNet-Lite without its classifier: pixels (B, 3, H, W) to features (B, H/32 · W/32, hidden_size)."""

    config_class = EfficientNetLiteConfig
    main_input_name = "pixel_values"
    _no_split_modules = ["InvertedResidual"]

    def __init__(self, config: EfficientNetLiteConfig):
        super().__init__(config)
        eps = config.batch_norm_eps
        self.stem = ConvNorm(config.num_channels, config.stem_channels, 3, 2, 1, eps, True)
        blocks, channels = [], config.stem_channels
        for repeats, kernel, stride, expansion, outputs in config.stages:
            for repeat in range(repeats):
                # Only the first block of a stage changes resolution.
                blocks.append(InvertedResidual(channels, outputs, kernel, stride if repeat == 0 else 1, expansion, eps))
                channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = ConvNorm(channels, config.hidden_size, 1, 1, 1, eps, True)
        self.post_init()

    def forward(
        self, pixel_values: torch.Tensor, return_dict: bool | None = None, **kwargs: object
    ) -> BaseModelOutputWithPooling | tuple[torch.Tensor, ...]:
        """Encode photos.

        `last_hidden_state` is (B, grid cells, hidden_size) row by row from the top left, `pooler_output` its mean
        (B, hidden_size), and `hidden_states` holds the last hidden state alone, which is what LLaVA's
        `vision_feature_layer = -1` selects.
        """
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.config.num_channels:
            raise ValueError(
                f"pixel_values must be (B, {self.config.num_channels}, H, W), not {tuple(pixel_values.shape)}."
            )
        x = self.stem(pixel_values.to(self.stem.conv.weight.dtype))
        for block in self.blocks:
            x = block(x)
        features = self.head(x).flatten(2).transpose(1, 2).contiguous()
        output = BaseModelOutputWithPooling(
            last_hidden_state=features,  # type: ignore[arg-type]
            pooler_output=features.mean(1),  # type: ignore[arg-type]
            hidden_states=(features,),  # type: ignore[arg-type]
        )
        return output.to_tuple() if return_dict is False else output


def convert_published_weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the tensors of the published checkpoint to those of `EfficientNetLiteModel`, without the classifier."""
    parts = {
        "_conv_stem": "stem.conv",
        "_bn0": "stem.norm",
        "_conv_head": "head.conv",
        "_bn1": "head.norm",
        "_expand_conv": "expand.conv",
        "_depthwise_conv": "depthwise.conv",
        "_project_conv": "project.conv",
    }
    # Within a block the norms are counted, and a block that does not widen has no first one.
    norms = {"_bn0": "expand.norm", "_bn1": "depthwise.norm", "_bn2": "project.norm"}
    converted: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        path = name.split(".")
        if path[0] == "_fc":
            continue
        if path[0] == "_blocks":
            part = norms[path[2]] if path[2] in norms else parts[path[2]]
            converted[f"blocks.{path[1]}.{part}.{path[3]}"] = tensor
        else:
            converted[f"{parts[path[0]]}.{path[1]}"] = tensor
    return converted


AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig, exist_ok=True)
AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel, exist_ok=True)
