"""What the live check says on the wire: RESP 2 (Redis serialization protocol), pure.

Written for one command and one form of reply, so that it is strict: the reply of a batch of n asks is
an array of 2n bulk strings or nulls, or an error. A general reader would take memory for whatever
length a reply names, and would not notice a reply that belongs to something else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from enum import Enum, IntEnum
from functools import lru_cache
from time import perf_counter
from typing import Any

from gateway.sessions.connect import Endpoint

_NULL = b"$-1\r\n"
_PRESENT = b"$1\r\n1\r\n"
_LENGTH = re.compile(rb"\$(\d{1,6})\r\n")
_LENGTH_BEGUN = re.compile(rb"\$?(?:-?|-1\r?|\d{1,6}\r?)")
_MAX_VALUE = 131_072  # bytes; a record has less (record.py)
_MAX_ERROR = 4096  # bytes of an error line
MAX_GREETING = 65_536  # bytes; HELLO names the server's modules


class Verdict(IntEnum):
    """What the live check says of a token's session."""

    ALIVE = 0
    ENDED = 1
    UNAVAILABLE = 2


class Greeting(Enum):
    """The commands that open a connection, in their order."""

    HELLO = 0
    SELECT = 1


Answer = Callable[[int], None]


class ProtocolViolation(Exception):
    """The server sent what it was not asked for."""


class LiveKeys:
    """The two keys of one token, as they stand in a command. Made once a token.

    `passed_at` is the loop's time of the last live check that passed it; -inf after one that did not.
    """

    __slots__ = ("passed_at", "wire")

    def __init__(self, alive: bytes, revoked: bytes) -> None:
        self.wire = b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(alive), alive, len(revoked), revoked)
        self.passed_at = -math.inf

    def names(self) -> tuple[bytes, bytes]:
        """Return the alive key and the revoked key."""
        length, _, rest = self.wire.partition(b"\r\n")
        alive, rest = rest[: int(length[1:])], rest[int(length[1:]) + 2 :]
        return alive, rest.partition(b"\r\n")[2][:-2]


class Batch:
    """The asks of one tick. `asked_at` and `deadline` are in the loop's time, `begun` is perf_counter's."""

    __slots__ = ("answers", "asked_at", "begun", "deadline", "keys")

    def __init__(self, keys: list[LiveKeys], answers: list[Answer], asked_at: float, deadline: float) -> None:
        self.keys = keys
        self.answers = answers
        self.asked_at = asked_at
        self.begun = perf_counter()  # the loop's own clock goes by milliseconds
        self.deadline = deadline


def unavailable(batch: Batch) -> bytes:
    return b"\x02" * len(batch.answers)


def greeting(endpoint: Endpoint) -> tuple[bytes, int]:
    """Return what opens a connection, and how many replies it has.

    HELLO, unlike AUTH, tells the server's role, and needs no permission of its own (Redis 6 and newer).
    """
    hello = [b"HELLO", b"2"]
    if endpoint.password:
        hello += [b"AUTH", (endpoint.username or "default").encode(), endpoint.password.encode()]
    hello += [b"SETNAME", b"tokengate-live"]
    if not endpoint.db:
        return _command(hello), 1
    return _command(hello) + _command([b"SELECT", b"%d" % endpoint.db]), 2


def check_greeting(reply: Any, expected: Greeting) -> None:
    """Raise ProtocolViolation unless this is what a primary that welcomes us replies to HELLO or to SELECT."""
    if expected is Greeting.SELECT:
        if reply != b"OK":
            raise ProtocolViolation(f"refused: {_first_word(reply)}")
        return
    if not isinstance(reply, list):
        raise ProtocolViolation(f"refused: {_first_word(reply)}")
    role = [value for name, value in zip(reply[::2], reply[1::2], strict=False) if name == b"role"]
    if role != [b"master"]:
        raise ProtocolViolation("the server is no primary")


def _first_word(reply: Any) -> str:
    return str(reply).partition(" ")[0][:40]


def parse_reply(data: bytes, position: int, count: int) -> tuple[bytes, int] | None:
    """Read the reply of a batch of `count` asks from `position`: (verdicts, where it ends), None = not all there.

    Raises ProtocolViolation for anything that is not such a reply.
    """
    if data.startswith(b"-", position):
        end = data.find(b"\r\n", position)
        if end < 0 and len(data) - position > _MAX_ERROR:
            raise ProtocolViolation("endless error")
        return None if end < 0 else (b"\x02" * count, end + 2)
    head = b"*%d\r\n" % (2 * count)
    if not data.startswith(head, position):
        if head.startswith(data[position:]):
            return None
        raise ProtocolViolation("not the reply that was due")
    found = _presence(data, position + len(head), 2 * count)
    if found is None:
        return None
    present, end = found
    pairs = zip(present[::2], present[1::2], strict=True)
    return bytes([Verdict.ALIVE if alive and not revoked else Verdict.ENDED for alive, revoked in pairs]), end


def _presence(data: bytes, position: int, count: int) -> tuple[bytearray, int] | None:
    """Read `count` bulk strings or nulls: (1 or 0 for each, where they end), None = not all there."""
    present = bytearray()
    for _ in range(count):
        if data.startswith(_NULL, position):
            position += len(_NULL)
            present.append(0)
            continue
        end = _bulk_end(data, position)
        if end is None:
            return None
        position = end
        present.append(1)
    return present, position


def _bulk_end(data: bytes, position: int) -> int | None:
    match = _LENGTH.match(data, position)
    if match is None:
        if len(data) - position < len(_NULL) + 1 and _LENGTH_BEGUN.fullmatch(data, position):
            return None
        raise ProtocolViolation("not a bulk string")
    length = int(match[1])
    if length > _MAX_VALUE:
        raise ProtocolViolation("value too long")
    end = match.end() + length + 2
    if len(data) < end:
        return None
    if data[end - 2 : end] != b"\r\n":
        raise ProtocolViolation("bulk string without an end")
    return end


@lru_cache(maxsize=256)
def all_alive(count: int) -> bytes:
    return b"*%d\r\n" % (2 * count) + (_PRESENT + _NULL) * count


def _command(words: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
