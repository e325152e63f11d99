"""Seeing the attention weights of some modules during a pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from neuronwise.model.hooks import After, Args, Hooks, Kwargs
from neuronwise.model.passes import configured


@contextlib.contextmanager
def kept_attention(module: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Within the body, what the named submodules attend to: name → (batch, heads, queries, keys), of their last call.

    A submodule that shows no weights is left out.
    """
    caught: dict[str, Tensor] = {}
    with Hooks() as hooks, shown_attention(module):
        for name in names:
            hooks.after(module.get_submodule(name), _keeper(caught, name))
        yield caught


def _keeper(caught: dict[str, Tensor], name: str) -> After:
    def keep(module: nn.Module, args: Args, kwargs: Kwargs, output: object) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if isinstance(weights, Tensor) and weights.dim() in (3, 4):  # three where heads were averaged before
            caught[name] = (weights if weights.dim() == 4 else weights[:, None]).detach()

    return keep


def shown_attention(module: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Attention computed plainly within the body, so that its weights can be seen."""
    return configured(module, "_attn_implementation", "eager")
