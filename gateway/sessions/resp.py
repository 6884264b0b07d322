"""What the live check says on the wire: RESP 2 (Redis serialization protocol), pure.

Written for one command and one form of reply, so that it is strict: the reply of a batch of n asks is
an array of 2n bulk strings or nulls, or an error. A general reader would take memory for whatever
length a reply names, and would not notice a reply that belongs to something else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from enum import Enum, IntEnum
from functools import lru_cache
from time import perf_counter, time
from typing import Any

_NULL = b"$-1\r\n"
_LENGTH = re.compile(rb"\$(\d{1,5})\r\n")
_LENGTH_BEGUN = re.compile(rb"\$?(?:-?|-1\r?|\d{1,5}\r?)")
_INTEGER = re.compile(rb":\d{1,10}\r\n")
_EPOCH = re.compile(rb"(\d{10}) ")  # what a record and an epoch begin with (epochs.py)
# record.py: epoch, counter, created, age, used, life
_HEAD = re.compile(rb"\$\d{1,5}\r\n\d{10} (\d{1,15}) (\d{1,15}) (\d{1,15}) (\d{1,15}) (\d{1,15}) ")
_OWNED = re.compile(rb"(\d{10}) (?:\d+ ){5}([^\n]+)\n")  # and of a session whole: its epoch, whose it is
_MOMENT = re.compile(rb"\d{1,16}")
_MAX_VALUE = 72 * 1024  # bytes; the longest record (record.py)
_MAX_USUAL = 1024  # bytes of a reply that are kept to be compared with the next
MAX_ERROR = 4096  # bytes of an error line
MAX_GREETING = 65_536  # bytes; HELLO names the server's modules

# What a replica refuses and a primary answers at once: it stands behind each batch to one server, so that a
# primary that was made a replica is noticed with the first answer that it gives as one.
STILL_PRIMARY = b"*3\r\n$4\r\nWAIT\r\n$1\r\n0\r\n$1\r\n0\r\n"


class Verdict(IntEnum):
    """What the live check says of a token's session."""

    ALIVE = 0
    ENDED = 1
    UNAVAILABLE = 2


class Kind(IntEnum):
    """What the two keys of an ask are."""

    SESSION = 0  # the session, the token's revocation
    TOKEN = 1  # the revocation of another issuer's token, the epoch
    SUBJECT = 2  # the moment up to which a subject's foreign tokens are void, the epoch


class Greeting(Enum):
    """The commands that open a connection, in their order."""

    HELLO = 0
    SELECT = 1
    EPOCHS = 2


Answer = Callable[[int], None]


class ProtocolViolation(Exception):
    """The server sent what it was not asked for."""


