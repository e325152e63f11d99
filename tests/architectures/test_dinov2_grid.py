"""The vision tower of joined DINOv2 patches: its grid, and the published weights under transformers' names."""

import pathlib

import pytest
import torch
from transformers import AutoModel

from neuronwise.architectures.dinov2_grid import (
    Dinov2GridConfig,
    Dinov2GridModel,
    join_patches,
    load_published_weights,
    read_published_weights,
)

TINY: dict[str, object] = {
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "image_size": 28,
    "patch_size": 14,
}


def tiny_tower() -> Dinov2GridModel:
    torch.manual_seed(0)
    return Dinov2GridModel(Dinov2GridConfig(image_size=112, encoder=TINY, hidden_size=32)).eval()


def test_neighboring_patches_become_one_feature_row_by_row() -> None:
    numbers = torch.arange(4 * 6).view(1, 24, 1).float()
    joined = join_patches(numbers, rows=4, columns=6, merge=2)
    assert joined.shape == (1, 6, 4)
    # The second cell of the second row of cells: patch rows 2 and 3, columns 2 and 3.
    assert joined[0, 4].tolist() == [14, 15, 20, 21]


def test_the_tower_joins_what_the_encoder_sees_and_leaves_the_class_token_out() -> None:
    tower, photo = tiny_tower(), torch.randn(2, 3, 56, 112)
    with torch.no_grad():
        features, patches = tower(photo), tower.encoder(photo).last_hidden_state[:, 1:]
    assert features.last_hidden_state.shape == (2, 2 * 4, 4 * 8)
    assert features.hidden_states[-1] is features.last_hidden_state
    # The last cell holds the lower right patches of the 4 × 8.
    torch.testing.assert_close(features.last_hidden_state[:, -1], patches[:, [22, 23, 30, 31]].flatten(1))


@pytest.mark.parametrize("shape", [(1, 1, 56, 56), (1, 3, 56, 42), (3, 56, 56)])
def test_other_pixels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiples of 28"):
        tiny_tower()(torch.zeros(shape))


def test_the_tower_is_saved_and_opened(tmp_path: pathlib.Path) -> None:
    tower, photo = tiny_tower(), torch.randn(1, 3, 112, 112)
    tower.save_pretrained(tmp_path)
    opened = AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(opened(photo).last_hidden_state, tower(photo).last_hidden_state)


def test_an_onnx_file_s_matrices_are_found_by_their_nodes(tmp_path: pathlib.Path) -> None:
    onnx = pytest.importorskip("onnx", reason="pip install onnx")
    constants, nodes = published(onnx, tiny_tower().encoder)
    graph = onnx.helper.make_graph(nodes, "tiny", [], [], constants)
    onnx.save(onnx.helper.make_model(graph), str(tmp_path / "tiny.onnx"))

    torch.manual_seed(1)
    other = Dinov2GridModel(Dinov2GridConfig(image_size=112, encoder=TINY, hidden_size=32)).eval()
    load_published_weights(other.encoder, read_published_weights(tmp_path / "tiny.onnx"))
    photo = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(other(photo).last_hidden_state, tiny_tower()(photo).last_hidden_state)


def published(onnx: object, encoder: torch.nn.Module) -> tuple[list[object], list[object]]:
    """An encoder's weights as an exported graph holds them: matrices transposed, under numbers for names."""
    make = onnx.numpy_helper.from_array  # type: ignore[attr-defined]
    nodes, constants = [], []
    # The names of the attention's matrices depend on transformers' release; the exported names do not.
    exported = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value"}
    exported |= {"o_proj": "output.dense"}
    for name, value in encoder.state_dict().items():
        for ours, theirs in exported.items():
            name = name.replace(ours, theirs)
        if name == "embeddings.position_embeddings":
            constants += [make(value[:, :1].numpy(), "onnx::Concat_7"), make(value[:, 1:].numpy(), "onnx::Reshape_8")]
        elif name.startswith("encoder.layer") and value.ndim == 2:
            matrix, module = f"onnx::MatMul_{len(nodes)}", name.removesuffix(".weight")
            constants.append(make(value.T.contiguous().numpy(), matrix))
            parts = module.split(".")
            path = "/".join(["", "backbone", "encoder", f"layer.{parts[2]}", *parts[3:], "MatMul"])
            nodes.append(onnx.helper.make_node("MatMul", ["x", matrix], ["y"], name=path))  # type: ignore[attr-defined]
        elif name != "embeddings.mask_token":
            constants.append(make(value.numpy(), f"backbone.{name}"))
    return constants, nodes
