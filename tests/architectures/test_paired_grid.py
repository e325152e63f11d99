"""The vision tower of two encoders: each sees the same photo in its own form, cell by cell."""

import pathlib

import torch
from transformers import AutoModel

from neuronwise.architectures.paired_grid import DEVIATION, MEAN, PairedGridConfig, PairedGridModel

TINY: dict[str, object] = {
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "image_size": 28,
    "patch_size": 14,
}


def tiny_pair() -> PairedGridModel:
    torch.manual_seed(0)
    config = PairedGridConfig(
        image_size=112,
        hidden_size=32 + 20,
        dinov2={"encoder": TINY, "hidden_size": 32, "image_size": 112},
        efficientnet={
            "stages": [[1, 3, 2, 1, 8], [2, 5, 2, 3, 12], [1, 3, 2, 3, 12], [1, 3, 2, 3, 12]],
            "stem_channels": 8,
            "hidden_size": 20,
        },
    )
    return PairedGridModel(config).eval()


def test_each_encoder_sees_the_photo_as_it_was_trained_to() -> None:
    tower = tiny_pair()
    photo = torch.randint(0, 256, (1, 3, 112, 84)).float()
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    pixels = (photo / 255 - mean) / deviation
    enlarged = torch.nn.functional.interpolate((photo - 127) / 128, (128, 96), mode="bilinear")
    with torch.no_grad():
        features = tower(pixels)
        apart = tower.dinov2(pixels).last_hidden_state, tower.efficientnet(enlarged).last_hidden_state
    assert features.last_hidden_state.shape == (1, 4 * 3, 32 + 20)
    assert features.hidden_states[-1] is features.last_hidden_state
    torch.testing.assert_close(features.last_hidden_state, torch.cat(apart, dim=-1), rtol=1e-4, atol=1e-4)


def test_the_tower_is_saved_and_opened(tmp_path: pathlib.Path) -> None:
    tower, photo = tiny_pair(), torch.randn(1, 3, 112, 112)
    tower.save_pretrained(tmp_path)
    opened = AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(opened(photo).last_hidden_state, tower(photo).last_hidden_state)
