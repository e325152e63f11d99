"""SBU captions (Ordonez et al. 2011): its list of addresses and captions, fetched into a folder of listed photos."""

from __future__ import annotations

import hashlib
import io
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from neuronwise.data.photos.listed import LISTING
from neuronwise.errors import DataError, reason
from neuronwise.files import Lines, from_json, make_folder, write_bytes

DEAD = "dead.jsonl"
SMALLEST = 64  # pixels: dead links often answer with a tiny placeholder instead of an error


@dataclass(frozen=True)
class Fetched:
    """What a download came to: photos there, dead links, and how many of the list have not been tried yet."""

    there: int
    dead: int
    left: int

    def __str__(self) -> str:
        return f"{self.there} photos, {self.dead} dead links, {self.left} not tried yet"


def read_list(source: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """(address, caption) pairs of ``sbu-captions-all.json``; raises ``DataError`` for anything else."""
    try:
        content = from_json(Path(source).read_bytes())
        pairs = list(zip(content["image_urls"], content["captions"], strict=True))
    except OSError as error:
        raise DataError(f"There is no list of SBU captions '{source}'.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"'{source}' is not a list of SBU captions (image_urls, captions): {reason(error)}.") from error
    return [(str(address), str(caption).strip()) for address, caption in pairs]


def fetch_sbu(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    limit: int | None = None,
    timeout: float = 20.0,
    progress: Callable[[Fetched], None] | None = None,
) -> Fetched:
    """Download the photos of an SBU list into ``folder``, which ``load_photos`` reads; resumes after an interruption.

    ``limit``: only the first entries of the list. ``timeout``: seconds to wait for each photo. A photo gets its line in
    ``metadata.jsonl`` once it is written, a dead link its reason in ``dead.jsonl``; neither is asked for again.
    Raises ``DataError`` for another kind of list, and for a folder that cannot be written.
    """
    pairs = read_list(source)[:limit]
    folder = make_folder(folder, DataError)
    with ExitStack() as files:
        listing, graveyard = (files.enter_context(Lines(folder / name, DataError)) for name in (LISTING, DEAD))
        there, dead = ({str(row.get("address")) for row in lines.rows} for lines in (listing, graveyard))
        for address, caption in pairs:
            if address in there or address in dead:
                continue
            try:
                name = _fetch(address, folder, timeout)
            except (OSError, ValueError) as error:
                graveyard.append({"address": address, "reason": str(error) or type(error).__name__})
                dead.add(address)
            else:
                listing.append({"file_name": name, "caption": caption, "address": address})
                there.add(address)
            if progress is not None:
                progress(_count(pairs, there, dead))
    return _count(pairs, there, dead)


def _count(pairs: list[tuple[str, str]], there: set[str], dead: set[str]) -> Fetched:
    found, gone = (sum(address in known for address, _ in pairs) for known in (there, dead))
    return Fetched(found, gone, len(pairs) - found - gone)


def _fetch(address: str, folder: Path, timeout: float) -> str:
    """Download one photo; its file name. Raises ``OSError`` or ``ValueError`` for a dead link."""
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"{address!r} is not a web address")
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
    write_bytes(folder / name, content, DataError)
    return name
