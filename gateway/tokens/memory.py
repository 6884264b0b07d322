"""What was verified, so that it need not be verified again: bounded in number and in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from gateway.tokens.claims import Claims
from gateway.tokens.keyfile import Key

# (claims, the time in Unix seconds at which the token expires, leeway included, the key that verified it).
# A plain tuple: to read an item of one is a third of the cost of a named tuple's.
Remembered = tuple[Claims, float, Key]


class Memory:
    """Token -> what was found in it. At most `max_entries` tokens of at most `max_bytes` together, oldest out first.

    `get` is the look-up of the hot path: that of the dictionary itself.
    """

    __slots__ = ("_entries", "_max_bytes", "_max_entries", "bytes", "get")

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        # An OrderedDict, because taking the oldest out of a dict walks over all that was taken out before.
        self._entries: OrderedDict[bytes, Remembered] = OrderedDict()
        self.get: Callable[[bytes], Remembered | None] = self._entries.get
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, token: bytes, entry: Remembered) -> None:
        if token in self._entries:
            return
        self._entries[token] = entry
        self.bytes += len(token)
        while len(self._entries) > self._max_entries or self.bytes > self._max_bytes:
            self._forget_oldest()

    def pop(self, token: bytes) -> Remembered | None:
        entry = self._entries.pop(token, None)
        if entry is not None:
            self.bytes -= len(token)
        return entry

    def drop_expired(self, now: float) -> None:
        """Forget up to two of the oldest tokens, if they have expired.

        Tokens of one lifetime expire in the order they came. Two out for one in empties the memory of a crowd
        that left, without a pause for all of them.
        """
        for _ in range(2):
            if self._entries and next(iter(self._entries.values()))[1] <= now:
                self._forget_oldest()

    def forget_keys(self, keys: frozenset[Key]) -> None:
        """Forget the tokens that these keys verified."""
        for token in [token for token, entry in self._entries.items() if entry[2] in keys]:
            self.pop(token)

    def clear(self) -> None:
        self._entries.clear()
        self.bytes = 0

    def _forget_oldest(self) -> None:
        token, _ = self._entries.popitem(last=False)
        self.bytes -= len(token)
