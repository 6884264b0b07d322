"""Bodies that are too large, malformed, doubled or of the wrong kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.api import body
from tests.api.support import Stack, code, stack

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
INVALID = (400, "invalid_request")


async def post(s: Stack, content: bytes, kind: str | None, path: str = "/auth/token") -> tuple[int, str]:
    headers = {"content-type": kind} if kind is not None else {}
    return code(await s.client.post(path, content=content, headers=headers))


MALFORMED = [
    (b"{", JSON),
    (b"[]", JSON),
    (b'"grant_type"', JSON),
    (b"null", JSON),
    (b'{"grant_type":"refresh_token"} x', JSON),
    (b'{"grant_type":"refresh_token","grant_type":"password"}', JSON),
    (b'{"a":{"b":1,"b":2}}', JSON),
    (b'{"grant_type":NaN}', JSON),
    (b'{"grant_type":' + b"9" * 5000 + b"}", JSON),
    (b"[" * 60000, JSON),
    (b'{"a":' * 10000, JSON),
    (b'{"grant_type":"\xff"}', JSON),
    (b'{"grant_type":"refresh_token","refresh_token":"\\ud800"}', JSON),
    (b'\xef\xbb\xbf{"grant_type":"refresh_token"}', JSON),
    (b'{"grant_type":["refresh_token"]}', JSON),
    (b'{"grant_type":"refresh_token","refresh_token":null}', JSON),
    (b"grant_type=refresh_token&grant_type=refresh_token&refresh_token=x", FORM),
    (b"grant_type=refresh_token&refresh_token=x&refresh_token=y", FORM),
    (b"grant_type=refresh_token&refresh_token=%ff", FORM),
    (b"grant_type=refresh_token&refresh_token=\xc3\xa9", FORM),
    (b"a=1&" * 33, FORM),
    (b"grant_type=refresh_token&refresh_token=x", None),
    (b"grant_type=refresh_token&refresh_token=x", "text/plain"),
    (b"grant_type=refresh_token&refresh_token=x", "multipart/form-data; boundary=x"),
    (b"grant_type=refresh_token&refresh_token=x", FORM + "; charset=utf-16"),
    (b"grant_type=refresh_token&refresh_token=x", JSON),
    (b'{"grant_type":"refresh_token","refresh_token":"x"}', FORM),
]


@pytest.mark.parametrize(("content", "kind"), MALFORMED)
def test_a_body_with_no_or_two_readings_is_an_invalid_request(content: bytes, kind: str | None) -> None:
    async def run() -> None:
        async with stack() as s:
            assert await post(s, content, kind) == INVALID

    asyncio.run(run())


@pytest.mark.parametrize("kind", [JSON, "Application/JSON", JSON + "; charset=UTF-8", JSON + ';charset="utf-8"'])
def test_the_media_type_is_read_as_rfc_9110_says(kind: str) -> None:
    async def run() -> None:
        async with stack() as s:
            content = b'{"grant_type":"refresh_token","refresh_token":"x"}'
            assert await post(s, content, kind) == (400, "invalid_grant")

    asyncio.run(run())


def test_two_content_types_or_a_coded_body_are_refused() -> None:
    async def run() -> None:
        async with stack() as s:
            content = b"grant_type=refresh_token&refresh_token=x"
            twice = [("content-type", FORM), ("content-type", JSON)]
            assert code(await s.client.post("/auth/token", content=content, headers=twice)) == INVALID
            coded = {"content-type": FORM, "content-encoding": "gzip"}
            assert code(await s.client.post("/auth/token", content=content, headers=coded)) == INVALID

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/auth/login", "/auth/token", "/auth/logout", "/auth/revoke"])
def test_a_body_over_64_kib_is_refused_whether_its_length_is_told_or_not(path: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(65):
            yield b"a" * 1024

    async def run() -> None:
        async with stack() as s:
            headers = {"content-type": JSON}
            known = await s.client.post(path, content=b"a" * 65537, headers=headers)
            assert code(known) == (413, "body_too_large")
            unknown = await s.client.post(path, content=pieces(), headers=headers)
            assert code(unknown) == (413, "body_too_large")

    asyncio.run(run())


def test_a_body_that_does_not_arrive_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"grant_type="
        await asyncio.Event().wait()

    async def run() -> None:
        monkeypatch.setattr(body, "TIMEOUT", 0.01)
        async with stack() as s:
            response = await s.client.post("/auth/token", content=never(), headers={"content-type": FORM})
            assert code(response) == (408, "request_timeout")

    asyncio.run(run())


def test_parameters_that_are_not_known_are_ignored() -> None:
    async def run() -> None:
        async with stack() as s:
            token = (await s.login(colour="blue"))["refresh_token"]
            given = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "app"}
            assert (await s.client.post("/auth/token", data=given)).status_code == 200

    asyncio.run(run())
