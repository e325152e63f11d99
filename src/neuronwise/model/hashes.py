"""The hash of a model's weights, kept on disk for the files that they were opened from."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path

from neuronwise.errors import ModelUnavailable, NeuronwiseError
from neuronwise.files import cache_folder, make_folder, versions, write_text
from neuronwise.model.model import Model
from neuronwise.model.source import checkpoint_of
from neuronwise.model.state import state_of, weights_hash


def stored_hash(model: Model) -> str | None:
    """``weights_hash``, from the cache folder for a model that is as ``load`` opened it from files of this machine.

    They are known by their names, sizes and times of change; reading them all takes about a second a gigabyte.
    """
    known = _opened_from(model)
    if known is None:
        return weights_hash(model)
    place = cache_folder() / "hashes" / known
    with contextlib.suppress(OSError, UnicodeDecodeError):
        stored = place.read_text()
        if re.fullmatch("[0-9a-f]{64}", stored):
            return stored
    found = weights_hash(model)
    if found is not None:
        with contextlib.suppress(OSError, NeuronwiseError):  # the cache cannot be written
            make_folder(place.parent, ModelUnavailable)
            write_text(place, found)
    return found


def _opened_from(model: Model) -> str | None:
    """What the files of an opened model are known by; None where it was changed since, or is from no folder."""
    if model.opened is None or model.opened.state != state_of(model):
        return None
    folder = Path(checkpoint_of(model.source)[0])
    if not folder.is_dir():
        return None
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.iterdir())]
    about = [str(folder.resolve()), files, str(sorted(model.opened.options.items())), versions()]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()
