"""The state of a viewer: its folders, its worker with the model, the photos and pages of the session."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from neuronwise.errors import NeuronwiseError
from neuronwise.files import expanded
from neuronwise.view.folders import Folders, Item
from neuronwise.view.live import Live, no_model
from neuronwise.view.pages import Page
from neuronwise.view.photos import Photos
from neuronwise.view.worker import Worker

if TYPE_CHECKING:
    from neuronwise.locate import Circuit
    from neuronwise.model import Model
    from neuronwise.read import Finding

PAGES = 60  # of what was found in this session


@dataclass(frozen=True)
class Shown:
    """Something that was found in this session: its page, and the object behind it."""

    page: Page
    found: Finding | Circuit


@dataclass
class Viewer:
    """``live`` is None without a model. ``token`` is what a browser must bring. ``read_only``: nothing is written.

    ``photo_folders`` are those of an index's photos.
    """

    folders: Folders
    live: Live | None = None
    read_only: bool = False
    photo_folders: Sequence[Path] = ()
    worker: Worker = field(default_factory=Worker)
    photos: Photos = field(default_factory=Photos)
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    shown: dict[str, Shown] = field(default_factory=dict)
    _counted: int = 0

    @classmethod
    def of(
        cls,
        folders: Sequence[Path],
        model: str | None,
        opened: Callable[[], Model],
        *,
        read_only: bool = False,
        photos: Path | None = None,
    ) -> Viewer:
        """A viewer of folders and, by name, of a model; ``photos`` is the folder of an index's photos."""
        folder = None if photos is None else expanded(photos)
        if folder is not None and not folder.is_dir():
            raise NeuronwiseError(f"There is no folder '{photos}'; --photos names that of an index's photos.")
        kept, opened_folders = Photos(), Folders(folders)
        live = None if model is None else Live(model, opened, kept)
        beside = [] if folder is None else [folder.resolve()]
        return cls(opened_folders, live, read_only, [*beside, *opened_folders.roots], photos=kept)

    def require_live(self) -> Live:
        """The model's side; raises ``NeuronwiseError`` where there is no model."""
        if self.live is None:
            raise no_model()
        return self.live

    def show(self, shown: Callable[[str], Shown]) -> str:
        """Keep a page of this session, made of its number; returns that."""
        self._counted += 1
        self.shown[str(self._counted)] = shown(str(self._counted))
        while len(self.shown) > PAGES:
            self.shown.pop(next(iter(self.shown)))
        return str(self._counted)

    def found(self, number: str) -> Shown:
        """A page of this session; raises ``NeuronwiseError`` for one that is not there."""
        if number not in self.shown:
            raise NeuronwiseError("What was found there is not in memory any more; find it again.")
        return self.shown[number]

    def item(self, kind: str, identity: str) -> Item:
        """An item of the folders by kind and id; raises ``NeuronwiseError`` where there is none."""
        item = self.folders.item(identity)
        if item.kind != kind:
            raise NeuronwiseError(f"'{identity}' is no {kind}, but a {item.kind}.")
        if item.broken:
            raise NeuronwiseError(item.broken)
        return item

    def require_writable(self) -> Path:
        """The first opened folder, into which is written; raises ``NeuronwiseError`` where nothing may be."""
        if self.read_only:
            raise NeuronwiseError("This viewer was started with --read-only; nothing is written.")
        if not self.folders.roots:
            raise NeuronwiseError("No folder is open; start the viewer with one.")
        return self.folders.roots[0]
