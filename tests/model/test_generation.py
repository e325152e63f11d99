"""Generation settings that a checkpoint brings change neither what is generated nor what is recorded."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import neuronwise as nw

SETTINGS: list[dict[str, Any]] = [
    {"guidance_scale": 3.0},
    {"prefill_chunk_size": 2},
    {"num_beams": 4, "num_return_sequences": 3},
    {"repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "encoder_repetition_penalty": 3.0},
    {"do_sample": True, "temperature": 9.0, "top_k": 3, "min_p": 0.2, "typical_p": 0.3},
    {"max_length": 3},
    {"min_length": 30, "min_new_tokens": 20},
    {"sequence_bias": [[[7], 100.0]]},
    {"exponential_decay_length_penalty": [1, 9.0]},
    {"return_dict_in_generate": True, "output_scores": True, "output_logits": True},
    {"prompt_lookup_num_tokens": 2},
    {"cache_implementation": "static"},
    {"use_cache": False},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda one: next(iter(one)))
def test_settings_of_a_checkpoint_change_nothing(model: Any, settings: dict[str, Any]) -> None:
    def run() -> nw.Run:
        return model.run(prompt="the cat sits on the", max_new_tokens=4, chat=False)

    plain = run()
    for name, value in settings.items():
        setattr(model.module.generation_config, name, value)
    own = model.module.generation_config
    found = run()
    assert model.module.generation_config is own
    assert found.output_ids == plain.output_ids
    assert len(found.steps) == len(plain.steps) >= len(found.output_ids)
    for position in range(len(found.output_ids)):
        once, again = found.activations(position).dense, plain.activations(position).dense
        assert all(torch.equal(once[layer], again[layer]) for layer in again)


def test_tokens_that_may_not_be_generated_are_not(model: Any) -> None:
    first = model.run(prompt="the cat sits on the", max_new_tokens=1, chat=False).output_ids
    model.module.generation_config.suppress_tokens = first
    assert model.run(prompt="the cat sits on the", max_new_tokens=1, chat=False).output_ids != first
