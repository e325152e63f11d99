"""SBU captions (Ordonez et al. 2011): its list of addresses and captions, fetched into a folder of listed photos."""

from __future__ import annotations

import hashlib
import io
import ipaddress
import os
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPMessage, HTTPResponse
from typing import IO

from PIL import Image

from neuronwise.data.photos.listed import LISTING
from neuronwise.errors import DataError, reason
from neuronwise.files import Lines, from_json, make_folder, read_bytes, write_bytes
from neuronwise.images.open import known_formats

DEAD = "dead.jsonl"
LARGEST = 64 * 2**20  # bytes of a photo
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
        content = from_json(read_bytes(source))
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
                content, ending = _fetch(address, timeout)
            except Exception as error:  # whatever a server sends, or a decoder makes of it
                graveyard.append({"address": address, "reason": reason(error)})
                dead.add(address)
            else:
                name = f"{hashlib.sha256(address.encode()).hexdigest()[:16]}.{ending}"
                write_bytes(folder / name, content, DataError)
                listing.append({"file_name": name, "caption": caption, "address": address})
                there.add(address)
            if progress is not None:
                progress(_count(pairs, there, dead))
    return _count(pairs, there, dead)


def _count(pairs: list[tuple[str, str]], there: set[str], dead: set[str]) -> Fetched:
    found, gone = (sum(address in known for address, _ in pairs) for known in (there, dead))
    return Fetched(found, gone, len(pairs) - found - gone)


def _fetch(address: str, timeout: float) -> tuple[bytes, str]:
    """Download one photo: its bytes and the ending of its name. Raises an error of any kind for a dead link."""
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"{address!r} is not a web address")
    until = time.monotonic() + timeout
    try:
        with urllib.request.build_opener(_Redirects).open(address, timeout=timeout) as answer:
            content = _body(answer, until)
    except urllib.error.HTTPError as error:
        raise ValueError(f"the server answered {error.code}") from error
    image = Image.open(io.BytesIO(content), formats=known_formats())
    image.load()
    if min(image.size) < SMALLEST:
        raise ValueError(f"the photo is only {image.size[0]} × {image.size[1]} pixels")
    return content, (image.format or "jpg").lower()


def _body(answer: HTTPResponse, until: float) -> bytes:
    """What a server sends, as long as it is no more than ``LARGEST`` and comes in time."""
    content = b""
    while chunk := answer.read1(1 << 16):
        content += chunk
        if len(content) > LARGEST:
            raise ValueError(f"the file is larger than {LARGEST / 1e6:.0f} MB")
        if time.monotonic() > until:
            raise ValueError("the file did not arrive in time")
    return content


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from a server elsewhere into this machine or its network."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        to = urllib.parse.urlsplit(newurl)
        if to.netloc != urllib.parse.urlsplit(req.full_url).netloc and not _is_public(to.hostname or ""):
            raise ValueError("the server redirects into this machine or its network")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_public(host: str) -> bool:
    """Whether all addresses of a host are on the public internet."""
    found = {str(row[4][0]) for row in socket.getaddrinfo(host, None)}
    return all(ipaddress.ip_address(one.partition("%")[0]).is_global for one in found)
