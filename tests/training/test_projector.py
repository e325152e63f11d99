"""The built-in model's training: what a step packs, what a view covers, and the projector that is exported."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch


class Letters:
    """A tokenizer that makes a token of every character."""

    def convert_tokens_to_ids(self, token: str) -> int:
        return 1

    def __call__(self, text: str, **_: object) -> Any:
        offsets = [(at, at + 1) for at in range(len(text))]
        return type("Encoded", (), {"input_ids": [ord(letter) for letter in text], "offset_mapping": offsets})()


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_the_exported_projector_is_llava_s(training: Any, shift: float) -> None:
    torch.manual_seed(0)
    projector = training("projector").Projector(torch.randn(6), 2.5, inputs=6, width=4, shift=shift)
    features, weights = torch.randn(3, 6), projector.exported()
    hidden = torch.nn.functional.gelu(features @ weights["linear_1.weight"].T + weights["linear_1.bias"])
    plain = hidden @ weights["linear_2.weight"].T + weights["linear_2.bias"]
    torch.testing.assert_close(plain, projector(features), rtol=1e-4, atol=1e-4)


def test_a_widened_projector_is_the_same_and_exports_the_same(training: Any) -> None:
    torch.manual_seed(0)
    narrow = training("projector").Projector(torch.randn(6), 2.5, inputs=6, width=4, shift=0.0)
    wide, features = narrow.widened(torch.randn(3), torch.tensor([0.5, 1.0, 2.0])), torch.randn(5, 9)
    torch.testing.assert_close(wide(features), narrow(features[:, :6]), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        wide.linear_1.weight.normal_()
    weights = wide.exported()
    hidden = torch.nn.functional.gelu(features @ weights["linear_1.weight"].T + weights["linear_1.bias"])
    plain = hidden @ weights["linear_2.weight"].T + weights["linear_2.bias"]
    torch.testing.assert_close(plain, wide(features), rtol=1e-4, atol=1e-4)


def test_merged_adapters_speak_as_they_were_trained(training: Any) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from neuronwise.architectures.builtin import merged

    config = LlamaConfig(
        vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2
    )  # fmt: skip
    model, plain = LlamaForCausalLM(config).eval(), LlamaForCausalLM(config).eval()
    plain.load_state_dict(model.state_dict())
    adapters, ids = training("lora").adapt(model, rank=3), torch.arange(6)[None]
    torch.testing.assert_close(model(ids).logits, plain(ids).logits, rtol=0, atol=0)
    assert len(adapters) == 2 * 7 * 2
    with torch.no_grad():
        for factor in adapters.values():
            factor.normal_(std=0.3)
    plain.model.load_state_dict(merged(plain.model.state_dict(), adapters))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-4)


def test_left_out_image_tokens_leave_the_positions_of_all_others(training: Any) -> None:
    captions = training("captions")
    packer = captions.Packer(Letters(), image_tokens=6, image_token_id=7, object_weight=1.0)
    samples = [captions.Sample("p", ["ab", "c"])]
    kept = torch.tensor([[True, False, True, True, False, False]])
    whole, part = packer.pack(samples), packer.pack(samples, kept)
    width = int((part["ids"] == 7).sum())
    assert width == 3
    assert int((whole["ids"] == 7).sum()) == 6
    assert part["targets"].tolist() == whole["targets"].tolist()
    # Three rows earlier, at the same positions.
    before, after = whole["rows"][whole["weights"] > 0], part["rows"][part["weights"] > 0]
    assert (before - after).tolist() == [3] * len(after)
    assert whole["positions"][0, before].tolist() == part["positions"][0, after].tolist()


def test_coverage_follows_crop_and_mirror(training: Any, tmp_path: Path) -> None:
    square = [[0, 0, 32, 0, 32, 32, 0, 32]]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 64}],
        "categories": [{"id": 5, "name": "cat"}, {"id": 6, "name": "person"}],
        "annotations": [{"image_id": 1, "category_id": 5, "segmentation": square, "iscrowd": 0}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    masks, views = training("masks").Masks(tmp_path / "instances.json"), training("views")
    photo, words = training("photos").Photo(tmp_path / "a.jpg"), {"cat": 0, "person": 1}

    whole, known = masks.cells(photo, views.View(0), words)
    assert known.min() == 1
    upper_left = np.zeros((8, 8))
    upper_left[:4, :4] = 1
    np.testing.assert_allclose(whole[:, 0].reshape(8, 8), upper_left, atol=0.05)
    mirrored, _ = masks.cells(photo, views.View(0, flip=True), words)
    np.testing.assert_allclose(mirrored[:, 0].reshape(8, 8), upper_left[:, ::-1], atol=0.05)
    inner, _ = masks.cells(photo, views.View(0, box=(0, 0, 0.5, 0.5)), words)
    assert inner[:, 0].min() > 0.9
    assert inner[:, 1].max() == 0


def test_views_are_drawn_the_same_every_time(training: Any, tmp_path: Path) -> None:
    views, photos = training("views"), [training("photos").Photo(tmp_path / "a.jpg")] * 3
    assert views.draw_views(photos, "1") == views.draw_views(photos, "1")
    assert views.draw_views(photos, "1") != views.draw_views(photos, "2")
    left, top, right, bottom = views.cropped(0, random.Random(0), 0.4, (0.2, 0.2, 0.8, 0.6)).box
    assert 0.2 <= left < right <= 0.8 + 1e-9
    assert 0.2 <= top < bottom <= 0.6 + 1e-9
