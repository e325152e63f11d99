"""SBU captions: its list of addresses and captions, fetched into a folder that ``load_photos`` reads."""

from __future__ import annotations

import hashlib
import io
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from neuronwise.errors import DataError

SMALLEST = 64  # pixels: dead links often answer with a tiny placeholder instead of an error


@dataclass(frozen=True)
class Fetched:
    """What a download came to: photos there, dead links, and how many of the list have not been asked yet."""

    there: int
    dead: int
    left: int

    def __str__(self) -> str:
        return f"{self.there} photos, {self.dead} dead links, {self.left} not asked yet"


def read_list(source: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """(address, caption) pairs of ``sbu-captions-all.json``; raises ``DataError`` for anything else."""
    try:
        content = json.loads(Path(source).read_text(encoding="utf-8"))
        pairs = list(zip(content["image_urls"], content["captions"], strict=True))
    except OSError as error:
        raise DataError(f"There is no list of SBU captions '{source}'.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"'{source}' is no list of SBU captions (image_urls and captions): {error}.") from error
    return [(str(address), str(caption).strip()) for address, caption in pairs]


def fetch_sbu(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    limit: int | None = None,
    timeout: float = 20.0,
    progress: Callable[[Fetched], None] | None = None,
) -> Fetched:
    """Download the photos of an SBU list into ``folder``; what is there or known to be dead is not asked again.

    ``limit`` counts entries of the list. Each photo is written whole, then a line in ``metadata.jsonl``; dead links
    are kept with their reasons in ``dead.jsonl``. A run that was stopped goes on where it was.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pairs = read_list(source)[:limit]
    there, dead = _known(folder / "metadata.jsonl"), _known(folder / "dead.jsonl")
    for address, caption in pairs:
        if address not in there and address not in dead:
            try:
                name = _fetch(address, folder, timeout)
            except (OSError, ValueError) as error:
                _append(folder / "dead.jsonl", {"address": address, "reason": str(error) or type(error).__name__})
                dead.add(address)
            else:
                _append(folder / "metadata.jsonl", {"file_name": name, "caption": caption, "address": address})
                there.add(address)
            if progress is not None:
                progress(_count(pairs, there, dead))
    return _count(pairs, there, dead)


def _count(pairs: list[tuple[str, str]], there: set[str], dead: set[str]) -> Fetched:
    addresses = [address for address, _ in pairs]
    found, gone = (sum(address in known for address in addresses) for known in (there, dead))
    return Fetched(found, gone, len(addresses) - found - gone)


def _fetch(address: str, folder: Path, timeout: float) -> str:
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"{address!r} is no web address")
    try:
        with urllib.request.urlopen(address, timeout=timeout) as answer:
            content = answer.read()
    except urllib.error.HTTPError as error:
        raise ValueError(f"the server answered {error.code}") from error
    image = Image.open(io.BytesIO(content))
    image.load()
    if min(image.size) < SMALLEST:
        raise ValueError(f"the photo is only {image.size[0]} × {image.size[1]} pixels")
    name = f"{hashlib.sha256(address.encode()).hexdigest()[:16]}.{(image.format or 'jpg').lower()}"
    partial = folder / f".{name}.partial"
    partial.write_bytes(content)
    partial.replace(folder / name)
    return name


def _known(path: Path) -> set[str]:
    """Addresses of a list; a line that was torn by a stop is taken out of the file."""
    if not path.is_file():
        return set()
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        path.write_bytes(whole)
    return {json.loads(line)["address"] for line in whole.decode().splitlines()}


def _append(path: Path, row: dict[str, str]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row, ensure_ascii=False) + "\n")
