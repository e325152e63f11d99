"""Checks of the photo's place in the prompt: its tokens, its grid, its heatmap."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuronwise.check.result import Deviation, Measured, NotApplicable
from neuronwise.check.subject import Subject
from neuronwise.errors import PromptError
from neuronwise.model.grid import image_grid
from neuronwise.model.passes import inputs_of, stop_before
from neuronwise.model.prompt import Inputs
from neuronwise.read.heatmap import heatmap

NEURONS = 8  # whose heat is looked at
ALTERED = 0.25  # share of the image's rows that another photo must change; marks and codes may be alike for both


def span(subject: Subject) -> Measured:
    """The image's positions are where the ids equal the image token, and where another photo changes what is read."""
    run = subject.run
    _require_photo(subject)
    try:
        positions = run.image_positions.tolist()
    except PromptError as error:
        raise NotApplicable(str(error)) from error
    ids = run.prompted.input_ids
    wanted = [index for index, token in enumerate(ids) if token == subject.model.image_token_id]
    if wanted and positions != wanted:  # Kosmos-2 has no such token: there, what changes with the photo decides
        raise Deviation(f"{len(positions)} positions, the image token is at {len(wanted)}", positions=len(positions))
    changed = _changed_rows(subject)
    if not changed:
        raise NotApplicable("the photo is read by cross-attention: no row of the prompt changes with it")
    outside = sorted(set(changed) - set(positions))
    if outside or len(changed) < ALTERED * len(positions):
        raise Deviation(
            f"another photo changes {len(changed)} rows, {len(outside)} of them outside of the {len(positions)} "
            "positions of the image",
            outside=float(len(outside)), changed=float(len(changed)),
        )  # fmt: skip
    alike = len(positions) - len(changed)
    note = f", {alike} of them alike for another photo" if alike else ""
    return Measured(f"{len(positions)} of {len(ids)} tokens{note}", {"positions": len(positions), "tokens": len(ids)})


def heat(subject: Subject) -> Measured:
    """The grid has a cell for each of its tokens, and heat is finite and of the photo's shape."""
    run = subject.run
    _require_photo(subject)
    try:
        grid = image_grid(run)
        found = heatmap(subject.model, run, subject.neurons[:NEURONS])
    except PromptError as error:
        raise NotApplicable(str(error)) from error
    assert run.image is not None
    cells = grid.height * grid.width
    outside = set(grid.positions.tolist()) - set(run.image_positions.tolist())
    if grid.mixing is None and (len(grid.positions) != cells or outside):
        raise Deviation(f"a grid of {grid.height} × {grid.width} for {len(grid.positions)} tokens", cells=cells)
    if found.grid.shape != (grid.height, grid.width) or not np.isfinite(found.each).all():
        raise Deviation(f"heat of shape {found.grid.shape} on a grid of {grid.height} × {grid.width}, or not finite")
    image = found.image()
    if image.shape != (run.image.height, run.image.width):
        raise Deviation(f"heat of shape {image.shape} for a photo of {run.image.height} × {run.image.width}")
    seen = float(np.isfinite(image).mean())
    left, top, right, bottom = grid.box
    covered = max(0.0, min(right, run.image.width) - max(left, 0)) * max(
        0.0, min(bottom, run.image.height) - max(top, 0)
    )
    share = covered / (run.image.width * run.image.height)
    edge = 2 * (1 / run.image.width + 1 / run.image.height)  # a pixel counts by its middle
    if abs(seen - share) > edge or not seen:
        raise Deviation(f"{seen:.0%} of the photo has heat, the grid covers {share:.0%}", seen=seen)
    note = f" ({grid.note})" if grid.note else ""
    what = f"{grid.height} × {grid.width} cells over {seen:.0%} of the photo{note}"
    return Measured(what, {"height": grid.height, "width": grid.width, "seen": seen})


def _require_photo(subject: Subject) -> None:
    if subject.run.image is None:
        raise NotApplicable("the model was run without a photo")


def _changed_rows(subject: Subject) -> list[int]:
    """Rows of what the first layer reads that another photo changes."""
    model, inputs = subject.model, subject.run.prompted.inputs
    pixels = [name for name, value in inputs.items() if _holds_pixels(name, value)]
    if not pixels:
        raise NotApplicable("the processor gives no pixels that could be changed")
    other = {name: 0.5 - value if name in pixels else value for name, value in inputs.items()}
    one, two = (_read(subject, given) for given in (inputs, other))
    if torch.equal(one, two):
        with torch.no_grad():
            logits = [model.forward(given, rows=[-1]) for given in (inputs, other)]
        if torch.equal(*logits):
            raise Deviation("another photo changes nothing that the decoder reads or says")
    if one.shape != two.shape or one.shape[0] != len(subject.run.prompted.input_ids):
        raise NotApplicable(f"the decoder of {model.name} reads other rows than the prompt's tokens")
    return torch.nonzero((one != two).any(-1)).flatten().tolist()


def _holds_pixels(name: str, value: Tensor) -> bool:
    return value.is_floating_point() and ("pixel" in name or "patches" in name) and "mask" not in name


def _read(subject: Subject, inputs: Inputs) -> Tensor:
    """(rows, d): what the first layer is given."""
    model, first = subject.model, subject.model.blocks[0].module
    with inputs_of(first) as seen, stop_before(first), torch.no_grad():
        model.module(**model.placed(inputs), use_cache=False)
    return seen[0].detach().cpu().reshape(-1, seen[0].shape[-1])
