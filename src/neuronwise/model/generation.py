"""Generation by our settings alone: beside its special tokens, what a checkpoint brings changes nothing."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import GenerationConfig

# Which tokens there are, and which may not be generated: the model's own. All else is ours.
KEPT = (
    "eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id", "forced_bos_token_id",
    "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "transformers_version",
)  # fmt: skip


def greedy_settings(own: GenerationConfig, max_new_tokens: int) -> GenerationConfig:
    """A model's generation settings made greedy: its special tokens and entries of its own code, nothing else.

    No sampling, beams, penalties, guidance, least length, stopping texts or prompts in chunks.
    """
    settings = copy.deepcopy(own)
    unset: dict[str, Any] = dict.fromkeys(
        name for name in vars(GenerationConfig()) if name not in KEPT and not name.startswith("_")
    )
    settings.update(**unset)
    settings.update(do_sample=False, num_beams=1, max_new_tokens=max_new_tokens, use_cache=True)
    if settings.pad_token_id is None:
        ends = settings.eos_token_id
        settings.pad_token_id = ends[0] if isinstance(ends, list) else ends
    return settings


@contextlib.contextmanager
def as_set(module: nn.Module, settings: GenerationConfig) -> Iterator[None]:
    """Within the body ``generate`` fills in nothing from the module's own settings."""
    own = module.generation_config
    module.generation_config = settings  # type: ignore[assignment]
    try:
        yield
    finally:
        module.generation_config = own
