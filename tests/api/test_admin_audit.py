"""Who an operator is, and what the audit trail says of them: proven by a token, said in two headers."""

from __future__ import annotations

import asyncio
import hmac
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.telemetry import configure_logging
from tests.api.support import Stack, bearer, code, stack
from tests.api.test_management import ADMIN, ADMIN_CALLS, TOKEN, admins, managed

ALICE, BOB = "-8kKLx1EhvFePV89mKGX6YGoftn8QAcp69h4qXsmmVM", "Ot9DAEMwVMuhafZ6Yqk7P7oVHqTXArGUcHfsmr3qfm4"
ALL = admins(TOKEN, alice=ALICE, bob=BOB)
SAID = {"X-Admin-Actor": "jane@support", "X-Admin-Reason": "ticket 4711: laptop stolen"}
HOSTILE = [
    ("X-Admin-Reason", b"a\tb"),
    ("X-Admin-Reason", b"a\x1b[2Jb"),
    ("X-Admin-Reason", "a\u202eb".encode()),
    ("X-Admin-Reason", "a\u2028{}".encode()),
    ("X-Admin-Reason", "a\u0085b".encode()),
    ("X-Admin-Reason", b"\xff\xfe"),
    ("X-Admin-Reason", b"x" * 201),
    ("X-Admin-Actor", b"x" * 60_000),
    ("X-Admin-Actor", b"a\x00b"),
    ("X-Admin-Actor", b"a\nb"),
]


@pytest.fixture
def trail() -> Iterator[io.StringIO]:
    """The log as it is written."""
    root, own = logging.getLogger(), logging.getLogger("gateway.audit")
    before = (root.level, root.handlers[:], own.level)
    stream = io.StringIO()
    configure_logging(stream)
    yield stream
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    own.setLevel(before[2])
    logging.captureWarnings(False)


def audited(trail: io.StringIO, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in trail.getvalue().splitlines()]
    return [line for line in lines if line["logger"] == "gateway.audit" and line["event"] == event]


