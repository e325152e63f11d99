"""Checkpoints of training scripts that put "module." before every name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from neuronwise.architectures.convert.plan import Plan, state_names, taken
from neuronwise.architectures.convert.weights import open_weights
from neuronwise.errors import ModelError

PREFIX = "module."


def plan(parts: Sequence[Path]) -> Plan:
    """One folder: what each tensor of the new checkpoint is made of, and what else is written beside it."""
    if len(parts) != 1 or not (parts[0] / "config.json").is_file():
        raise ModelError("The converter 'prefixed' takes one folder with a config.json.")
    folder = parts[0]
    config = AutoConfig.from_pretrained(folder)
    weights = open_weights(folder)
    model_class = type(AutoModelForCausalLM.from_config(config))
    recipes = {name: taken(weights, PREFIX + name) for name in state_names(model_class, config)}
    first = next(iter(weights.tensors.values()))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return Plan(
        "prefixed", config.model_type, model_class, config, recipes, [weights],
        lambda out: tokenizer.save_pretrained(out), first.dtype,
    )  # fmt: skip
