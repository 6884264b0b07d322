"""The commands of operators: sessions with who and why, the audit trail, tokens of admins."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pwd
import re
import secrets
import socket
from pathlib import Path
from typing import Any

import pytest

from gateway.sessions.connect import open_client
from gateway.sessions.trail import AuditTrail
from tests.cli.test_cli import CONFIG, _logging_restored, _sign_in, keys, run
from tests.redis_server import RedisServer

__all__ = ["_logging_restored", "keys"]

WHY = ("--reason", "ticket 4711", "--actor", "jane")


@pytest.fixture
def stored(tmp_path: Path, keys: Path, shared_redis: RedisServer) -> Path:
    """A configuration with an audit stream, under a prefix of its own."""
    path = tmp_path / "gateway.toml"
    text = CONFIG.format(keys=keys, redis=shared_redis.url).replace('"cli"', f'"cli-{secrets.token_hex(4)}"')
    path.write_text(text + "\n[audit]\nstream = true\n")
    return path


def trail(stored: Path, *options: str) -> list[dict[str, Any]]:
    result = run("audit", *options, "--config", str(stored))
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def append(stored: Path, *entries: dict[str, str]) -> None:
    """Write entries as a gateway would."""
    text = stored.read_text()
    url, prefix = (re.findall(rf'^{key} = "(redis://.*|cli-.*)"$', text, re.MULTILINE)[0] for key in ("url", "prefix"))

    async def write() -> None:
        client = open_client(url, 2.0)
        await AuditTrail(client, prefix, 2.0, 1000, 3600).append(entries)
        await client.aclose()

    asyncio.run(write())


# --- who and why ---


def test_each_command_says_who_and_why_in_the_log_and_in_the_stream(stored: Path) -> None:
    one, _ = asyncio.run(_sign_in(stored, "u-9", "phone", "laptop"))
    commands = [
        (("list", "u-9"), "sessions_listed"),
        (("show", one.id), "sessions_listed"),
        (("revoke", one.id), "session_revoked"),
        (("revoke", "--subject", "u-9"), "sessions_revoked"),
        (("revoke", "--jti", "3abcdefghijklmnopqrst", "--exp", "4000000000"), "token_revoked"),
    ]
    for words, event in commands:
        result = run("sessions", *words, *WHY, "--config", str(stored))
        assert result.exit_code == 0, result.output
        line = json.loads(result.stderr)
        assert (line["event"], line["by"], line["who"], line["reason"]) == (event, "cli", "jane", "ticket 4711")
    found = trail(stored)
    assert [entry["event"] for entry in found] == [event for _, event in commands]
    assert {entry["who"] for entry in found} == {"jane"}
    assert {entry["reason"] for entry in found} == {"ticket 4711"}
    assert {entry["replica"] for entry in found} == {socket.gethostname()}
    assert [entry.get("subject") for entry in found] == ["u-9", "u-9", "u-9", "u-9", None]


def test_the_actor_is_the_user_of_the_system_unless_told(stored: Path) -> None:
    line = json.loads(run("sessions", "revoke", "--subject", "nobody", "--config", str(stored)).stderr)
    assert line["who"] == f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"
    assert "reason" not in line


@pytest.mark.parametrize("option", ["--reason", "--actor"])
@pytest.mark.parametrize("value", ["x" * 201, "a\nb", "a\x1b[2J", "a\u202eb"])
def test_what_is_no_plain_short_line_is_refused(stored: Path, option: str, value: str) -> None:
    result = run("sessions", "revoke", "--subject", "nobody", option, value, "--config", str(stored))
    assert result.exit_code == 2
    assert "at most 200 characters" in result.stderr
    assert trail(stored) == []


def test_a_stream_that_cannot_be_written_is_told_and_what_was_done_is_done(
    stored: Path, shared_redis: RedisServer
) -> None:
    (session,) = asyncio.run(_sign_in(stored, "u-8", "phone"))
    prefix = re.findall(r'^prefix = "(.*)"$', stored.read_text(), re.MULTILINE)[0]
    with shared_redis.client() as admin:
        admin.set(f"{prefix}:{{0}}:audit", "no stream", px=60_000)
    result = run("sessions", "revoke", session.id, "--config", str(stored))
    assert (result.exit_code, result.stdout) == (0, "1 ended\n")
    assert "the audit stream was not written: audit: ResponseError" in result.stderr


# --- sessions ---


def test_sessions_as_json_are_whole_and_one_a_line(stored: Path) -> None:
    made = asyncio.run(_sign_in(stored, "u-7", "phone", "laptop"))
    listed = [
        json.loads(line)
        for line in run("sessions", "list", "u-7", "--json", "--config", str(stored)).stdout.splitlines()
    ]
    assert {session["id"] for session in listed} == {session.id for session in made}
    assert {session["device"] for session in listed} == {"phone", "laptop"}
    names = {"subject", "id", "device", "user_agent", "ip", "created_at", "last_used_at", "expires_at"}
    assert all(set(session) == names for session in listed)
    (shown,) = run("sessions", "show", made[0].id, "--json", "--config", str(stored)).stdout.splitlines()
    assert json.loads(shown) == next(session for session in listed if session["id"] == made[0].id)


def test_a_session_that_is_none_is_a_line_and_status_1(stored: Path) -> None:
    result = run("sessions", "show", "0nosuchsession00000000", "--config", str(stored))
    assert result.exit_code == 1
    assert "there is no such session" in result.stderr


@pytest.mark.parametrize(
    "words", [("--jti", "x"), ("--exp", "1"), ("--jti", "x", "--exp", "0"), ("sid", "--jti", "x", "--exp", "1")]
)
def test_a_token_to_revoke_is_told_whole_and_alone(stored: Path, words: tuple[str, ...]) -> None:
    assert run("sessions", "revoke", *words, "--config", str(stored)).exit_code == 2


# --- the audit trail ---


def test_the_trail_is_chosen_from_by_user_event_time_and_place(stored: Path) -> None:
    append(stored, {"event": "login", "subject": "a"}, {"event": "logout", "subject": "a"})
    append(stored, {"event": "login", "subject": "b"})
    everything = trail(stored)
    assert [(entry["event"], entry["subject"]) for entry in everything] == [
        ("login", "a"),
        ("logout", "a"),
        ("login", "b"),
    ]
    assert trail(stored, "--subject", "a", "--event", "login") == everything[:1]
    assert trail(stored, "--after", everything[1]["id"]) == everything[2:]
    assert trail(stored, "--since", "1h") == everything
    assert trail(stored, "--since", "0s") == []


def test_the_trail_is_read_to_its_end_in_several_pages(stored: Path) -> None:
    append(stored, *({"event": "login", "subject": f"u-{number}"} for number in range(700)))
    append(stored, *({"event": "login", "subject": f"u-{number}"} for number in range(700, 1100)))
    assert [entry["subject"] for entry in trail(stored)][-1] == "u-1099"


def test_an_entry_cannot_speak_to_the_terminal_or_make_a_second_line(stored: Path) -> None:
    append(stored, {"event": "login_failed", "subject": 'x"}\n{"event":"login\x1b]0;owned\x07\u202e'})
    printed = run("audit", "--config", str(stored)).stdout
    assert printed.count("\n") == 1
    assert printed.isascii()
    assert printed.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("--since", "soon"), 1),
        (("--since", "-1h"), 1),
        (("--since", "1h", "--after", "1-0"), 2),
        (("--after", "("), 2),
        (("--after", "-"), 2),
        (("--after", "1-0 COUNT 1"), 2),
    ],
)
def test_a_place_in_the_trail_that_is_none_is_refused(stored: Path, words: tuple[str, ...], status: int) -> None:
    result = run("audit", *words, "--config", str(stored))
    assert result.exit_code == status
    assert words[0].lstrip("-") in result.stderr
    assert "Traceback" not in result.stderr


# --- tokens of admins ---


def test_a_token_is_hashed_for_the_configuration() -> None:
    token = secrets.token_urlsafe(32)
    result = run("hash-token", stdin=f"{token}\n")
    assert result.stdout == f"sha256:{hashlib.sha256(token.encode()).hexdigest()}\n"
    assert token not in result.output


@pytest.mark.parametrize("token", ["", "short", "x" * 31, "with space " + "x" * 30, "é" * 40, "x" * 40 + "\ny"])
def test_what_is_no_token_is_refused(token: str) -> None:
    result = run("hash-token", stdin=token)
    assert (result.exit_code, result.stdout) == (1, "")
