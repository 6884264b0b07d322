"""A program's store as a session sees it: what it raises is logged, and what others have put there is told apart."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tokengate_client.errors import StorageFailed
from tokengate_client.stores import Store

_log = logging.getLogger("tokengate_client")


class Kept:
    """A store, and what its session has last read or written there. A store that fails ends no session."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: str | None = None

    def load(self) -> str | None:
        """Return the refresh token that is kept; None also where the store cannot be read."""
        try:
            self._known = self.store.load()
        except Exception:
            _log.warning("the store cannot be read", exc_info=True)
            return None
        return self._known

    def news(self) -> str | None:
        """Return what another process has put there since this was last looked at, None where nobody has."""
        known = self._known
        found = self.load()
        return None if found == known else found

    def save(self, refresh_token: str) -> None:
        """Raises StorageFailed."""
        try:
            self.store.save(refresh_token)
        except Exception as error:
            raise StorageFailed from error
        self._known = refresh_token

    def clear(self) -> None:
        """Take away what this session knows, not what another process has put there."""
        known = self._known
        if self.load() not in (None, known):
            return
        self._known = None
        try:
            self.store.clear()
        except Exception:
            _log.warning("the store cannot be emptied", exc_info=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store's lock; go on without it where there is none to be had, which is safe (rotation.md)."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self.store.lock())
            except Exception:
                _log.warning("the store cannot be locked", exc_info=True)
            yield
