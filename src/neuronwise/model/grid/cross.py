"""Models that read the photo by cross-attention from the text: the sequence holds no patches.

What a neuron fires for is then what its token has read. The heat of a cell is the mean over the tokens, from the
image's mark to the last that was said, of the neuron's activation times that token's attention to the cell, where the
attention is the mean over the heads of all cross-attention layers up to the neuron's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from neuronwise.errors import PromptError
from neuronwise.model.grid.attention import kept_attention
from neuronwise.model.grid.layout import ImageGrid, Shape, View, joined, within
from neuronwise.model.grid.traced import Traced, pixels_of, trace
from neuronwise.model.grid.views import patch_size, views_of
from neuronwise.model.hooks import Hooks
from neuronwise.model.passes import stop_after

if TYPE_CHECKING:
    from neuronwise.model.run import Run

STATES = "cross_attention_states"  # what such a module looks at, among its arguments


def crossing(run: Run) -> dict[int, str]:
    """Decoder layer → the path of its cross-attention, empty for models without."""
    paths = {id(module): path for path, module in run.model.module.named_modules()}
    found = {}
    for block in run.model.blocks:
        for name, child in block.module.named_modules():
            if name in ("cross_attn", "crossattention"):
                found[block.layer] = paths[id(child)]
    return found


def through_cross_attention(run: Run, layers: dict[int, str], start: int, trace: Traced | None) -> ImageGrid:
    """The grid of the encoder's patches, with what the decoder had seen of them at each layer."""
    with torch.no_grad(), kept_attention(run.model.module, layers.values()) as caught:
        run.model.forward(run.forced_inputs(), rows=[-1])
    seen = {layer: caught[path][0].float().mean(0).cpu() for layer, path in layers.items() if path in caught}
    if not seen:
        raise PromptError("The cross-attention of this model does not show where it looks, so there is no map.")
    first = min(seen)
    laid, note = _cells(run, seen[first].shape[-1], trace)
    rows = torch.arange(start, run.length)
    mixing_of, total, looks = {}, torch.zeros(len(laid.index), len(rows)), 0
    for layer in range(run.model.num_layers):
        if layer in seen:
            total = total + seen[layer][start:, laid.index].T
            looks += 1
        mixing_of[layer] = total / (max(looks, 1) * len(rows))
    text = (
        "through cross-attention: where the tokens of prompt and text looked, weighted by the activations there"
        + (f"; neurons below layer {first} have seen no image" if first else "")
    )  # fmt: skip
    return ImageGrid(
        rows, laid.rows, laid.columns, laid.box, mixing_of[run.model.num_layers - 1],
        text if note is None else f"{text}; {note}", said=True, mixing_of=mixing_of,
    )  # fmt: skip


def states_grid(run: Run) -> ImageGrid:
    """The grid of the states themselves that the cross-attention looks at; ``positions`` count them, tile by tile."""
    path = next(iter(crossing(run).values()))
    reader = run.model.module.get_submodule(path)
    seen: list[int] = []
    with Hooks() as hooks, torch.no_grad(), stop_after(reader):
        hooks.before(reader, lambda module, args, kwargs: seen.append(kwargs[STATES][..., 0].numel()))
        run.model.forward(run.prompted.inputs, rows=[-1])
    view, note = _cells(run, seen[0], trace(run))
    assert run.image is not None
    return within(ImageGrid(view.index, view.rows, view.columns, view.box, note=note), *run.image.size)


def _cells(run: Run, keys: int, trace: Traced | None) -> tuple[View, str | None]:
    """Which keys are patches of the photo, as one view of it."""
    pixels, size = pixels_of(run.prompted.inputs), patch_size(run)
    unknown = PromptError("The patches that this model's cross-attention reads form no grid that is known.")
    if pixels is None or pixels.dim() < 4 or size is None:
        raise unknown
    tiles = pixels.reshape(-1, *pixels.shape[-3:]).shape[0]
    rows, columns = (side // size for side in pixels.shape[-2:])
    class_token = keys // tiles - rows * columns
    if keys % tiles or class_token not in (0, 1):
        raise unknown
    shape = Shape(rows, columns, first=class_token)
    held = sum(box is not None for box in trace.tiles()) if trace is not None else tiles
    found = views_of(run, torch.arange(keys)[: held * (keys // tiles)], trace, shape, size)
    laid = joined(found) if found else None
    if laid is None:
        raise unknown
    return laid
