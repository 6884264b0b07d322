"""What a server may send that no Redis should: never ALIVE, never an exception, never a hang, each ask once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from gateway.errors import StoreUnavailable
from gateway.sessions.keyspace import DIGITS
from gateway.sessions.liveness import Liveness, Verdict
from tests.sessions.test_outage import OPERATIONS
from tests.sessions.world import Tally, eventually, in_loop, opened

HELLO = b"*4\r\n$5\r\nproto\r\n:2\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
EPOCH = b"1763730000 0 "
RECORD = b"$16\r\n1763730000 0 1 2\r\n"
ALIVE = b"*2\r\n" + RECORD + b"$-1\r\n"
PRIMARY = b":0\r\n"  # what follows each batch: the server is a primary still
TIMEOUT = 0.25
SESSION, TOKEN = "0" * 23, "0" + "t" * 22

Send = Callable[[bytes], Awaitable[None]]


@dataclass
class FakeServer:
    """Answers the greeting with `hello` and each command after it with the next of `replies`, then the last."""

    hello: bytes = HELLO
    replies: list[bytes] = field(default_factory=lambda: [ALIVE])
    pieces: int = 0  # bytes a write, 0 = all at once
    port: int = 0
    connections: int = 0
    received: list[bytes] = field(default_factory=list)
    primary: bytes = PRIMARY

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while data := await reader.read(65_536):
                self.received.append(data)
                await self.write(writer, self.reply(data))
        except ConnectionError:
            pass
        finally:
            writer.close()

    def reply(self, data: bytes) -> bytes:
        if b"HELLO" in data:
            return self.hello
        if b"MGET" not in data:
            return self.next_reply()
        if b":epoch" in data:
            return epochs_of(EPOCH)
        reply = self.next_reply()
        return reply + self.primary if reply else reply

    def next_reply(self) -> bytes:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    async def write(self, writer: asyncio.StreamWriter, reply: bytes) -> None:
        step = self.pieces or max(1, len(reply))
        for start in range(0, len(reply), step):
            writer.write(reply[start : start + step])
            await writer.drain()
            if self.pieces:
                await asyncio.sleep(0.0005)


def epochs_of(value: bytes) -> bytes:
    return b"*16\r\n" + (b"$%d\r\n%b\r\n" % (len(value), value)) * 16


class KnownEpochs:
    """The epochs as the fake server has them: it runs no scripts."""

    def __init__(self) -> None:
        self.born = [EPOCH[:10]] * 16

    def known(self, digit: str) -> bytes:
        return EPOCH

    def saw(self, digit: str, value: bytes) -> None:
        """Keep what is known."""

    async def check(self, digits: str = DIGITS) -> None:
        """Find all well."""


@asynccontextmanager
async def checking(url: str, prefix: str, *, timeout: float, ready: bool = True) -> AsyncIterator[Liveness]:
    live = Liveness(url, prefix, timeout, KnownEpochs())
    live.start()
    try:
        if ready:
            await eventually(lambda: live.up)
        yield live
    finally:
        await live.close()


@asynccontextmanager
async def serving(fake: FakeServer) -> AsyncIterator[str]:
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.sleep(0.01)  # its handlers see the end of their connections


VIOLATIONS = [
    pytest.param(b"+OK\r\n", id="a status"),
    pytest.param(b":1\r\n", id="an integer"),
    pytest.param(b"$1\r\n1\r\n", id="a bulk string"),
    pytest.param(b"*-1\r\n", id="a null array"),
    pytest.param(b"*0\r\n", id="an empty array"),
    pytest.param(b"*1\r\n$1\r\n1\r\n", id="too few values"),
    pytest.param(b"*3\r\n$1\r\n1\r\n$-1\r\n$-1\r\n", id="too many values"),
    pytest.param(b"*4\r\n" + (RECORD + b"$-1\r\n") * 2, id="the reply to another batch"),
    pytest.param(b"*2\r\n:1\r\n$-1\r\n", id="an integer for a value"),
    pytest.param(b"*2\r\n+1\r\n$-1\r\n", id="a status for a value"),
    pytest.param(b"*2\r\n$1\r\n1\r\n_\r\n", id="a null of RESP 3"),
    pytest.param(b"*2\r\n*1\r\n$1\r\n1\r\n$-1\r\n", id="a nested array"),
    pytest.param(b"*2\r\n-ERR\r\n$-1\r\n", id="an error for a value"),
    pytest.param(b"*2\r\n$1\r\n1xx$-1\r\n", id="a value without an end"),
    pytest.param(b"*2\r\n$999999999\r\n", id="an endless value"),
    pytest.param(b"*2\r\n$-2\r\n$-1\r\n", id="a negative length"),
    pytest.param(b"*2\r\n$ 1\r\n1\r\n$-1\r\n", id="a length with a space"),
    pytest.param(b"*1000000000\r\n", id="an endless array"),
    pytest.param(b"*2\n$1\n1\n$-1\n", id="bare line feeds"),
    pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="HTTP"),
    pytest.param(b"\0" * 100, id="noughts"),
    pytest.param(b"-" + b"x" * 10_000, id="an endless error"),
    pytest.param(ALIVE + ALIVE, id="two replies to one command"),
    pytest.param(b"%1\r\n$1\r\na\r\n$1\r\nb\r\n", id="a map of RESP 3"),
    pytest.param(b">2\r\n$7\r\nmessage\r\n$1\r\nx\r\n" + ALIVE, id="a push of RESP 3"),
]


@pytest.mark.parametrize("reply", VIOLATIONS)
@in_loop
async def test_a_reply_that_was_not_due_ends_the_connection_and_passes_nobody_after_it(reply: bytes) -> None:
    fake = FakeServer(replies=[reply, ALIVE])
    async with serving(fake) as url, checking(url, "gw", timeout=TIMEOUT) as live:
        tally = Tally()
        tally.ask(live, live.keys(SESSION, TOKEN))
        await tally.all_answered()
        if reply != ALIVE + ALIVE:  # whose first half was due
            assert tally.verdicts() == [Verdict.UNAVAILABLE]
        await eventually(lambda: fake.connections == 2 and live.up)
        assert await live.alive(SESSION, TOKEN) is Verdict.ALIVE


@pytest.mark.parametrize(
    "error", ["LOADING Redis is loading", "MASTERDOWN Link down", "NOPERM no", "READONLY no", "ERR x", "NOAUTH a", ""]
)
@in_loop
async def test_an_error_is_unavailable_and_the_server_is_examined_again_before_it_is_asked(error: str) -> None:
    fake = FakeServer(replies=[f"-{error}\r\n".encode(), ALIVE])
    async with serving(fake) as url, checking(url, "gw", timeout=TIMEOUT) as live:
        assert await live.alive(SESSION, TOKEN) is Verdict.UNAVAILABLE
        assert not live.up
        await eventually(lambda: fake.connections == 2 and live.up)
        assert await live.alive(SESSION, TOKEN) is Verdict.ALIVE


@pytest.mark.parametrize("pieces", [1, 2, 3, 7])
@in_loop
async def test_replies_may_come_in_pieces(pieces: int) -> None:
    replies = [
        ALIVE,
        b"*2\r\n$-1\r\n$-1\r\n",
        b"*2\r\n" + RECORD + b"$1\r\n1\r\n",
        b"*2\r\n$-1\r\n$1\r\n1\r\n",
    ]
    replies += [ALIVE.replace(b"0 1 2", b"1 1 2"), b"*2\r\n$0\r\n\r\n$0\r\n\r\n", b"-ERR\r\n", b""]
    fake = FakeServer(replies=replies, pieces=pieces)
    async with serving(fake) as url, checking(url, "gw", timeout=2) as live:
        found = [await live.alive(SESSION, TOKEN) for _ in range(7)]
    assert found == [0, 1, 1, 1, 0, 1, 2]


@in_loop
async def test_half_a_reply_is_unavailable_at_the_timeout_and_its_other_half_is_never_read() -> None:
    fake = FakeServer(replies=[ALIVE[:-3], ALIVE])
    async with serving(fake) as url, checking(url, "gw", timeout=TIMEOUT) as live:
        assert await live.alive(SESSION, TOKEN) is Verdict.UNAVAILABLE
        await eventually(lambda: live.up)
        assert await live.alive(SESSION, TOKEN) is Verdict.ALIVE
        assert fake.connections == 2


@pytest.mark.parametrize(
    "hello",
    [
        pytest.param(b"-NOAUTH HELLO must be called with the client already authenticated\r\n", id="no password"),
        pytest.param(b"-WRONGPASS invalid username-password pair\r\n", id="a wrong password"),
        pytest.param(b"-ERR unknown command 'HELLO'\r\n", id="a server before Redis 6"),
        pytest.param(HELLO.replace(b"$6\r\nmaster", b"$7\r\nreplica"), id="a replica"),
        pytest.param(b"*2\r\n$4\r\nrole\r\n*0\r\n", id="a role that is none"),
        pytest.param(b"*1\r\n$4\r\nrole\r\n", id="a role that is missing"),
        pytest.param(b"+OK\r\n", id="a status"),
        pytest.param(b"*2\r\n$5\r\nproto\r\n:2\r\n", id="no role"),
        pytest.param(HELLO + ALIVE, id="an answer to a question not asked"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="another protocol"),
        pytest.param(b"$70000\r\n" + b"x" * 70_000, id="an endless greeting"),
        pytest.param(b"", id="silence"),
        pytest.param(HELLO[:-5], id="half a greeting"),
    ],
)
@in_loop
async def test_a_server_that_does_not_welcome_us_is_never_asked(hello: bytes) -> None:
    fake = FakeServer(hello=hello)
    async with serving(fake) as url, checking(url, "gw", timeout=TIMEOUT, ready=False) as live:
        for _ in range(3):
            assert await live.alive(SESSION, TOKEN) is Verdict.UNAVAILABLE
        assert not live.up
        assert not any(b"MGET" in data for data in fake.received)


@in_loop
async def test_a_server_that_always_breaks_the_rules_is_not_stormed_with_connections() -> None:
    fake = FakeServer(replies=[b"+OK\r\n"])
    async with serving(fake) as url, checking(url, "gw", timeout=TIMEOUT) as live:
        loop = asyncio.get_running_loop()
        end = loop.time() + 0.5
        while loop.time() < end:
            assert await live.alive(SESSION, TOKEN) is Verdict.UNAVAILABLE
            await asyncio.sleep(0.001)
        assert fake.connections < 12


@in_loop
async def test_the_password_is_sent_to_the_server_and_to_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    fake = FakeServer(hello=b"-WRONGPASS s3cret-word\r\n")
    async with serving(fake) as url:
        with_password = url.replace("redis://", "redis://bob:s3cret-word@")
        async with checking(with_password, "gw", timeout=TIMEOUT, ready=False) as live:
            assert await live.alive(SESSION, TOKEN) is Verdict.UNAVAILABLE
    assert b"$3\r\nbob\r\n$12\r\ns3cret-word\r\n".replace(b"$12", b"$11") in fake.received[0]
    assert "s3cret" not in caplog.text


JUNK = [
    b"+OK\r\n",
    b":7\r\n",
    b"$-1\r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"*1\r\n$7\r\nrotated\r\n",
    b"-ERR no\r\n",
    b"junk\r\n",
]
JUNK += [
    b"*2\r\n$7\r\nrotated\r\n$3\r\nxyz\r\n",
    b"*2\r\n$5\r\nwrong\r\n$-1\r\n",
    b"*2\r\n:1\r\n:2\r\n",
    b"*1\r\n*0\r\n",
]
JUNK += [b"*2\r\n$2\r\n\xff\xfe\r\n$2\r\n\xff\xfe\r\n", b"-NOSCRIPT again\r\n", b"-MOVED 1 127.0.0.1:1\r\n"]


@pytest.mark.parametrize("reply", JUNK)
@in_loop
async def test_whatever_the_server_says_the_store_raises_nothing_but_unavailable(reply: bytes) -> None:
    fake = FakeServer(hello=b"+OK\r\n", replies=[reply])
    async with serving(fake) as url, opened(url, "gw", timeout=TIMEOUT) as world:
        for name, operation in OPERATIONS.items():
            try:
                result = await operation(world.store)
            except StoreUnavailable:
                continue
            assert name not in ("create", "rotate"), f"{name} made {result!r} of {reply!r}"
