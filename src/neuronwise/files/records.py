"""What results record: the versions at work, sums of files, values without what others should not see."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from neuronwise._version import __version__

_version = functools.cache(metadata.version)


def versions() -> dict[str, str]:
    """The versions that a result depends on: neuronwise, torch, transformers and Python."""
    libraries = {name: _version(name) for name in ("torch", "transformers")}
    return {"neuronwise": __version__, **libraries, "python": platform.python_version()}


SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # variables of the environment whose values are not told
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")


def shareable(value: Any) -> Any:
    """A JSON value without what others should not see: folders of this machine, the user's home, tokens of the hub.

    Of an absolute path its last part is left: "/home/me/models/tiny" is "tiny".
    """
    if isinstance(value, Mapping):
        return {key: shareable(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [shareable(one) for one in value]
    if not isinstance(value, str):
        return value
    text = _TOKEN.sub("hf_…", value)
    for secret in filter(None, map(os.environ.get, SECRETS)):
        text = text.replace(secret, "…")
    if "\n" not in text and len(text) < 4096 and Path(text).is_absolute() and len(Path(text).parts) > 2:
        return Path(text).name
    home = os.path.expanduser("~")
    return text.replace(home, "~") if len(home) > 1 else text


def sha256(path: Path) -> str:
    """The SHA-256 sum of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
