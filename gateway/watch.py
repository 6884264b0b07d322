"""Mounted files, looked at while the gateway serves: settings, secrets, keys, users, certificates.

A look is a stat of each file, behind all of its links: so the swap of `..data` in a mounted ConfigMap or Secret is
seen like a file that is put in the place of another, or written over.

A worker looks on its loop: some 20 stats take 0.1 ms, while a thread that wants the interpreter once for each of them
costs a loop that is busy 3 us a request.

Laws:
- What has changed is taken up once it has stood still from one look to the next, so that most copies under way are
  not read; one that was read halfway has changed once more when it is whole.
- What could not be used is told once. It is tried again when a file changes, and after RETRY_SECONDS: what it lacked
  may be a file that was not looked at (a Secret that comes after the ConfigMap that names it).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

LOOK_SECONDS = 1.0
RETRY_SECONDS = 10.0
_KEY_SUFFIXES = (".pem", ".jwk")  # what is looked at in a directory

Mark = tuple[str, tuple[int, ...]]  # a path, and what differs once it is another file


class Watch:
    """Whether what some files hold has been taken up. `files` names them as they are by now.

    `changed` may be called on another thread than the others, not by two at once.
    """

    def __init__(self, files: Callable[[], Iterable[Path]], clock: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._clock = clock
        self._reason = ""
        self._retry_at = 0.0
        self._taken = self._last = self._look()

    def changed(self) -> bool:
        """Look once; return whether there is something to be taken up. May block for as long as a stat does."""
        seen = self._look()
        rested, self._last = seen == self._last, seen
        if seen != self._taken:
            return rested
        return bool(self._reason) and self._clock() >= self._retry_at

    def begin(self) -> None:
        """Say that the files are read from here on: what changes after this is another change."""
        self._taken = self._last = self._look()

    def again(self) -> None:
        """Say that what was read is not used, for no fault of its own: it is to be read once more."""
        self._taken = []

    def used(self) -> None:
        """Say that what was read is in use."""
        self._reason = ""

    def refused(self, reason: str) -> bool:
        """Say why what was read cannot be used; return whether that is news."""
        news, self._reason = reason != self._reason, reason
        self._retry_at = self._clock() + RETRY_SECONDS
        return news

    def _look(self) -> list[Mark]:
        return [mark for path in self._files() for mark in _marks(path)]


def _marks(path: Path) -> Iterator[Mark]:
    yield _mark(path)
    try:
        names = sorted(os.listdir(path)) if path.is_dir() else []
    except OSError:
        return
    for name in names:
        if name.endswith(_KEY_SUFFIXES) and not name.startswith("."):
            yield _mark(path / name)


def _mark(path: Path) -> Mark:
    """The mode is part of it: a secret that was open to everyone is good once it is not."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        return str(path), (getattr(error, "errno", None) or -1,)
    place = (status.st_dev, status.st_ino, status.st_mode)
    if stat.S_ISDIR(status.st_mode):  # its time and size tell of files that are not meant, too
        return str(path), place
    return str(path), (*place, status.st_mtime_ns, status.st_size)
