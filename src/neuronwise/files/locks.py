"""A lock on a file or folder, held by one process at a time, also on file systems without locks."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from pathlib import Path
from types import TracebackType

HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class Locked(Exception):
    """Another holds the lock; ``hint``, which may be empty, says what to do where that is not so."""

    def __init__(self, hint: str = "") -> None:
        super().__init__(hint)
        self.hint = hint


class Lock:
    """A lock on ``path``, which exists, until ``release`` or the end of the process; raises ``Locked``.

    It is flock's. Where flock is missing (Windows), refused or does nothing (some network file systems, found by
    locking twice), a file beside ``path`` is the lock: it names its process, and another process takes it away when
    that one is dead.
    """

    def __init__(self, path: Path) -> None:
        self._file: int | None = None
        self._mark: Path | None = None
        flock = _flocked(path)
        if flock is None:
            self._mark = _marked(path.with_name(f".{path.name}.lock"))
        else:
            self._file = flock

    def release(self) -> None:
        """Let others have it; a second time does nothing."""
        if self._file is not None:
            os.close(self._file)
        if self._mark is not None:
            self._mark.unlink(missing_ok=True)
        self._file = self._mark = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _flocked(path: Path) -> int | None:
    """An open file that holds flock's lock; None where there is no such lock."""
    try:
        import fcntl

        file = os.open(path, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if error.errno in HELD:
            raise Locked from error
        return None
    second = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return file
    finally:
        os.close(second)
    os.close(file)  # a lock that can be had twice is none
    return None


def _marked(mark: Path) -> Path | None:
    """The lock file, made by this process; None where the folder takes none, and nothing else either."""
    own = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
    for _ in range(2):
        try:
            file = os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError as error:
            if not _abandoned(mark):
                raise Locked(f" If no other process is there, delete '{mark}'.") from error
            continue
        except OSError:
            return None
        with os.fdopen(file, "w") as stream:
            stream.write(own)
        return mark
    raise Locked


def _abandoned(mark: Path) -> bool:
    """Whether a lock file was left by a dead process of this machine; then it is taken away."""
    try:
        content = mark.read_text()
        holder = json.loads(content)
        if holder["host"] != socket.gethostname() or _alive(int(holder["pid"])):
            return False
        aside = mark.with_name(f"{mark.name}.{os.getpid()}")
        mark.rename(aside)
        if aside.read_text() != content:  # another process was faster, and this is its own
            aside.rename(mark)
            return False
        aside.unlink()
    except FileNotFoundError:
        return True
    except (OSError, ValueError, TypeError, KeyError):
        return False
    return True


def _alive(pid: int) -> bool:
    if os.name == "nt":  # there os.kill would end it
        return True
    with contextlib.suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
