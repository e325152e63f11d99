"""DINOv2 as a vision tower whose neighboring patches are joined: a photo becomes an 8 × 8 grid of features.

The encoder is transformers' own `Dinov2Model` (Oquab et al. 2023, arXiv:2304.07193). Its class token is left out, and
`merge` × `merge` neighboring patches become one feature, so that a language model reads a quarter as many image tokens.
Importing this file registers the tower with `AutoConfig` and `AutoModel`, so that a LLaVA folder whose vision config
names `dinov2_grid` opens with `from_pretrained`.
"""

import pathlib
from collections.abc import Mapping

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, Dinov2Config, Dinov2Model, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling


class Dinov2GridConfig(PreTrainedConfig):
    """Shape of the tower; the defaults are DINOv2-small on 224 × 224 pixels, 2 × 2 patches joined.

    `encoder` holds what `Dinov2Config` takes. `patch_size` is the side of a joined cell in pixels: an image of
    `image_size` pixels gives a grid of (image_size / patch_size)² features of `hidden_size`.
    """

    model_type = "dinov2_grid"

    image_size: int = 224
    merge: int = 2
    encoder: dict[str, object] | None = None
    patch_size: int = 28
    hidden_size: int = 1536
    num_channels: int = 3
    initializer_range: float = 0.02

    @property
    def encoder_config(self) -> Dinov2Config:
        """The encoder's own config."""
        return Dinov2Config.from_dict(dict(self.encoder or SMALL))


SMALL: dict[str, object] = {
    "hidden_size": 384,
    "num_attention_heads": 6,
    "num_hidden_layers": 12,
    "image_size": 518,
    "patch_size": 14,
}
"""DINOv2-small, whose position embeddings are those of 37 × 37 patches."""


class Dinov2GridModel(PreTrainedModel):
    """Maps photos (B, 3, H, W) to features (B, H/28 · W/28, 4 · 384), row by row from the top left."""

    config_class = Dinov2GridConfig
    base_model_prefix = "grid"
    main_input_name = "pixel_values"
    input_modalities = ["image"]

    def __init__(self, config: Dinov2GridConfig):
        super().__init__(config)
        self.encoder = Dinov2Model(config.encoder_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The patch embeddings."""
        return self.encoder.get_input_embeddings()

    def forward(self, pixel_values: torch.Tensor, **_: object) -> BaseModelOutputWithPooling:
        """Return the joined features as `last_hidden_state` and as the last of `hidden_states`.

        Raises:
            ValueError: the pixels are not (B, 3, H, W) with sides that are multiples of `patch_size`.
        """
        side = self.config.patch_size
        if pixel_values.ndim != 4 or pixel_values.shape[1] != 3 or any(n % side for n in pixel_values.shape[2:]):
            raise ValueError(
                f"pixels must be (B, 3, H, W) with H and W multiples of {side}, not {tuple(pixel_values.shape)}"
            )
        patches = self.encoder(pixel_values).last_hidden_state[:, 1:]
        rows, columns = (n // (side // self.config.merge) for n in pixel_values.shape[2:])
        features = join_patches(patches, rows, columns, self.config.merge)
        return BaseModelOutputWithPooling(
            last_hidden_state=features,  # type: ignore[arg-type]
            pooler_output=features.mean(1),  # type: ignore[arg-type]
            hidden_states=(features,),  # type: ignore[arg-type]
        )


def join_patches(patches: torch.Tensor, rows: int, columns: int, merge: int) -> torch.Tensor:
    """Join `merge` × `merge` neighboring patches (B, rows · columns, d) to features (B, cells, merge² · d)."""
    grid = patches.unflatten(1, (rows // merge, merge, columns // merge, merge))
    return grid.permute(0, 1, 3, 2, 4, 5).flatten(3, 5).flatten(1, 2)


AutoConfig.register("dinov2_grid", Dinov2GridConfig, exist_ok=True)
AutoModel.register(Dinov2GridConfig, Dinov2GridModel, exist_ok=True)

_MATMULS = {
    "attention/attention/query": "attention.attention.query",
    "attention/attention/key": "attention.attention.key",
    "attention/attention/value": "attention.attention.value",
    "attention/output/dense": "attention.output.dense",
    "mlp/fc1": "mlp.fc1",
    "mlp/fc2": "mlp.fc2",
}
# Newer releases of transformers name the attention's matrices otherwise.
_RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def read_published_weights(path: pathlib.Path) -> dict[str, torch.Tensor]:
    """Return a DINOv2 backbone's weights out of an ONNX file, under the names of transformers' first releases.

    Biases and norms keep their names in such a file; matrices are known by the node that multiplies with them, and are
    transposed; the position embeddings are split into the class token's and the patches'.
    """
    import onnx  # pyright: ignore[reportMissingImports]
    from onnx import numpy_helper  # pyright: ignore[reportMissingImports]

    graph = onnx.load(str(path)).graph
    constants = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in graph.initializer}
    prefix = "backbone."
    weights = {name.removeprefix(prefix): value for name, value in constants.items() if name.startswith(prefix)}
    for node in graph.node:
        parts = node.name.strip("/").split("/")
        if node.op_type == "MatMul" and parts[0] == "backbone" and node.input[1] in constants:
            module = _MATMULS["/".join(parts[3:-1])]
            weights[f"encoder.{parts[2]}.{module}.weight"] = constants[node.input[1]].T.contiguous()
    positions = [value for name, value in constants.items() if name.startswith("onnx::") and value.ndim == 3]
    # The class token's row is the shorter of the two.
    weights["embeddings.position_embeddings"] = torch.cat(sorted(positions, key=lambda value: value.shape[1]), dim=1)
    weights["embeddings.mask_token"] = torch.zeros(1, weights["embeddings.cls_token"].shape[-1])
    return weights


def load_published_weights(encoder: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Load weights that `read_published_weights` gave into a `Dinov2Model`, whatever names its release uses."""
    expected = encoder.state_dict()
    renamed = {}
    for name, value in weights.items():
        if name not in expected:
            for old, new in _RENAMED.items():
                name = name.replace(old, new)
        renamed[name] = value
    encoder.load_state_dict(renamed)
