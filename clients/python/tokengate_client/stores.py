"""Where the refresh token is kept between two runs of a program."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TextIO

try:
    import fcntl
except ImportError:  # Windows: one process at a time has the file
    fcntl = None  # type: ignore[assignment]


_PATIENCE = 60.0  # seconds


class Store(Protocol):
    """Keeps one refresh token. It may raise what it likes.

    `lock` is held over a refresh, so that several processes do one after the other.
    """

    def load(self) -> str | None: ...
    def save(self, refresh_token: str) -> None: ...
    def clear(self) -> None: ...
    def lock(self) -> AbstractContextManager[None]: ...


class MemoryStore:
    """Keeps it as long as the program runs."""

    def __init__(self) -> None:
        self._kept: str | None = None
        self._lock = threading.Lock()

    def load(self) -> str | None:
        return self._kept

    def save(self, refresh_token: str) -> None:
        self._kept = refresh_token

    def clear(self) -> None:
        self._kept = None

    def lock(self) -> AbstractContextManager[None]:
        return _held(self._lock)


class FileStore:
    """Keeps it in a file that only its owner can read (0600), replaced as a whole. Raises OSError."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self._threads = threading.Lock()

    def load(self) -> str | None:
        try:
            return self.path.read_text("ascii").strip() or None
        except (FileNotFoundError, UnicodeDecodeError):  # a file that was overwritten holds no session
            return None

    def save(self, refresh_token: str) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")  # made with 0600
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(refresh_token + "\n")
                file.flush()
                os.fsync(handle)  # or a power cut could leave a file that is empty
            os.replace(name, self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._threads, open(self.path.with_name(self.path.name + ".lock"), "a", encoding="ascii") as file:
            _wait_for(file)
            yield


def _wait_for(file: TextIO) -> None:
    """Take the lock of a file, for as long as it is open.

    A process that holds it and does not move is waited for no longer than a refresh can take. To go on without the
    lock is safe: the gateway gives the same successor to all that present one refresh token.
    """
    if fcntl is None:
        return
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return


@contextlib.contextmanager
def _held(lock: threading.Lock) -> Iterator[None]:
    with lock:
        yield
