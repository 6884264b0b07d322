"""The files through which the workers of one server see each other's numbers.

Each worker holds one slot of a directory: a lock file that it keeps locked as long as it lives, and a
snapshot that it replaces in one step. A free lock therefore means a dead worker, whatever became of its
process id, and the kernel frees it however the worker ended. A worker that starts takes the first free
slot and counts on from the snapshot it finds there, so that the files are never more than the workers
that ever lived at once, and no sum ever shrinks.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MAX_SLOTS: Final = 1024


class Slot:
    """One worker's place in the directory. Raises OSError where none can be had.

    The directory is made if it is not there. Nothing in it is secret.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self.number, self._lock = _take(directory)

    def __repr__(self) -> str:
        return f"Slot({self.number}, {str(self._directory)!r})"

    def read(self) -> bytes:
        """Return the snapshot that the last holder of this slot left, or b""."""
        return _read(_data(self._directory, self.number))

    def write(self, data: bytes) -> None:
        """Replace this worker's snapshot; a reader sees the old one or this one, never a part."""
        target = _data(self._directory, self.number)
        scratch = target.with_suffix(".part")  # the lock makes this name ours alone
        scratch.write_bytes(data)
        os.replace(scratch, target)

    def others(self) -> Iterator[tuple[bytes, bool]]:
        """Yield (snapshot, whether its worker lives) of every other slot."""
        for lock in sorted(self._directory.glob("*.lock")):
            if lock.stem.isdecimal() and int(lock.stem) != self.number:
                alive = not _is_free(lock)
                yield _read(lock.with_suffix(".json")), alive

    def close(self) -> None:
        """Give the slot back. What it counted stays in the sums."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _data(directory: Path, number: int) -> Path:
    return directory / f"{number}.json"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _take(directory: Path) -> tuple[int, int]:
    for number in range(MAX_SLOTS):
        lock = os.open(directory / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _try_lock(lock, fcntl.LOCK_EX):
            return number, lock
        os.close(lock)
    raise OSError(f"no free slot in {directory}")


def _is_free(path: Path) -> bool:
    lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _try_lock(lock, fcntl.LOCK_SH)  # shared: two readers must not take each other for the holder
    finally:
        os.close(lock)


def _try_lock(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
