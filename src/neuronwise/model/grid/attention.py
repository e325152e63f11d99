"""Seeing the attention weights of some modules during a pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from neuronwise.model.hooks import Hooks


@contextlib.contextmanager
def kept_attention(module: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Within the body, what the named submodules attend to: name → (batch, heads, queries, keys), of their last call.

    A submodule that shows no weights is left out.
    """
    caught: dict[str, Tensor] = {}
    with Hooks() as hooks, shown_attention(module):
        for name in names:

            def keep(_: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
                weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
                if isinstance(weights, Tensor) and weights.dim() in (3, 4):  # three where heads were averaged before
                    caught[name] = (weights if weights.dim() == 4 else weights[:, None]).detach()

            hooks.after(module.get_submodule(name), keep)
        yield caught


@contextlib.contextmanager
def shown_attention(module: nn.Module) -> Iterator[None]:
    """Attention computed plainly within the body, so that its weights can be seen."""
    configs: dict[int, Any] = {
        id(c): c for m in module.modules() if hasattr(c := getattr(m, "config", None), "_attn_implementation")
    }
    before = {key: config._attn_implementation for key, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation = "eager"
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
