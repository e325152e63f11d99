"""A model of an architecture without weights, from its default configuration.

Some defaults are incomplete (a field is None that every checkpoint sets), or belong to the whole of which only the
text part writes. What is missing is filled by plain rules here, for looking at the structure only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn


def default_model(name: str, model_class: str) -> nn.Module:
    """The module on the meta device; raises what the architecture's own code raises when nothing helps."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from neuronwise.architectures.register import IMAGE_TEXT

    cls: Any = IMAGE_TEXT.get(name) or getattr(transformers, model_class)
    first: Exception | None = None
    for make in _configurations(CONFIG_MAPPING[name], cls):
        try:
            config = agreeing(make())
            with torch.device("meta"):
                return cls(config)
        except Exception as error:  # the next configuration may do
            first = first or error
    assert first is not None
    raise first


def _configurations(config_class: Any, cls: Any) -> Iterator[Callable[[], Any]]:
    """Ways to configure ``cls``: as it is, its text part, the class's own kind; then each with gaps filled."""
    own = getattr(cls, "config_class", None) or config_class
    plain = [config_class, lambda: config_class().get_text_config(decoder=True), own]
    yield from plain
    for make in plain:
        yield lambda make=make: filled(make())


def agreeing(config: Any) -> Any:
    """A composite configuration whose own hidden size is that of its text part (Ovis2's defaults differ)."""
    inner = getattr(config.get_text_config(decoder=True), "hidden_size", None)
    if isinstance(getattr(config, "hidden_size", None), int) and isinstance(inner, int):
        config.hidden_size = inner
    return config


def filled(config: Any) -> Any:
    """Fields that are None or missing in the configuration and its parts, set to what they mean when left out."""
    for part in _parts(config):
        for field, value in _defaults(part).items():
            if getattr(part, field, None) in (None, False):
                setattr(part, field, value)
    return config


def _parts(config: Any) -> Iterator[Any]:
    yield config
    for name in getattr(config, "sub_configs", {}):
        part = getattr(config, name, None)
        if part is not None and hasattr(part, "to_dict"):
            yield from _parts(part)


def _defaults(config: Any) -> dict[str, Any]:
    heads = getattr(config, "num_attention_heads", None)
    width = getattr(config, "hidden_size", None)
    layers = getattr(config, "num_hidden_layers", None)
    found: dict[str, Any] = {
        "is_decoder": True, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocabulary_map": {},
        "rope_theta": 10000.0, "n_routed_experts": 8, "num_experts": 8, "num_local_experts": 8,
        "n_shared_experts": 1,
    }  # fmt: skip
    if isinstance(heads, int) and isinstance(width, int):
        found |= {"num_key_value_heads": heads, "head_dim": width // heads}
    if isinstance(layers, int):
        found |= {"layer_types": ["full_attention"] * layers, "mlp_layer_types": ["dense"] * layers}
    return found
