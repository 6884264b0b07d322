"""The webhook, against a real server that can misbehave in any way a backend can."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from gateway.errors import IdentityUnavailable, InvalidCredentials
from gateway.identity import Identity, Webhook
from tests.identity.backend import Answer, Backend, http, ok

T = TypeVar("T")

GOOD = {
    "sub": "u-1",
    "roles": ["user", "admin"],
    "scope": "orders:read",
    "claims": {"email": "a@example.com"},
    "credential_version": "7",
}


def asking(
    answer: bytes | Answer,
    ask: Callable[[Webhook], Awaitable[T]],
    *,
    timeout: float = 5.0,
    path: str = "/internal/login",
    host: str = "127.0.0.1",
    max_connections: int = 100,
) -> tuple[T | Exception, Backend]:
    """Run one question against a backend that answers so; return the outcome, or what was raised."""

    async def main() -> tuple[T | Exception, Backend]:
        async with Backend(answer) as backend:
            webhook = Webhook(f"http://{host}:{backend.port}{path}", timeout, max_connections)
            try:
                return await ask(webhook), backend
            except (InvalidCredentials, IdentityUnavailable) as error:
                return error, backend
            finally:
                await webhook.close()

    return asyncio.run(main())


def login(webhook: Webhook) -> Awaitable[Identity]:
    return webhook.authenticate("alice", "s3cret", "phone", "192.0.2.1")


def recheck(webhook: Webhook) -> Awaitable[Identity | None]:
    return webhook.recheck("u-1", "sid-1")


def test_a_login_asks_as_the_contract_says_and_takes_what_is_answered() -> None:
    identity, backend = asking(ok(GOOD), login)
    assert identity == Identity("u-1", ("user", "admin"), "orders:read", {"email": "a@example.com"}, "7")
    ((line, headers, body),) = backend.requests
    assert line == "POST /internal/login HTTP/1.1"
    assert headers["content-type"] == "application/json"
    assert body == {"username": "alice", "password": "s3cret", "device": "phone", "ip": "192.0.2.1"}


def test_everything_but_the_subject_may_be_absent_or_null() -> None:
    nulls = dict.fromkeys(("roles", "scope", "claims", "credential_version"))
    for document in ({"sub": "u-1"}, {"sub": "u-1", **nulls}, {"sub": "u-1", "unknown": 1}):
        identity, _ = asking(ok(document), login)
        assert identity == Identity("u-1", (), "", {}, "")


def test_401_is_a_wrong_password() -> None:
    error, _ = asking(http(401, b"no"), login)
    assert isinstance(error, InvalidCredentials)


@pytest.mark.parametrize(
    "more",
    [
        b"",
        b"x" * 65_537,
        b"x" * 1_000_000,
        b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"sub": "u-1"}',
    ],
    ids=["none", "a little too long", "long", "another answer"],
)
@pytest.mark.parametrize("framing", ["length", "chunks", "no end"])
def test_401_is_a_no_whatever_stands_in_it(more: bytes, framing: str) -> None:
    """A sign-in would be told to come again, and a recheck would leave the session of a user who is gone."""
    head = b"HTTP/1.1 401 X\r\nContent-Type: text/html\r\n"
    chunks = b"%x\r\n%b\r\n" % (len(more), more) if more else b""
    answer = {
        "length": head + b"Content-Length: %d\r\n\r\n" % len(more) + more,
        "chunks": head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n",
        "no end": head + b"Content-Length: 9999999\r\n\r\n" + more,
    }[framing]
    error, _ = asking(answer, login)
    assert isinstance(error, InvalidCredentials)
    assert asking(answer, recheck)[0] is None


@pytest.mark.parametrize("status", [201, 202, 204, 400, 403, 404, 418, 429, 500, 502, 503])
def test_any_other_status_is_no_answer(status: int) -> None:
    for ask in (login, recheck):
        error, _ = asking(http(status, b"" if status == 204 else json.dumps(GOOD).encode()), ask)
        assert isinstance(error, IdentityUnavailable)
        assert str(status) in error.reason


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_or_the_password_would_go_elsewhere(status: int) -> None:
    async def redirect(writer: asyncio.StreamWriter) -> None:
        writer.write(http(status, b"", "Location: /elsewhere"))

    error, backend = asking(redirect, login)
    assert isinstance(error, IdentityUnavailable)
    assert len(backend.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"u-1"',
        b"1",
        b'{"sub":"u-1"}x',
        b'{"sub":"\xff"}',
        b"<html>",
        b"[" * 60000,
        b'{"sub":NaN}',
    ],
)
def test_a_body_that_is_no_json_object_is_no_answer(body: bytes) -> None:
    error, _ = asking(http(200, body), login)
    assert isinstance(error, IdentityUnavailable)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("sub", None),
        ("sub", ""),
        ("sub", 1),
        ("sub", ["u-1"]),
        ("sub", "a\r\nX-Admin: 1"),
        ("sub", "a\u0000"),
        ("sub", "a\u0085"),
        ("sub", "x" * 256),
        ("roles", "admin"),
        ("roles", {"admin": True}),
        ("roles", ["user", 1]),
        ("roles", ["user", None]),
        ("roles", [""]),
        ("roles", ["a\nb"]),
        ("roles", ["r"] * 201),
        ("scope", ["orders:read"]),
        ("scope", 'a"b'),
        ("scope", "a\\b"),
        ("scope", " a"),
        ("scope", "a\tb"),
        ("scope", "é"),
        ("claims", []),
        ("claims", "x"),
        ("claims", {"x": {"x": {"x": {"x": {"x": {"x": {"x": {"x": {"x": 1}}}}}}}}}),
        ("claims", {"x": "x" * 5000}),
        ("credential_version", 7),
        ("credential_version", "x" * 256),
        ("credential_version", ["7"]),
    ],
)
def test_a_member_of_a_wrong_type_is_no_answer_and_is_not_quoted(member: str, value: object) -> None:
    error, _ = asking(ok({**GOOD, member: value}), login)
    assert isinstance(error, IdentityUnavailable)
    assert member in error.reason
    assert "X-Admin" not in error.reason


def test_an_answer_without_a_subject_signs_nobody_in() -> None:
    error, _ = asking(ok({"roles": ["admin"]}), login)
    assert isinstance(error, IdentityUnavailable)


def test_an_answer_of_64_kib_is_read_and_a_larger_one_is_not() -> None:
    small = json.dumps({**GOOD, "unknown": ""})
    fits = {**GOOD, "unknown": "x" * (65536 - len(small))}
    assert isinstance(asking(ok(fits), login)[0], Identity)
    error, _ = asking(ok({**GOOD, "unknown": "x" * (65537 - len(small))}), login)
    assert isinstance(error, IdentityUnavailable)


def test_an_endless_answer_is_cut_off_early() -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
            sent += 65536
            await writer.drain()

    error, _ = asking(endless, login)
    assert isinstance(error, IdentityUnavailable)
    assert sent < 16 << 20


def test_a_compressed_answer_is_not_unpacked() -> None:
    error, backend = asking(http(200, gzip.compress(json.dumps(GOOD).encode()), "Content-Encoding: gzip"), login)
    assert isinstance(error, IdentityUnavailable)
    assert backend.requests[0][1]["accept-encoding"] == "identity"


async def silence(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def half_a_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 X\r\nContent-")
    await asyncio.Event().wait()


async def half_a_body(writer: asyncio.StreamWriter) -> None:
    writer.write(ok(GOOD)[:-10])
    await asyncio.Event().wait()


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("answer", [silence, half_a_head, half_a_body, drip])
def test_a_slow_or_stuck_backend_costs_the_timeout_and_no_more(answer: Answer) -> None:
    started = time.monotonic()
    error, _ = asking(answer, login, timeout=0.2)
    assert isinstance(error, IdentityUnavailable)
    assert "no answer in time" in error.reason
    assert time.monotonic() - started < 2


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def hang_up_in_the_body(writer: asyncio.StreamWriter) -> None:
    writer.write(ok(GOOD)[:-10])
    await writer.drain()
    writer.close()


async def reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@pytest.mark.parametrize(
    "answer",
    [
        hang_up,
        hang_up_in_the_body,
        reset,
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 999999 X\r\n\r\n",
        b"HTTP/1.1 200 X\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 X\r\n" + b"X-Big: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
)
def test_a_broken_answer_is_no_answer_and_the_password_is_sent_once(answer: bytes | Answer) -> None:
    error, backend = asking(answer, login)
    assert isinstance(error, IdentityUnavailable)
    assert len(backend.requests) == 1


def test_a_backend_that_is_not_there_is_unavailable() -> None:
    async def main() -> None:
        async with Backend(b"") as backend:
            port = backend.port
        webhook = Webhook(f"http://127.0.0.1:{port}/login")
        with pytest.raises(IdentityUnavailable, match="ClientConnectorError"):
            await login(webhook)
        await webhook.close()

    asyncio.run(main())


def test_connections_are_kept_and_never_more_than_allowed() -> None:
    async def many(webhook: Webhook) -> list[Identity]:
        return [identity for _ in range(3) for identity in await asyncio.gather(*(login(webhook) for _ in range(10)))]

    identities, backend = asking(ok(GOOD), many, max_connections=3)
    assert isinstance(identities, list)
    assert len(identities) == len(backend.requests) == 30
    assert backend.connections == 3


def test_more_logins_than_can_wait_are_turned_away_at_once_and_room_comes_free_again() -> None:
    released = asyncio.Event()

    async def later(writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.write(ok(GOOD))

    async def crowd(webhook: Webhook) -> list[object]:
        waiting = [asyncio.ensure_future(login(webhook)) for _ in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(IdentityUnavailable, match="waiting"):
            await login(webhook)
        released.set()
        return [*await asyncio.gather(*waiting), await login(webhook)]

    outcome, _ = asking(later, crowd, max_connections=1)
    assert isinstance(outcome, list)
    assert len(outcome) == 6


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "http_proxy", "http://127.0.0.1:1")
    identity, _ = asking(ok(GOOD), login)
    assert isinstance(identity, Identity)


def test_a_cookie_of_the_backend_is_not_sent_with_the_next_login() -> None:
    async def twice(webhook: Webhook) -> None:
        await login(webhook)
        await login(webhook)

    body = json.dumps(GOOD).encode()
    _, backend = asking(http(200, body, "Set-Cookie: sid=1; Path=/"), twice, host="localhost")
    assert [headers.get("cookie") for _, headers, _ in backend.requests] == [None, None]


@pytest.mark.parametrize(("username", "password"), [("", "x"), ("alice", ""), ("\ud800", "x"), ("alice", "\ud800")])
def test_an_empty_name_or_password_or_what_is_no_text_never_reaches_the_backend(username: str, password: str) -> None:
    error, backend = asking(ok(GOOD), lambda webhook: webhook.authenticate(username, password, "", ""))
    assert isinstance(error, InvalidCredentials)
    assert backend.requests == []


def test_a_recheck_asks_below_the_url_and_takes_the_new_roles() -> None:
    identity, backend = asking(ok({**GOOD, "roles": ["user"]}), recheck)
    assert isinstance(identity, Identity)
    assert identity.roles == ("user",)
    ((line, _, body),) = backend.requests
    assert line == "POST /internal/login/refresh HTTP/1.1"
    assert body == {"sub": "u-1", "session_id": "sid-1"}


@pytest.mark.parametrize(("path", "asked"), [("", "/refresh"), ("/", "/refresh"), ("/a/", "/a/refresh")])
def test_a_slash_at_the_end_of_the_url_makes_no_empty_path_segment(path: str, asked: str) -> None:
    _, backend = asking(ok(GOOD), recheck, path=path)
    assert backend.requests[0][0] == f"POST {asked} HTTP/1.1"


def test_a_recheck_that_is_answered_401_ends_the_session() -> None:
    outcome, _ = asking(http(401, b""), recheck)
    assert outcome is None


def test_a_recheck_need_not_repeat_the_subject_but_cannot_change_it() -> None:
    assert asking(ok({"roles": ["user"]}), recheck)[0] == Identity("u-1", ("user",))
    for other in ("u-2", None, 1, ""):
        error, _ = asking(ok({"sub": other}), recheck)
        assert isinstance(error, IdentityUnavailable)


def test_a_closed_webhook_is_unavailable_and_closes_twice() -> None:
    async def closed(webhook: Webhook) -> Identity:
        await login(webhook)
        await webhook.close()
        return await login(webhook)

    error, backend = asking(ok(GOOD), closed)
    assert isinstance(error, IdentityUnavailable)
    assert len(backend.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "",
        "accounts:8080/login",
        "ftp://a/b",
        "http://",
        "/login",
        "http://a/b?x=1",
        "http://a/b#c",
        "http://a:hunter2/",
    ],
)
def test_an_address_that_is_no_plain_http_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^must be ") as refusal:
        Webhook(url)
    assert "hunter2" not in str(refusal.value)


def test_no_password_and_no_user_information_shows_in_a_repr_or_an_error() -> None:
    assert "hunter2" not in repr(Webhook("http://gateway:hunter2@accounts/login"))
    error, _ = asking(http(500, b"hunter2"), login)
    assert "s3cret" not in repr(error)
    assert "hunter2" not in repr(error)
