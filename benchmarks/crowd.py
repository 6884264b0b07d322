"""A crowd of sessions, put into Redis without a login each: as many as a test or a benchmark needs, in seconds.

The records are those that `create` would write, which tests/scale holds this to; session and index are two keys, with
their ends. Tokens for them are signed here.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import hiredis

from gateway.sessions import record
from gateway.sessions.keyspace import DIGITS, Keyspace, encode, new_session_id, partition
from gateway.sessions.record import NewSession
from gateway.sessions.resp import command
from gateway.tokens.signer import Signer

DAY = 86_400
REFRESH_TTL = 30 * DAY
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
)
AT_ONCE = 2_000  # sessions to a pipeline


class Crowd:
    """Users `u-<number>` with a session each: a device, a browser's user agent, an address, a role, an e-mail."""

    def __init__(self, prefix: str, epoch: int, *, counter: int = 0) -> None:
        """`epoch` is the birth of every partition (Unix seconds), `counter` that of the refresh tokens."""
        self._keys = Keyspace(prefix)
        self.epoch = epoch
        self._counter = counter
        self.made: list[tuple[str, str]] = []  # (subject, session id)

    def session(self, number: int) -> NewSession:
        return NewSession(
            subject=f"u-{number}",
            device="Chrome on Windows",
            user_agent=CHROME,
            ip=f"203.0.{number // 256 % 256}.{number % 256}",
            roles=("user",),
            claims={"email": f"user{number}@example.com"},
        )

    def record(self, new: NewSession, now: int) -> bytes:
        """Return what lua/record.lua writes for a session that began, and was refreshed last, at `now`."""
        head = b"%010d %d %d 0 0 %d " % (self.epoch, self._counter, now, REFRESH_TTL)
        return head + encode(new.subject) + b"\n" + record.client_part(new) + b"\n" + record.identity_part(new)

    def fill(
        self, where: int | Mapping[str, int], first: int, count: int, *, sessions: bool = True, index: bool = True
    ) -> None:
        """Write so many sessions, or one of their two keys. Raises OSError or RuntimeError.

        `where` is the port of Redis, or those of a cluster's masters by partition.
        """
        ports = dict.fromkeys(DIGITS, where) if isinstance(where, int) else where
        now = int(time.time())
        end = now + REFRESH_TTL
        known = iter(self.made[first : first + count]) if not sessions else None
        numbers = iter(range(first, first + count))
        with ExitStack() as stack:
            connections = {
                port: stack.enter_context(socket.create_connection(("127.0.0.1", port), 60))
                for port in set(ports.values())
            }
            while some := list(itertools.islice(numbers, AT_ONCE)):
                said: dict[int, list[bytes]] = {port: [] for port in connections}
                for number in some:
                    port = ports[partition(f"u-{number}")]
                    said[port] += self._commands(number, now, end, next(known)[1] if known else "", index=index)
                for port, commands in said.items():
                    _pipeline(connections[port], commands)

    def _commands(self, number: int, now: int, end: int, session_id: str, *, index: bool) -> Iterator[bytes]:
        new = self.session(number)
        if not session_id:
            session_id = new_session_id(new.subject)
            self.made.append((new.subject, session_id))
            value = self.record(new, now)
            yield command([b"SET", self._keys.session(session_id), value, b"PXAT", b"%d000" % end])
        if index:
            user = self._keys.user(new.subject)
            yield command([b"ZADD", user, b"%d" % end, session_id.encode()])
            yield command([b"PEXPIREAT", user, b"%d000" % end])

    def begin_epochs(self, client: Any, digits: str = DIGITS) -> None:
        """Write the epochs, so that a gateway that starts finds the sessions whole."""
        for digit in digits:
            client.set(self._keys.epoch(digit), b"%010d 0 " % self.epoch)

    def tokens(self, signer: Signer, which: Sequence[tuple[str, str]]) -> Iterator[str]:
        """Yield an access token for each of these (subject, session id)."""
        now = time.time()
        for subject, session_id in which:
            minted = signer.mint(
                subject=subject,
                session_id=session_id,
                counter=self._counter,
                roles=("user",),
                scope="",
                claims={"email": f"{subject}@example.com"},
                now=now,
            )
            yield minted.token


def _pipeline(connection: socket.socket, commands: Sequence[bytes]) -> None:
    """Send commands and read their replies, which may be no errors."""
    connection.sendall(b"".join(commands))
    reader, left = hiredis.Reader(notEnoughData=...), len(commands)
    while left:
        data = connection.recv(1 << 16)
        if not data:
            raise OSError("Redis has closed the connection")
        reader.feed(data)
        while (reply := reader.gets()) is not ...:
            if isinstance(reply, Exception):
                raise RuntimeError(str(reply))
            left -= 1