class LiveKeys:
    """What one ask is about: two keys of one partition, as they stand in a command. Made once a token.

    `passed_at` is the loop's time of the last live check that passed it; -inf after one that did not. `usual`
    is the piece of a reply that last passed it, under the epoch `born`: the next is compared before it is read.
    `also` is a second ask that must pass too. `subject` is whose session the token says that it is, None where that
    does not count. `issued_at` is that of another issuer's token, and `lead` by how many seconds the clock that dated
    it may be ahead of Redis'.
    """

    __slots__ = ("also", "born", "issued_at", "kind", "lead", "partition", "passed_at", "subject", "usual", "wire")

    def __init__(
        self,
        partition: int,
        first: bytes,
        second: bytes,
        kind: Kind = Kind.SESSION,
        issued_at: int = 0,
        also: LiveKeys | None = None,
        lead: int = 0,
        subject: bytes | None = None,
    ) -> None:
        self.wire = b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(first), first, len(second), second)
        self.partition = partition
        self.kind = kind
        self.issued_at = issued_at
        self.lead = lead
        self.subject = subject
        self.also = also
        self.passed_at = -math.inf
        self.usual = b"\0"  # no reply begins so
        self.born = b""

    def names(self) -> tuple[bytes, bytes]:
        length, _, rest = self.wire.partition(b"\r\n")
        first, rest = rest[: int(length[1:])], rest[int(length[1:]) + 2 :]
        return first, rest.partition(b"\r\n")[2][:-2]

    def ends(self) -> float:
        """Return when the session ends by itself, by the record that was last seen alive: Unix seconds, inf = never.

        -inf where that is not known, and for what is no session.
        """
        found = self._record()
        if found is None:
            return -math.inf
        _, created, age, _, life = map(int, found.groups())
        return created + age + life if life else math.inf

    def is_used(self, counter: int) -> bool:
        """Whether the record that was last seen alive says that a token of this counter was used, or is past it.

        False where that is not known. What it says stays true: a use is never taken back.
        """
        found = self._record()
        return found is not None and (int(found[1]) > counter or (int(found[1]) == counter and found[4] != b"0"))

    def _record(self) -> re.Match[bytes] | None:
        return _HEAD.match(self.usual) if self.kind is Kind.SESSION and self.also is None else None

    def judge(self, first: bytes | None, second: bytes | None, born: bytes) -> Verdict:
        """Return what the values of the two keys mean in an epoch that began at `born` (ten digits, b"" = unknown)."""
        if not born:
            return Verdict.UNAVAILABLE
        if self.kind is Kind.SESSION:
            if first is None or second is not None:
                return Verdict.ENDED
            if self.subject is None:
                began = _EPOCH.match(first)
                return Verdict.ALIVE if began and began[1] >= born else Verdict.ENDED
            # Whose session it is counts too: the key that signs tokens must not open the sessions of others.
            owned = _OWNED.match(first)
            return Verdict.ALIVE if owned and owned[1] >= born and owned[2] == self.subject else Verdict.ENDED
        return self._judge_foreign(first, second, born)

    def _judge_foreign(self, first: bytes | None, second: bytes | None, born: bytes) -> Verdict:
        began = None if second is None else _EPOCH.match(second)
        if began is None:  # a store that was emptied
            return Verdict.ENDED
        if began[1] < born:  # and one that was rolled back, which nobody has mended yet
            return Verdict.UNAVAILABLE
        if int(began[1]) + self.lead >= self.issued_at:
            return self._judge_older(int(began[1]))
        if first is None:
            return Verdict.ALIVE
        if self.kind is Kind.SUBJECT and _MOMENT.fullmatch(first) and int(first) < self.issued_at:
            return Verdict.ALIVE
        return Verdict.ENDED

    def _judge_older(self, began: int) -> Verdict:
        """Judge a foreign token that is, or may be, older than the store: whether it was revoked then nobody knows.

        It never passes. Who would be told to get another one before any can be younger would come again and again;
        so that is told only once one can be had.
        """
        if began >= self.issued_at or time() >= began + self.lead + 1:
            return Verdict.ENDED
        self.passed_at = -math.inf  # this is no outage: no grace
        return Verdict.UNAVAILABLE


class EpochKeys(LiveKeys):
    """The epoch of a partition. An ask about it passes whatever it is; `value` is what it was, b"" = none."""

    __slots__ = ("value",)

    def __init__(self, partition: int, epoch: bytes) -> None:
        super().__init__(partition, epoch, epoch)
        self.value = b""

    def judge(self, first: bytes | None, second: bytes | None, born: bytes) -> Verdict:
        self.value = first or b""
        return Verdict.ALIVE


class Batch:
    """The asks of one tick. `asked_at` and `deadline` are in the loop's time, `begun` is perf_counter's."""

    __slots__ = ("answers", "asked_at", "begun", "deadline", "keys", "redirections")

    def __init__(self, keys: list[LiveKeys], answers: list[Answer], asked_at: float, deadline: float) -> None:
        self.keys = keys
        self.answers = answers
        self.asked_at = asked_at
        self.begun = perf_counter()  # the loop's own clock goes by milliseconds
        self.deadline = deadline
        self.redirections = 0

    def command(self) -> bytes:
        return b"*%d\r\n$4\r\nMGET\r\n" % (2 * len(self.keys) + 1) + b"".join([keys.wire for keys in self.keys])


def unavailable(batch: Batch) -> bytes:
    return b"\x02" * len(batch.answers)


def greeting(username: str, password: str, db: int) -> tuple[bytes, list[Greeting]]:
    """Return what opens a connection, and what is replied to it.

    HELLO, unlike AUTH, tells the server's role, and needs no permission of its own (Redis 6 and newer).
    """
    hello, replies = [b"HELLO", b"2"], [Greeting.HELLO]
    if password:
        hello += [b"AUTH", (username or "default").encode(), password.encode()]
    said = command([*hello, b"SETNAME", b"tokengate-live"])
    if db:
        said += command([b"SELECT", b"%d" % db])
        replies.append(Greeting.SELECT)
    return said, replies


