"""What the decoder reads of a photo, each part with its place: rows of the sequence, or states for cross-attention."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from neuronwise.model.grid import image_grid
from neuronwise.model.grid.cross import STATES, crossing, states_grid
from neuronwise.model.grid.layout import ImageGrid
from neuronwise.model.hooks import Args, Hooks, Kwargs
from neuronwise.model.passes import Change, edit_input

if TYPE_CHECKING:
    from neuronwise.model.model import Model
    from neuronwise.model.run import Run

DEEP = "features that later layers add to the image's tokens are left as they are"


@dataclass(frozen=True)
class PhotoTokens:
    """The photo as the decoder reads it.

    ``grid.positions`` (n,) are the rows of what is read: of the sequence that enters the first decoder layer or, where
    ``readers`` names modules of cross-attention, of the states that they look at.
    """

    model: Model
    grid: ImageGrid
    readers: tuple[nn.Module, ...] = ()

    @classmethod
    def of(cls, run: Run, *, whole: bool = False) -> PhotoTokens:
        """Those of a run; raises ``PromptError`` where they have no place in the photo."""
        model, grid = run.model, image_grid(run, whole=whole)
        if grid.said:  # the rows are those of the text, which looks at the photo
            readers = tuple(model.module.get_submodule(path) for path in crossing(run).values())
            return cls(model, states_grid(run), readers)
        deep = getattr(getattr(model.config, "vision_config", None), "deepstack_visual_indexes", None)
        return cls(model, replace(grid, note="; ".join(filter(None, (grid.note, DEEP)))) if deep else grid)

    @contextlib.contextmanager
    def read_as(self, change: Change, copies: int = 1) -> Iterator[None]:
        """Within the body what is read, (1, rows, d), is what ``change`` makes of it, (copies, rows, d)."""
        first = self.model.blocks[0].module
        if not self.readers:
            with edit_input(first, change):
                yield
            return
        with edit_input(first, lambda hidden: hidden.expand(copies, -1, -1)), Hooks() as hooks:
            for reader in self.readers:
                hooks.before(reader, _with_states(change))
            yield


def _with_states(change: Change) -> Callable[[nn.Module, Args, Kwargs], tuple[Args, Kwargs]]:
    def before(module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        states: Tensor = kwargs[STATES]
        return args, {**kwargs, STATES: change(states.reshape(1, -1, states.shape[-1]))}  # its tiles side by side

    return before
