"""Passes in which a part of the prompt is corrupted by noise, and others are restored to what they were without."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from neuronwise.errors import PromptError
from neuronwise.model.batches import CLOSE, COARSE
from neuronwise.model.passes import Change, edit, edit_input
from neuronwise.model.photo_tokens import PhotoTokens
from neuronwise.model.run import Run, Target
from neuronwise.model.stacking import TOKENS
from neuronwise.model.weights import dtype_of
from neuronwise.model.writers import Site

STATE = ""  # a layer's own path: its site is what the layer returns
Restoring = Mapping[Site, Sequence[int]]  # what is restored, and at which rows


class Corruption:
    """Passes over a run up to the row that predicts the target, many side by side, each clean or with its own noise.

    Noise is on ``rows`` of what enters the first layer (of the states that are read, for a photo that is read by
    cross-attention), ``noise`` times the standard deviation of the numbers there: of the text's tokens, or of the
    image's where these are corrupted. ``sigma`` is that product.
    """

    def __init__(self, run: Run, target: Target, rows: Sequence[int] | None, noise: float, samples: int, seed: int):
        self.run, self.model = run, run.model
        self.inputs = run.forced_inputs(target.position)
        self.length = run.length + run.row(target.position) + 1
        self._token = target.token_id
        self._across = _cross_attended(run) if rows is None else None
        if self._across is not None:
            self.rows = self._across.grid.positions.tolist()
        else:
            self.rows = run.image_positions.tolist() if rows is None else list(rows)
        seen: list[Tensor] = []
        with torch.no_grad(), self._read_as(lambda read: seen.append(read) or read, 1):
            self.clean = float(self._probabilities())
        read = seen[-1].reshape(-1, seen[-1].shape[-1]).float()
        image = set(run.image_rows)
        alike = self.rows if rows is None else [row for row in range(self.length) if row not in image]
        self.sigma = noise * float(read[alike].std())
        drawn = torch.randn(samples, len(self.rows), read.shape[-1], generator=torch.Generator().manual_seed(seed))
        self.noise = self.sigma * drawn
        self.states: dict[Site, Tensor] = {}  # (rows, width) without noise
        self.moved: dict[Site, Tensor] = {}  # (rows,) bool: whether noise changes anything there
        self.side_by_side = self._side_by_side()

    @contextlib.contextmanager
    def _read_as(self, change: Change, copies: int) -> Iterator[None]:
        if self._across is not None:
            with self._across.read_as(change, copies):
                yield
        else:
            with edit_input(self.model.blocks[0].module, change):
                yield

    def _side_by_side(self) -> int:
        """How many copies one pass takes: one for an architecture that does not give in a batch what it gives alone."""
        try:
            twice = self.probabilities([None, None])
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError):
            return 1
        close = CLOSE.get(dtype_of(self.model.module), COARSE)
        agree = len(twice) == 2 and bool((twice.log() - torch.tensor(self.clean).log()).abs().max() <= close)
        return max(2, TOKENS // self.length) if agree else 1

    def probabilities(self, copies: Sequence[int | None], changes: Mapping[Site, Change] | None = None) -> Tensor:
        """(copies,) the target's probability; each copy is clean (None) or has the noise of a sample."""

        def corrupt(read: Tensor) -> Tensor:
            changed = read.reshape(1, -1, read.shape[-1]).repeat(len(copies), 1, 1)
            for copy, sample in enumerate(copies):
                if sample is not None:
                    changed[copy, self.rows] += self.noise[sample].to(changed)
            return changed.reshape(-1, read.shape[-1]) if read.dim() == 2 else changed

        with torch.no_grad(), contextlib.ExitStack() as stack:
            stack.enter_context(self._read_as(corrupt, len(copies)))
            for (layer, path), change in (changes or {}).items():
                module, whole = self._module(layer, path)
                stack.enter_context(edit(module, change, within=whole))
            return self._probabilities()

    def _module(self, layer: int, path: str) -> tuple[nn.Module, nn.Module | None]:
        whole = self.model.blocks[layer].module
        return whole.get_submodule(path), None if path == STATE else whole

    def _probabilities(self) -> Tensor:
        logits = self.model.forward(self.inputs, rows=[-1])
        return logits[:, -1].float().softmax(-1)[:, self._token].cpu()

    def look(self, sites: Sequence[Site]) -> float:
        """Keep what every site gives without noise, and where noise changes it; the corrupted probability, its mean."""

        def keep(site: Site, copies: Sequence[int | None], output: Tensor) -> Tensor:
            whole = output.reshape(len(copies), self.length, -1)
            if copies[0] is None:
                self.states[site] = whole[0].clone()
            if copies[-1] is not None:
                others = whole[1:] if copies[0] is None else whole
                moved = (others != self.states[site]).any(-1).any(0)
                self.moved[site] = self.moved.get(site, torch.zeros_like(moved)) | moved
            return output

        def ask(copies: Sequence[int | None]) -> Tensor:
            return self.probabilities(copies, {site: partial(keep, site, copies) for site in sites})

        samples, size = range(len(self.noise)), self.side_by_side - 1
        if not size:
            ask([None])
            return float(torch.cat([ask([sample]) for sample in samples]).mean())
        groups = [samples[at : at + size] for at in range(0, len(samples), size)]
        return float(torch.cat([ask([None, *group])[1:] for group in groups]).mean())

    def restored(self, parts: Sequence[Restoring], tell: Callable[[int, int], None]) -> Tensor:
        """(parts,) the mean probability over the samples with each part of the pass restored; after ``look``."""
        tasks = [(index, sample) for index in range(len(parts)) for sample in range(len(self.noise))]
        found = torch.zeros(len(parts), len(self.noise))
        for start in range(0, len(tasks), self.side_by_side):
            group = tasks[start : start + self.side_by_side]
            places: dict[Site, tuple[list[int], list[int]]] = {}
            for copy, (index, _) in enumerate(group):
                for site, rows in parts[index].items():
                    copies, at = places.setdefault(site, ([], []))
                    copies += [copy] * len(rows)
                    at += rows
            changes = {site: partial(self._put, site, len(group), place) for site, place in places.items()}
            chances = self.probabilities([sample for _, sample in group], changes)
            for (index, sample), chance in zip(group, chances.tolist(), strict=True):
                found[index, sample] = chance
            tell(start + len(group), len(tasks))
        return found.mean(1)

    def _put(self, site: Site, copies: int, place: tuple[list[int], list[int]], output: Tensor) -> Tensor:
        whole = output.reshape(copies, self.length, -1).clone()
        whole[place] = self.states[site][place[1]].to(whole)
        return whole.reshape(output.shape)

    def matters(self, part: Restoring) -> bool:
        """Whether noise changes anything that would be restored."""
        return any(bool(self.moved[site][list(rows)].any()) for site, rows in part.items())


def _cross_attended(run: Run) -> PhotoTokens | None:
    """The photo of a decoder that reads it by cross-attention, else None: then it is rows of the sequence."""
    try:
        tokens = PhotoTokens.of(run)
    except PromptError:  # its tokens have no place in the photo, which is not asked for here
        return None
    return tokens if tokens.readers else None
