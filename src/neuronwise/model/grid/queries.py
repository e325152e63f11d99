"""Image tokens that are answers to learnt queries (Q-Former, perceiver resampler, abstractor).

They have no place of their own: their cross-attention to the encoder's patches says where they looked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neuronwise.errors import PromptError
from neuronwise.model.grid.attention import kept_attention
from neuronwise.model.grid.layout import ImageGrid, Shape, joined
from neuronwise.model.grid.traced import Traced, pixels_of
from neuronwise.model.grid.views import patch_size, views_of
from neuronwise.model.passes import stop_after

if TYPE_CHECKING:
    from neuronwise.model.run import Run

RESAMPLERS = {  # a part's name in the model → what it is called
    "qformer": "Q-Former",
    "perceiver_resampler": "resampler",
    "visual_abstractor": "visual abstractor",
    "image_to_text_projection": "resampler",
}
QUERIES_FIRST = ("visual abstractor",)  # among the keys, where queries look at each other too


def resampler(module: nn.Module) -> tuple[nn.Module, str] | None:
    """The part that turns patches into query tokens, and what it is called; ``None`` where tokens are patches."""
    for path, child in module.named_modules():
        name = path.rpartition(".")[2]
        if name in RESAMPLERS:
            return child, RESAMPLERS[name]
        if name == "multi_modal_projector" and any("cross" in inner for inner, _ in child.named_modules()):
            return child, "projector"
    return None


def through_queries(
    run: Run, part: tuple[nn.Module, str], positions: Tensor, trace: Traced | None, whole: bool
) -> ImageGrid:
    """The grid of patches, each token spread over it by its mean attention over layers and heads."""
    module, called = part
    attention = _attention(run, module)
    unknown = PromptError(f"The {called} of this model does not show its attention to patches, so there is no map.")
    if attention is None:
        raise unknown
    views, queries, keys = attention.shape
    if len(positions) < views * queries or len(positions) % views:
        raise unknown
    shape, start = _patches(run, queries, keys, called in QUERIES_FIRST)
    if shape is None:
        raise PromptError(f"The {called} of this model attends to patches in no grid, so there is no map.")
    cells = shape.rows * shape.columns
    laid_out = views_of(run, torch.arange(views * cells), trace, shape, patch_size(run))
    laid = joined(laid_out, whole) if laid_out else None
    if laid is None:
        raise PromptError(f"The photo's views that the {called} of this model reads are in no known order.")
    view, note = laid
    used = sorted(set((view.index // cells).tolist()))
    each = len(positions) // views
    mixing = torch.zeros(views * cells, views * each)
    for number in range(views):
        looked = attention[number, :, start : start + cells].T
        mixing[number * cells : (number + 1) * cells, number * each : number * each + queries] = looked
    columns = torch.cat([torch.arange(number * each, (number + 1) * each) for number in used])
    spread = f"through the {called}'s cross-attention: each query token's value is spread over where it looked"
    return ImageGrid(
        positions[columns], view.rows, view.columns, view.box, mixing[view.index][:, columns].contiguous(),
        spread if note is None else f"{spread}; {note}",
    )  # fmt: skip


def _attention(run: Run, module: nn.Module) -> Tensor | None:
    """(views, queries, keys): the mean over layers and heads, in one pass that ends at the resampler."""
    names = [name for name, child in module.named_modules() if _attends(name, child)]
    crossing = [name for name in names if "cross" in name.lower()]
    with torch.no_grad(), kept_attention(module, crossing or names) as caught, stop_after(module):
        run.model.forward(run.prompted.inputs, rows=[-1])
    found = [weights.float().mean(1).cpu() for weights in caught.values()]
    return torch.stack(found).mean(0) if found and len({one.shape for one in found}) == 1 else None


def _attends(name: str, module: nn.Module) -> bool:
    return "attn" in name.lower() or "attention" in name.lower() or isinstance(module, nn.MultiheadAttention)


def _patches(run: Run, queries: int, keys: int, queries_first: bool) -> tuple[Shape | None, int]:
    """The patches' rows and columns, and where among the keys they begin.

    A class token may stand before them, and the queries themselves behind all or before all.
    """
    pixels = pixels_of(run.prompted.inputs)
    size = patch_size(run)
    if pixels is None or size is None:
        return None, 0
    rows, columns = pixels.shape[-2] // size, pixels.shape[-1] // size
    more = keys - rows * columns
    if more not in (0, 1, queries, queries + 1):
        return None, 0
    class_token = int(more in (1, queries + 1))
    return Shape(rows, columns), class_token + (queries if queries_first and more >= queries else 0)
