"""The shape of an mPLUG-Owl2, read from the layout of the published `config.json`."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from transformers import CLIPVisionConfig, LlamaConfig, PreTrainedConfig

from neuronwise.errors import ModelError


class MPLUGOwl2VisionConfig(CLIPVisionConfig):
    """Shape of the ViT; the defaults are ViT-L/14 at 448 pixels."""

    model_type = "mplug_owl_vision_model"

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 448  # type: ignore[assignment]
    patch_size: int = 14  # type: ignore[assignment]
    layer_norm_eps: float = 1e-6
    use_cls_token: bool = True
    use_post_layernorm: bool = True


class MPLUGOwl2AbstractorConfig(PreTrainedConfig):
    """Shape of the visual abstractor: `num_learnable_queries` tokens sum up `grid_size`² patches and a class token."""

    model_type = "mplug_owl_visual_abstract"

    num_learnable_queries: int = 64
    hidden_size: int = 1024
    encoder_hidden_size: int = 1024
    intermediate_size: int = 2816
    num_hidden_layers: int = 6
    num_attention_heads: int = 16
    attention_probs_dropout_prob: float = 0.0
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    grid_size: int | None = 32


class MPLUGOwl2Config(LlamaConfig):
    """A LLaMA's configuration with `visual_config`: {"visual_model": …, "visual_abstractor": …}, as published.

    `vision_config` and `abstractor_config` are made from it. `image_token_index` is in the input ids where an
    image's features go; the published vocabulary has no such token, so it is the first id after the vocabulary and has
    no embedding. `image_tokens` is how many of them an image takes: the abstractor's queries and an end token.
    Raises `ModelError` for the encoder of mPLUG-Owl2.1, which is another model.
    """

    model_type = "mplug_owl2"
    sub_configs: ClassVar[Any] = {
        "vision_config": MPLUGOwl2VisionConfig,
        "abstractor_config": MPLUGOwl2AbstractorConfig,
    }

    visual_config: dict[str, Any] | None = None
    image_token_index: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        parts = self.visual_config or {}
        self.vision_config = _known(MPLUGOwl2VisionConfig, parts.get("visual_model"))
        self.abstractor_config = _known(MPLUGOwl2AbstractorConfig, parts.get("visual_abstractor"))
        if not self.vision_config.use_cls_token:
            raise ModelError("This checkpoint's image encoder has no class token: it looks like mPLUG-Owl2.1.")
        side = self.vision_config.image_size // self.vision_config.patch_size
        self.abstractor_config.grid_size = self.abstractor_config.grid_size or 32
        if self.abstractor_config.grid_size != side:
            raise ModelError(
                f"This checkpoint's image encoder gives {side} × {side} patches, but its visual abstractor reads "
                f"{self.abstractor_config.grid_size} × {self.abstractor_config.grid_size}."
            )
        if self.image_token_index is None:
            self.image_token_index = self.vocab_size
        super().__post_init__(**kwargs)

    @property
    def image_tokens(self) -> int:
        """The number of tokens that one image takes: the queries and an end token."""
        return self.abstractor_config.num_learnable_queries + 1

    def to_dict(self) -> dict[str, Any]:
        """The published layout: what is made from `visual_config` is not written beside it."""
        output = super().to_dict()
        for name in ("vision_config", "abstractor_config"):
            output.pop(name, None)
        return output


def _known(kind: type[PreTrainedConfig], published: dict[str, Any] | None) -> Any:
    """`kind` from those published fields that shape the model; the rest are old defaults of every configuration."""
    names = {field.name for field in dataclasses.fields(kind)} - {  # type: ignore[arg-type]
        field.name
        for field in dataclasses.fields(PreTrainedConfig)  # type: ignore[arg-type]
    }
    return kind(**{name: value for name, value in (published or {}).items() if name in names})