def check_greeting(reply: Any, expected: Greeting) -> None:
    """Raise ProtocolViolation unless this is what a primary that welcomes us replies."""
    if expected is Greeting.SELECT:
        if reply != b"OK":
            raise ProtocolViolation(f"refused: {_first_word(reply)}")
        return
    if not isinstance(reply, list):
        raise ProtocolViolation(f"refused: {_first_word(reply)}")
    if expected is Greeting.EPOCHS:
        return
    role = [value for name, value in zip(reply[::2], reply[1::2], strict=False) if name == b"role"]
    if role != [b"master"]:
        raise ProtocolViolation("the server is no primary")


def _first_word(reply: Any) -> str:
    return str(reply).partition(" ")[0][:40]


def parse_head(data: bytes, position: int, count: int) -> int | None:
    """Return where the values of a reply of `count` asks begin, None = not all there.

    Raises ProtocolViolation for what does not begin such a reply.
    """
    head = head_of(count)
    if data.startswith(head, position):
        return position + len(head)
    if head.startswith(data[position:]):
        return None
    raise ProtocolViolation("not the reply that was due")


def parse_values(
    data: bytes, position: int, keys: Sequence[LiveKeys], verdicts: bytearray, born: Sequence[bytes]
) -> int:
    """Read on from `position`, a verdict for each ask whose values are all there; return where it stopped.

    `born` are the epochs of the partitions. Raises ProtocolViolation.
    """
    starts = data.startswith
    for each in keys[len(verdicts) :] if verdicts else keys:
        # Nearly every ask is answered as it was before: one comparison instead of a parse.
        usual = each.usual
        if starts(usual, position) and each.born == born[each.partition]:
            verdicts.append(0)
            position += len(usual)
            continue
        found = _pair(data, position)
        if found is None:
            break
        first, second, end = found
        verdict = each.judge(first, second, born[each.partition])
        if verdict is Verdict.ALIVE and end - position <= _MAX_USUAL:
            each.usual, each.born = data[position:end], born[each.partition]
        verdicts.append(verdict)
        position = end
    return position


def parse_error(data: bytes, position: int) -> tuple[bytes, int] | None:
    """Read an error line: (its text, where it ends), None = not all there. Raises ProtocolViolation."""
    end = data.find(b"\r\n", position)
    if end < 0:
        if len(data) - position > MAX_ERROR:
            raise ProtocolViolation("endless error")
        return None
    return data[position + 1 : end], end + 2


def parse_integer(data: bytes, position: int) -> int | None:
    """Return where an integer ends, None = not all there. Raises ProtocolViolation for what is none."""
    match = _INTEGER.match(data, position)
    if match is not None:
        return match.end()
    if len(data) - position < 13 and re.fullmatch(rb"(?::\d{0,10}\r?)?", data[position:]):
        return None
    raise ProtocolViolation("not an integer")


def _pair(data: bytes, position: int) -> tuple[bytes | None, bytes | None, int] | None:
    first = _bulk(data, position)
    if first is None:
        return None
    second = _bulk(data, first[1])
    return None if second is None else (first[0], second[0], second[1])


def _bulk(data: bytes, position: int) -> tuple[bytes | None, int] | None:
    """Read a bulk string or null: (value, where it ends), None = not all there."""
    if data.startswith(_NULL, position):
        return None, position + len(_NULL)
    match = _LENGTH.match(data, position)
    if match is None:
        if len(data) - position < 9 and _LENGTH_BEGUN.fullmatch(data, position):
            return None
        raise ProtocolViolation("not a bulk string")
    length, begin = int(match[1]), match.end()
    if length > _MAX_VALUE:
        raise ProtocolViolation("value too long")
    end = begin + length
    if len(data) < end + 2:
        return None
    if data[end : end + 2] != b"\r\n":
        raise ProtocolViolation("bulk string without an end")
    return data[begin:end], end + 2


@lru_cache(maxsize=256)
def head_of(count: int) -> bytes:
    return b"*%d\r\n" % (2 * count)


def command(words: Sequence[bytes]) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
