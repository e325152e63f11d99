"""How much memory a circuit takes, estimated before anything is computed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from neuronwise.errors import MethodError
from neuronwise.model.weights import dtype_of

if TYPE_CHECKING:
    from neuronwise.model import Block, Model

# Numbers that one row of a layer keeps for the backward pass, in widths of the stream and of the feed-forward block:
# inputs of norms and linear maps, queries, keys and values; gate, up, their factors and the activation.
STREAM, NEURONS = 16, 8
EDGE = 400  # bytes of one edge in Python
GIB = 2**30


def bytes_needed(model: Model, rows: int, nodes: int, side_by_side: int) -> tuple[int, int]:
    """Bytes of the pass with its graph and of ``side_by_side`` backward passes, and bytes of the edges.

    An upper estimate: attention patterns are left out, and every node is taken to have an edge from every other one
    below it and from every row.
    """
    size = dtype_of(model.module).itemsize
    widths = [_active_width(model, block) for block in model.blocks]
    widest = max(widths)
    kept = sum(STREAM * model.hidden_size + NEURONS * width for width in widths)
    graph = rows * kept * size + side_by_side * rows * (4 * model.hidden_size + 4 * widest) * size
    return graph, (nodes * nodes // 2 + nodes * rows) * EDGE


def _active_width(model: Model, block: Block) -> int:
    """Neurons of a layer that one token passes, with as many experts as the settings say."""
    settings = model.config.get_text_config(decoder=True)
    chosen = getattr(settings, "num_experts_per_tok", None)
    dense = sum(writer.width for writer in block.dense)
    return dense + sum(one.width * min(chosen or one.count, one.count) for one in block.experts)


def bytes_free(device: torch.device) -> int | None:
    """Free memory of a device, None where it cannot be told."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    except (OSError, StopIteration, ValueError):
        names = os.sysconf_names if hasattr(os, "sysconf_names") else {}
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_PHYS_PAGES" in names else None


def require_memory(model: Model, rows: int, nodes: int, side_by_side: int, graphs: int = 1) -> None:
    """Raise ``MethodError`` with the estimate where a circuit would need more memory than is free.

    ``graphs``: how many passes are kept at once.
    """
    graph, edges = bytes_needed(model, rows, nodes, side_by_side)
    graph *= graphs
    on_device, here = bytes_free(model.device), bytes_free(torch.device("cpu"))
    together = model.device.type == "cpu"
    for what, needed, free in (
        ("its passes", graph + (edges if together else 0), on_device),
        ("its edges", edges, here),
    ):
        if free is not None and needed > free:
            raise MethodError(
                f"A circuit of {nodes} nodes over {rows} positions of {model.name} needs about {needed / GIB:.1f} GiB "
                f"for {what}, and {free / GIB:.1f} GiB are free; ask for fewer nodes, or load the model in half "
                "precision."
            )
