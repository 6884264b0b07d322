"""The audit stream of real gateways: every replica writes it, nothing waits for it, operators read it."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.sessions.trail import FLOOD_BURST
from tests.e2e.harness import Gateway, Site, until
from tests.e2e.wire import ask, json_request, request
from tests.redis_server import RedisServer

STREAM = {"stream": True, "max_len": 1000, "retention": "1h"}


def trail(gateway: Gateway, *options: str) -> list[dict[str, Any]]:
    """Return what `tokengate audit` prints."""
    command = [sys.executable, "-m", "gateway", "audit", "--config", str(gateway.config), *options]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def fail_to_sign_in(gateway: Gateway, number: int, user: str = "mallory") -> None:
    for _ in range(number):
        body = {"username": user, "password": "wrong"}
        assert ask(gateway.port, json_request("POST", "/auth/login", body)).status in (401, 429)


def test_the_stream_says_what_the_log_says_and_the_end_of_a_process_loses_nothing(site: Site) -> None:
    with Site(site.redis_url) as own:
        with own.serve(audit=STREAM, server={"workers": 2}) as gateway:
            session = gateway.login()
            gateway.refresh(session["refresh_token"])
            fail_to_sign_in(gateway, 1)
            asked = request(
                "DELETE",
                f"/admin/sessions/{session['session_id']}",
                {"Connection": "close", "X-Admin-Actor": "jane", "X-Admin-Reason": "stolen"},
                token="admin-token-of-the-tests",
            )
            assert ask(gateway.management, asked).status == 204
        told = {line["request_id"]: line for line in gateway.log_lines() if line["logger"] == "gateway.audit"}
        # Each worker writes its own a tenth of a second late, so that theirs may stand in another order.
        kept = {entry["request_id"]: entry for entry in sorted(trail(gateway), key=lambda entry: str(entry["ts"]))}
    assert [entry["event"] for entry in kept.values()] == ["login", "login_failed", "session_revoked"]
    assert set(kept) == set(told)
    for name, entry in kept.items():
        same = set(entry) - {"id", "replica"}
        assert {key: entry[key] for key in same} == {key: str(told[name][key]) for key in same}
    last = list(kept.values())[-1]
    assert (last["by"], last["who"], last["reason"]) == ("admin", "jane", "stolen")


def test_a_flood_of_failed_sign_ins_is_cut_in_the_stream_and_whole_in_the_log(site: Site) -> None:
    number = int(FLOOD_BURST) + 200
    with Site(site.redis_url) as own, own.serve(audit=STREAM, limits={"login_per_user": 5}) as gateway:
        gateway.login()
        fail_to_sign_in(gateway, number)
        lines = [line for line in gateway.log_lines() if line.get("event") == "login_failed"]
        assert len(lines) == number
        dropped = gateway.metric("tokengate_audit_dropped_total", reason="flood")
        assert dropped > 0
        until(lambda: len(trail(gateway)) == 1 + number - dropped, "the stream has the rest")
        assert trail(gateway)[0]["event"] == "login"


ENDINGS = {
    "a refresh token of a session that is over, signed out": ("/auth/logout", "refresh_token", "refresh_token"),
    "the same, revoked": ("/auth/revoke", "token", "refresh_token"),
    "an access token that was revoked": ("/auth/revoke", "token", "access_token"),
}


@pytest.mark.parametrize("kind", ENDINGS)
def test_what_is_over_already_can_be_ended_without_end_and_pushes_nothing_out_of_the_stream(
    site: Site, kind: str
) -> None:
    """Evidence cannot be buried by whoever has a token that is worth nothing any more."""
    path, name, which = ENDINGS[kind]
    number = int(FLOOD_BURST) + 100
    with Site(site.redis_url) as own, own.serve(audit=STREAM) as gateway:
        asked = json_request("POST", path, {name: gateway.login()[which]})
        for _ in range(number):
            assert ask(gateway.port, asked).status in (200, 204)
        lines = [line for line in gateway.log_lines() if line.get("event") in ("logout", "token_revoked")]
        assert [line["number"] for line in lines] == [1] + [0] * (number - 1)
        dropped = gateway.metric("tokengate_audit_dropped_total", reason="flood")
        assert dropped > 0
        until(lambda: len(trail(gateway)) == 1 + number - dropped, "the stream has the rest")
        assert [entry.get("number") for entry in trail(gateway)[:3]] == [None, "1", "0"]


def test_the_stream_has_a_ttl_and_no_token(site: Site, shared_redis: RedisServer) -> None:
    with Site(site.redis_url) as own, own.serve(audit=STREAM) as gateway:
        session = gateway.login()
        until(lambda: trail(gateway), "the entry is there")
        with shared_redis.client() as admin:
            key = f"{own.prefix}:{{0}}:audit"
            assert 0 < admin.pttl(key) <= 3_600_000
            text = str(admin.xrange(key))
        assert session["access_token"] not in text
        assert session["refresh_token"] not in text


def test_without_the_option_nothing_is_kept(site: Site, shared_redis: RedisServer) -> None:
    with Site(site.redis_url) as own:
        with own.serve() as gateway:
            gateway.login()
        with shared_redis.client() as admin:
            assert not admin.exists(f"{own.prefix}:{{0}}:audit")


def test_an_outage_of_redis_fails_nothing_more_for_the_stream(own_redis: RedisServer) -> None:
    with Site(own_redis.url) as own, own.serve(audit=STREAM) as gateway:
        own_redis.stop()
        gateway.wait_ready(503)
        login = json_request("POST", "/auth/login", {"username": "alice", "password": "b"})
        assert ask(gateway.port, login).status == 401  # no limits, so Redis is not asked; the line waits
        own_redis.start()
        gateway.wait_ready()
        until(lambda: trail(gateway, "--event", "login_failed"), "the entry is there")


@pytest.mark.timeout(120)
def test_the_trail_can_be_followed(site: Site, tmp_path: Path) -> None:
    with Site(site.redis_url) as own, own.serve(audit=STREAM) as gateway:
        seen = tmp_path / "seen"
        command = [sys.executable, "-m", "gateway", "audit", "--follow", "--config", str(gateway.config)]
        with seen.open("wb") as out:
            follower = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                # who runs the tests in the background of a script has told all below to ignore it
                preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
            )
        try:
            gateway.login("alice")
            until(lambda: '"u-alice"' in seen.read_text(), "the first entry is printed")
            gateway.login("bob")
            until(lambda: '"u-bob"' in seen.read_text(), "the second entry is printed")
            assert seen.read_text().count("u-alice") == 1
            follower.send_signal(signal.SIGINT)
            assert follower.wait(60) == 130
            assert "Traceback" not in seen.read_text()
        finally:
            follower.kill()
            follower.wait()
