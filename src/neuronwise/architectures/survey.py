"""Which architectures of the installed transformers have addressable neurons: each is built without weights and read.

``python -m neuronwise.architectures.survey > docs/results/architectures.md`` writes the table of the documentation.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from neuronwise.architectures.configure import default_model
from neuronwise.errors import ModelError
from neuronwise.model.anatomy import Anatomy, dissect, holds_feed_forward_parts
from neuronwise.model.check import require_readable

ADDRESSABLE = "addressable"
NO_NEURONS = "no feed-forward neurons"
REFUSED = "not addressable"
NOT_BUILT = "not built"


@dataclass(frozen=True)
class Writers:
    """The same feed-forward writer in ``layers`` layers; ``experts`` counts routed experts of ``width`` f each."""

    module: str
    width: int
    layers: int
    experts: int | None = None

    def __str__(self) -> str:
        size = f"{self.width}" if self.experts is None else f"{self.experts} experts × {self.width}"
        return f"{self.module} ({size})"


@dataclass(frozen=True)
class Architecture:
    """One architecture in its default configuration: how its neurons are addressed, or why they are not.

    ``status`` is "addressable", "no feed-forward neurons", "not addressable" (with neurons that this version does not
    find) or "not built" (its default configuration makes no model); ``reason`` says why for all but the first.
    """

    name: str
    kind: str
    model_class: str
    status: str
    decoder: str | None = None
    layers: int | None = None
    hidden_size: int | None = None
    neurons: int | None = None
    writers: tuple[Writers, ...] = ()
    reason: str | None = None

    @property
    def addressable(self) -> bool:
        """Whether its neurons can be addressed."""
        return self.status == ADDRESSABLE

    def to_dict(self) -> dict[str, Any]:
        """The row as plain JSON values."""
        return asdict(self)


def survey(name: str | None = None, progress: Callable[[int, int], None] | None = None) -> list[Architecture]:
    """Every causal-LM and image-text-to-text architecture, ours among them, or those called ``name``.

    Raises ``ModelError`` where there is none. Everything happens on the meta device: no weights, no downloads. About
    two minutes for all, a second for one.
    """
    wanted = [entry for entry in _entries() if name is None or entry[0] == name]
    if not wanted:
        close = difflib.get_close_matches(str(name), sorted({entry[0] for entry in _entries()}), n=5, cutoff=0.5)
        hint = f"close to it are {', '.join(close)}" if close else "`neuronwise models` lists them"
        raise ModelError(f"The installed transformers has no architecture '{name}' that writes text; {hint}.")
    found = []
    for number, entry in enumerate(wanted):
        found.append(_look(*entry))
        if progress is not None:
            progress(number + 1, len(wanted))
    return found


def _entries() -> Iterator[tuple[str, str, str]]:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    from neuronwise.architectures.register import IMAGE_TEXT

    own = {name: cls.__name__ for name, cls in IMAGE_TEXT.items()}
    kinds: dict[str, Mapping[str, Any]] = {
        "text": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "image-text": {**MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, **own},
    }
    for kind, names in kinds.items():
        for name, model_class in sorted(names.items()):
            yield name, kind, model_class if isinstance(model_class, str) else model_class[0]


def _look(name: str, kind: str, model_class: str) -> Architecture:
    from neuronwise.model.weights import output_head

    with quiet():
        try:
            module = default_model(name, model_class)
        except Exception as error:  # whatever an architecture's code raises on its own defaults
            return Architecture(name, kind, model_class, NOT_BUILT, reason=_short(error))
        try:
            anatomy = dissect(module)
        except ModelError as error:
            status = REFUSED if holds_feed_forward_parts(module) else NO_NEURONS
            return Architecture(name, kind, model_class, status, reason=str(error))
        try:
            require_readable(model_class, output_head(module), anatomy.hidden_size)
        except ModelError as error:
            return Architecture(name, kind, model_class, REFUSED, reason=str(error))
    return _described(name, kind, model_class, anatomy)


def _described(name: str, kind: str, model_class: str, anatomy: Anatomy) -> Architecture:
    counted: Counter[tuple[str, int, int | None]] = Counter()
    for block in anatomy.layers:
        for writer in block.dense:
            counted[writer.path, writer.width, None] += 1
        for experts in block.experts:
            path = f"{experts.path}.{experts.parameter}" if experts.parameter else experts.path
            counted[path, experts.width, experts.count] += 1
    writers = tuple(Writers(path, width, layers, experts) for (path, width, experts), layers in counted.items())
    stack = anatomy.layers[0].path.rpartition(".")[0]
    size = (len(anatomy.layers), anatomy.hidden_size, anatomy.num_neurons)
    return Architecture(name, kind, model_class, ADDRESSABLE, stack, *size, writers)


def _short(error: Exception) -> str:
    if isinstance(error, ImportError):
        return str(error).split(" but ")[0].strip()
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings of transformers within the body."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(50)  # critical
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)


def share_addressable(found: list[Architecture]) -> float:
    """Of the architectures that have feed-forward neurons and can be built, the share that is addressable."""
    able = [a for a in found if a.status in (ADDRESSABLE, REFUSED)]
    return sum(a.addressable for a in able) / len(able) if able else 0.0


def markdown(found: list[Architecture]) -> str:
    """The table of ``docs/results/architectures.md``."""
    import transformers

    counts = Counter(a.status for a in found)
    with_neurons = counts[ADDRESSABLE] + counts[REFUSED]
    lines = [
        "# Architectures",
        "",
        f"Every causal-LM and image-text-to-text architecture of transformers {transformers.__version__}, built from "
        "its default configuration without weights (fields that the default leaves empty are filled). Written by "
        "`python -m neuronwise.architectures.survey`; `neuronwise models` prints the same for your installation.",
        "",
        f"Of {len(found)} architectures {len(found) - counts[NOT_BUILT]} can be built; {with_neurons} of these have "
        f"feed-forward neurons, and {counts[ADDRESSABLE]} ({share_addressable(found):.1%}) are addressable. "
        "Those whose own default configuration makes no model count in neither number; their rows quote the error.",
        "",
        "A writer is the projection whose inputs are the neurons, with its width f (for routed experts: their number "
        "and each one's f) and the number of layers that have it. d is the width of the residual stream, L the number "
        "of decoder layers.",
        "",
        "| architecture | reads | layers at | L | d | writers (f) × layers | neurons |",
        "|---|---|---|---:|---:|---|---:|",
    ]
    for a in (a for a in found if a.addressable):
        writers = "<br>".join(f"`{w.module}` {str(w)[len(w.module) + 1 :]} × {w.layers}" for w in a.writers)
        lines.append(
            f"| {a.name} | {a.kind} | `{a.decoder}` | {a.layers} | {a.hidden_size} | {writers} | {a.neurons:,} |"
        )
    lines += ["", "## Not addressable", "", "| architecture | reads | status | why |", "|---|---|---|---|"]
    for a in (a for a in found if not a.addressable):
        reason = (a.reason or "").replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| {a.name} | {a.kind} | {a.status} | {reason} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    import sys

    sys.stdout.write(markdown(survey()))