async def everything(s: Stack, m: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """Make each call of the admin API once, on sessions of its own."""
    one, two, three = await s.login(), await s.login(), await s.login()
    claims = (await s.me(two["access_token"])).json()
    answers = [
        await m.get("/admin/users/u-1/sessions", headers=headers),
        await m.delete(f"/admin/sessions/{one['session_id']}", headers=headers),
        await m.post("/admin/revoke", json={"jti": claims["jti"], "exp": claims["exp"]}, headers=headers),
        await m.post("/admin/revoke", json={"token": two["access_token"]}, headers=headers),
        await m.post("/admin/revoke", json={"token": three["refresh_token"]}, headers=headers),
        await m.delete("/admin/users/u-1/sessions", headers=headers),
        await m.post("/admin/keys/reload", headers=headers),
    ]
    assert [answer.status_code for answer in answers] == [200, 204, 204, 204, 204, 204, 200]


@pytest.mark.parametrize(("token", "by"), [(TOKEN, "admin"), (ALICE, "admin:alice"), (BOB, "admin:bob")])
def test_every_call_leaves_a_line_with_who_is_proven_who_is_said_and_why(
    trail: io.StringIO, token: str, by: str
) -> None:
    async def run() -> None:
        async with stack() as s, managed(s, admins=lambda: ALL) as m:
            await everything(s, m, {**bearer(token), **SAID})

    asyncio.run(run())
    expected = ["sessions_listed", "session_revoked", "token_revoked", "logout", "sessions_revoked", "keys_reloaded"]
    for event in expected:
        lines = audited(trail, event)
        assert lines, event
        for line in lines:
            assert (line["by"], line["who"], line["reason"]) == (by, "jane@support", "ticket 4711: laptop stolen")
            assert line["ip"]
            assert line["request_id"]
    assert len(audited(trail, "token_revoked")) == 2
    assert not [secret for secret in (TOKEN, ALICE, BOB) if secret in trail.getvalue()]


def test_a_call_about_a_session_that_is_not_there_leaves_a_line_that_it_ended_none(trail: io.StringIO) -> None:
    async def run() -> None:
        async with stack() as s, managed(s) as m:
            gone = (await s.login())["session_id"]
            for status in (204, 404):
                answer = await m.delete(f"/admin/sessions/{gone}", headers={**ADMIN, **SAID})
                assert answer.status_code == status

    asyncio.run(run())
    first, second = audited(trail, "session_revoked")
    assert (first["number"], first["subject"], second["number"]) == (1, "u-1", 0)
    assert second["session_id"] == first["session_id"]
    assert (second["who"], second["reason"]) == (SAID["X-Admin-Actor"], SAID["X-Admin-Reason"])


def test_a_user_who_names_a_session_that_is_not_theirs_leaves_none(trail: io.StringIO) -> None:
    """Anybody could fill the trail with such."""

    async def run() -> None:
        async with stack() as s:
            alice, bob = await s.login(), await s.login("bob", "builder")
            for session_id in (bob["session_id"], "x" * 23):
                path = f"/auth/sessions/{session_id}"
                assert (await s.client.delete(path, headers=bearer(alice["access_token"]))).status_code == 404

    asyncio.run(run())
    assert audited(trail, "session_revoked") == []


def test_without_the_headers_the_line_says_by_whom_alone(trail: io.StringIO) -> None:
    async def run() -> None:
        async with stack() as s, managed(s) as m:
            assert (await m.get("/admin/users/u-1/sessions", headers=ADMIN)).status_code == 200

    asyncio.run(run())
    (line,) = audited(trail, "sessions_listed")
    assert line["by"] == "admin"
    assert not {"who", "reason"} & set(line)


def test_named_tokens_alone_open_the_admin_api() -> None:
    async def run() -> None:
        async with stack() as s, managed(s, admins=lambda: admins(alice=ALICE, bob=BOB)) as m:
            assert (await m.get("/admin/users/u-1/sessions", headers=bearer(BOB))).status_code == 200
            for value in ("", TOKEN, ALICE[:-1], ALICE + BOB, "alice", "sha256:" + ALL["admin:alice"].hex()):
                refused = await m.get("/admin/users/u-1/sessions", headers=bearer(value))
                assert code(refused) == (403, "forbidden")

    asyncio.run(run())


@pytest.mark.parametrize(("method", "path"), ADMIN_CALLS)
def test_who_says_to_be_an_admin_is_none(trail: io.StringIO, method: str, path: str) -> None:
    """A name in a header proves nothing; and who is refused leaves nothing of theirs in the trail."""

    async def run() -> None:
        async with stack() as s, managed(s, admins=lambda: ALL) as m:
            user = (await s.login())["access_token"]
            for headers in (SAID, {**SAID, **bearer(user)}, {**SAID, **bearer("alice")}):
                assert code(await m.request(method, path, headers=headers)) == (403, "forbidden")

    asyncio.run(run())
    assert "jane@support" not in trail.getvalue()


@pytest.mark.parametrize("token", [TOKEN, ALICE, BOB, "wrong"])
def test_every_token_is_compared_whichever_is_presented(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """The time of an answer tells neither how much of a token was right nor whose it is."""
    lengths: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def counting(one: bytes, other: bytes) -> bool:
        lengths.append((len(one), len(other)))
        return compare(one, other)

    async def run() -> None:
        async with stack() as s, managed(s, admins=lambda: ALL) as m:
            monkeypatch.setattr(hmac, "compare_digest", counting)
            await m.get("/admin/users/u-1/sessions", headers=bearer(token))

    asyncio.run(run())
    assert lengths == [(32, 32)] * 3


@pytest.mark.parametrize(("name", "value"), HOSTILE)
def test_what_is_no_plain_short_line_is_refused_before_anything_is_done(
    trail: io.StringIO, name: str, value: bytes
) -> None:
    """Log injection: neither a control character, nor what turns the writing, nor a text without end gets in."""

    async def run() -> None:
        async with stack() as s, managed(s) as m:
            session = await s.login()
            headers = [(b"authorization", f"Bearer {TOKEN}".encode()), (name.encode(), value)]
            answer = await m.delete(f"/admin/sessions/{session['session_id']}", headers=headers)
            assert code(answer) == (400, "invalid_request")
            assert name.lower() in answer.json()["error_description"]
            assert (await s.me(session["access_token"])).status_code == 200

    asyncio.run(run())
    assert not audited(trail, "session_revoked")


def test_a_header_that_comes_twice_is_refused() -> None:
    async def run() -> None:
        async with stack() as s, managed(s) as m:
            headers = [("authorization", f"Bearer {TOKEN}"), ("x-admin-actor", "a"), ("x-admin-actor", "b")]
            assert code(await m.get("/admin/users/u-1/sessions", headers=headers)) == (400, "invalid_request")

    asyncio.run(run())


def test_a_reason_in_any_language_is_kept_and_a_secret_in_it_is_blotted_out(trail: io.StringIO) -> None:
    async def run() -> None:
        async with stack() as s, managed(s) as m:
            for reason in ("Gerät verloren, 端末の紛失", f"wrote to me: token={ALICE}"):
                headers = {**ADMIN, "X-Admin-Reason": reason.encode()}
                assert (await m.get("/admin/users/u-1/sessions", headers=headers)).status_code == 200  # type: ignore[arg-type]  # bytes are

    asyncio.run(run())
    told, blotted = audited(trail, "sessions_listed")
    assert told["reason"] == "Gerät verloren, 端末の紛失"
    assert blotted["reason"] == "wrote to me: token=[redacted]"
