"""The direct path in closed form is the direct path of a pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from families import NAMES, tiny
from neuronwise.locate.shares import direct_shares
from neuronwise.model import Model, Run, closed_form
from neuronwise.model.prompt import Prompted
from neuronwise.model.stream import ALL

# Norms behind blocks, gates behind experts, norms without weights, layers that only photos reach.
WITHOUT = {
    "gemma2", "gemma3", "gemma3_text", "gemma4_text", "olmo", "olmo2", "glm4", "nanochat", "qwen2_moe", "qwen3_next",
    "jetmoe", "t5", "flan_t5", "bart", "switch_transformers", "mllama", "zamba2",
}  # fmt: skip


@pytest.fixture
def wordless(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny models have no tokenizer: the text is tried by its tokens."""
    ids = torch.tensor([[5, 9, 17, 23, 8]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    monkeypatch.setattr(closed_form, "text_inputs", lambda model, text: inputs)


def recorded(model: Model, inputs: dict[str, Any]) -> Run:
    run = Run(model, Prompted("", False, inputs), [7, 12], [])
    run.keep([0, 2], run.rows([run.row(0), run.row(2)]))
    return run


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("wordless")
def test_it_gives_what_a_pass_gives(name: str) -> None:
    module, inputs = tiny(name)
    model = Model(module)
    form = closed_form.closed_form(model)
    assert (form is None) == (name in WITHOUT)
    if form is None:
        return
    run = recorded(model, inputs)
    readouts = [(0, {29: 1.0, ALL: -1.0}), (2, {3: 1.0, 40: -0.5, 41: -0.5})]
    expected = direct_shares(model, run, readouts)
    streams = [run.activations(position).stream for position, _ in readouts]
    pairs = [(stream[0], weights) for stream, (_, weights) in zip(streams, readouts, strict=True) if stream is not None]
    found = form.gradients(model, pairs)
    assert found.values == pytest.approx(expected.values, rel=1e-4, abs=1e-4)
    for ours, theirs in zip(found.gradients, expected.gradients, strict=True):
        assert set(ours) == set(theirs)
        for site, gradient in theirs.items():
            torch.testing.assert_close(ours[site], gradient, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        logits = model.forward(run.forced_inputs(), rows=[run.row(2)])[0, 0]
    torch.testing.assert_close(form.logits(model, pairs[1][0]), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("wordless")
def test_hooks_of_others_and_turned_signs_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(tiny("llama")[0])
    assert closed_form.closed_form(model) is not None
    handle = model.blocks[1].module.register_forward_hook(lambda module, args, output: output)
    assert closed_form.closed_form(model) is None
    handle.remove()
    assert closed_form.closed_form(model) is not None
    head = model.head.forward
    monkeypatch.setattr(model.head, "forward", lambda hidden: -head(hidden))
    monkeypatch.setattr(model, "_memos", {})
    assert closed_form.closed_form(model) is None
