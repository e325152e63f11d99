"""Models that learn an embedding for each position: left of a prompt, padding must not move its positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import neuronwise as nw
from neuronwise.answers.free import continued
from neuronwise.model.batches import batch, batching, text_inputs
from neuronwise.model.stacking import padded

PROMPTS = ("the cat", "a dog sits on the red mat", "the capital of France is", "cat")
LEARNED = ("gpt2", "gpt_neo", "gpt_bigcode", "opt")


def uneven(model: nw.Model) -> None:
    """Positions that differ by much more than in a fresh model: one taken for another shows."""
    tables = [one for name, one in model.module.named_parameters() if "wpe" in name or "embed_positions" in name]
    assert len(tables) == 1
    with torch.no_grad():
        tables[0].copy_(torch.randn(tables[0].shape, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", LEARNED)
def test_left_padded_passes_are_those_of_each_prompt(name: str, make: Any) -> None:
    model = make(name)
    uneven(model)
    rows = [text_inputs(model, prompt) for prompt in PROMPTS]
    together = batch(model, rows, "left")
    assert batching(model).passes
    assert batching(model).left
    assert len(set(together.starts)) > 1
    places = [list(range(start, start + n)) for start, n in zip(together.starts, together.lengths, strict=True)]
    found = model.forward(together.inputs, rows=places)[0].split(list(together.lengths))
    for row, logits in zip(rows, found, strict=True):
        with torch.no_grad():
            alone = model.module(input_ids=row["input_ids"]).logits[0]
        torch.testing.assert_close(logits, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", LEARNED)
def test_left_padded_continuations_are_those_of_each_prompt(name: str, make: Any) -> None:
    model = make(name)
    uneven(model)
    rows = [text_inputs(model, prompt) for prompt in PROMPTS]
    for row, said in zip(rows, continued(model, rows, [5] * len(rows), least=True), strict=True):
        ids = row["input_ids"]
        for _ in range(5):
            with torch.no_grad():
                logits = model.module(input_ids=ids).logits[:, -1:]
            logits[..., model.tokenizer.eos_token_id] = -torch.inf
            ids = torch.cat([ids, logits.argmax(-1)], 1)
        assert said == ids[0, row["input_ids"].shape[1] :].tolist()


def test_positions_that_count_the_padding_would_show(make: Any) -> None:
    model = make("gpt2")
    uneven(model)
    rows = [text_inputs(model, prompt) for prompt in PROMPTS]
    counted = model.forward(padded(rows, "left"), rows=[-1])
    right = model.forward(batch(model, rows, "left").inputs, rows=[-1])
    assert float((counted[0] - right[0]).abs().max()) > 0.1
