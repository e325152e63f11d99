"""The table of speed: its plain side is the method's definition, and a missed aim is said."""

from __future__ import annotations

from typing import Any

import torch

import neuronwise as nw
from families import tiny
from neuronwise.model.prompt import Prompted


def test_the_plain_side_gives_our_scores(scripts: Any) -> None:
    module, inputs = tiny("llama")
    model = nw.Model(module)
    run = nw.Run.of(model, Prompted("", False, inputs))
    plain = scripts("speed").layer_by_layer(model, run, 29)
    ours = nw.scores(model, run, target=29, method="integrated_gradients")
    largest = max(float(values.abs().max()) for values in plain.values())
    for layer in range(model.num_layers):
        torch.testing.assert_close(ours.layer(layer), plain.layer(layer), rtol=0, atol=1e-4 * largest)


def test_a_missed_aim_is_said(scripts: Any) -> None:
    speed = scripts("speed")
    page = speed.page([speed.Row("a", "b", 1.104, "≤ 1.10"), speed.Row("c", "d", 4.99, "≥ 5", "n")], "command")
    assert "| a | b | 1.10 | ≤ 1.10 |  |" in page
    assert "| c | d | 4.99 | ≥ 5, missed | n |" in page
