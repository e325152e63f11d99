"""What finding and editing take beside the weights; run by ``test_devices``, in a process that did nothing before."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch

import neuronwise as nw
from neuronwise import edit as editing
from neuronwise.data.facts import Fact
from neuronwise.measure.cost import costs

FACT = Fact("the capital of {} is", "France", "house")
PROMPT, TARGET = "the capital of France is", " Paris"
SEARCHED = {"v_num_grad_steps": 3, "context_template_length_params": ((3, 2),)}


@pytest.fixture(scope="module")
def wide(tiny_tokenizer: Any) -> nw.Model:
    """200 MB of weights in half precision, beside which a short prompt takes nothing."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=512, intermediate_size=2048, num_hidden_layers=28, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=64, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    module = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16).eval()
    return nw.Model(module, tiny_tokenizer, name="wide")


WORK: dict[str, Callable[[nw.Model, nw.Run], Any]] = {
    "find": lambda model, run: nw.locate(model, run, target=TARGET, top=10),
    "gradients": lambda model, run: nw.locate(model, run, target=TARGET, top=10, method="gradient_activation"),
    "fine": lambda model, run: nw.fine(model, FACT, steps=3),
    "rome": lambda model, run: editing.rome(model, FACT, layers=(3,), **SEARCHED),
}


@pytest.mark.parametrize("name", WORK)
def test_nothing_keeps_a_second_copy_of_the_weights(name: str, wide: nw.Model) -> None:
    weights = sum(p.numel() * p.element_size() for p in wide.module.parameters())
    run = wide.run(prompt=PROMPT, max_new_tokens=0, chat=False)
    with editing.without_verdict():
        WORK[name](wide, run)  # what is loaded and kept once is no part of it
    peaks: list[int] = []
    for _ in range(2):  # the system may take pages away and bring them back: the least growth is the work's own
        gc.collect()
        with costs(wide) as cost:
            with editing.without_verdict():  # it takes what the pass below takes, for ten times as long
                made = WORK[name](wide, run)
            if isinstance(made, nw.Edit):
                with made.applied(wide):
                    wide.forward(run.prompted.inputs, rows=[-1])
        if cost.peak_memory is None:
            pytest.skip("this system does not tell how much memory a process has taken")
        peaks.append(cost.peak_memory)
        del made
    assert min(peaks) < 0.3 * weights
