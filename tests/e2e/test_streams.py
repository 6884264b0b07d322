"""WebSockets and other upgrades, event streams, and how long streams end with their session and their token."""

from __future__ import annotations

import base64
import contextlib
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.e2e.backends import Backend, Call
from tests.e2e.harness import AUDIENCE, ISSUER, Gateway, Site, route, until
from tests.e2e.wire import Answer, Client, ask, request

WITHIN = 2.0  # seconds: the contract says 1, the machine is busy
MIB = 1 << 20


@pytest.fixture(scope="module")
def pair(site: Site, backend: Backend) -> Iterator[tuple[Gateway, Gateway]]:
    options: dict[str, Any] = {
        "routes": [
            route("/guarded/", backend.url),
            route("/unlive/", backend.url, revocation="none"),
            route("/keeping/", backend.url, on_stream_expiry="keep"),
            route("/raw/", backend.url, auth="none"),
        ]
    }
    with site.serve(**options) as first, site.serve(**options) as second:
        yield first, second


@pytest.fixture(scope="module")
def brief(site: Site, backend: Backend) -> Iterator[Gateway]:
    """A gateway whose tokens live for two seconds."""
    tokens = {"issuer": ISSUER, "audience": AUDIENCE, "signing_keys": str(site.directory / "keys")}
    routes = [
        route("/guarded/", backend.url, on_stream_expiry="close"),
        route("/unlive/", backend.url, revocation="none"),
        route("/keeping/", backend.url, on_stream_expiry="keep"),
    ]
    with site.serve(routes=routes, tokens={**tokens, "access_ttl": "2s", "leeway": "0s"}) as gateway:
        yield gateway


def frame(payload: bytes, opcode: int = 1, mask: bytes = b"") -> bytes:
    """Return one WebSocket frame (RFC 6455 5.2)."""
    bit = 0x80 if mask else 0
    size = len(payload)
    if size < 126:
        length = bytes([bit | size])
    elif size < 1 << 16:
        length = bytes([bit | 126]) + struct.pack("!H", size)
    else:
        length = bytes([bit | 127]) + struct.pack("!Q", size)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) if mask else payload
    return bytes([0x80 | opcode]) + length + mask + masked


def switch(call: Call, more: bytes = b"") -> None:
    call.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + more + b"\r\n")


def echo(call: Call) -> None:
    """Switch, then send back whatever comes."""
    switch(call)
    while data := call.connection.receive():
        call.connection.socket.sendall(data)


def upgrade(target: str, token: str = "", **headers: str) -> bytes:
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    key = base64.b64encode(b"0123456789abcdef").decode()
    base = {"Connection": "keep-alive, Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": key}
    return request("GET", target, {**base, "Sec-WebSocket-Version": "13", **more}, token=token)


def opened(client: Client, data: bytes) -> Answer:
    client.send(data)
    answer = client.head()
    assert answer.status == 101, (answer, client.rest())
    return answer


def closing(data: bytes) -> tuple[int, bytes]:
    """Return (code, reason) of the one unmasked Close frame that `data` is."""
    assert data[0] == 0x88
    assert len(data) == 2 + data[1]
    return struct.unpack("!H", data[2:4])[0], data[4:]


def test_a_websocket_is_checked_and_then_joined_with_the_backend(
    pair: tuple[Gateway, Gateway], backend: Backend
) -> None:
    spot = backend.spot(echo)
    with Client(pair[0].port) as client:
        answer = opened(client, upgrade(spot.path("/guarded"), pair[0].token))
        assert (answer.get("upgrade"), answer.get("connection")) == ("websocket", "Upgrade")
        sent = frame(b"hello", mask=b"abcd") + frame(b"x" * 70_000, 2, b"efgh")
        client.send(sent)
        assert b"".join(client._exactly(len(sent))) == sent
    (call,) = spot.calls(1)
    assert call.get("Upgrade") == "websocket"
    assert call.get("Connection") == "Upgrade"
    assert call.get("X-Auth-Request-User") == "u-alice"


def test_an_upgrade_without_a_good_token_never_reaches_the_backend(
    pair: tuple[Gateway, Gateway], backend: Backend
) -> None:
    spot = backend.spot(echo)
    assert ask(pair[0].port, upgrade(spot.path("/guarded"))).error == (401, "missing_token")
    assert ask(pair[0].port, upgrade(spot.path("/guarded"), "nonsense")).error == (401, "invalid_token")
    assert spot.calls() == []


@pytest.mark.parametrize(
    ("others", "chosen", "told"),
    [("", "", "bearer"), (", chat", "chat", "chat"), (", chat, more", "", "bearer")],
)
def test_a_token_among_the_subprotocols_is_taken_out_and_browsers_get_one_of_those_they_offered(
    pair: tuple[Gateway, Gateway], backend: Backend, others: str, chosen: str, told: str
) -> None:
    def behaviour(call: Call) -> None:
        switch(call, f"Sec-WebSocket-Protocol: {chosen}\r\n".encode() if chosen else b"")

    spot = backend.spot(behaviour)
    with Client(pair[0].port) as client:
        offered = f"bearer, {pair[0].token}{others}"
        answer = opened(client, upgrade(spot.path("/guarded"), Sec_WebSocket_Protocol=offered))
    assert answer.get("sec-websocket-protocol") == told
    (call,) = spot.calls(1)
    assert call.get("Sec-WebSocket-Protocol") == others.removeprefix(", ")
    assert pair[0].token not in call.head.decode().replace(call.get("Authorization"), "")


@pytest.mark.parametrize("name", ["h2c", "HTTP/2.0", "TLS/1.0", "websocket, h2c"])
def test_an_upgrade_to_another_http_is_an_ordinary_request(
    pair: tuple[Gateway, Gateway], backend: Backend, name: str
) -> None:
    spot = backend.spot(lambda call: call.reply(b"plain"))
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": name, "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    answer = ask(pair[0].port, request("GET", spot.path("/guarded"), headers, token=pair[0].token))
    assert (answer.status, answer.body) == (200, b"plain")
    assert not {"upgrade", "connection", "http2-settings"} & spot.calls(1)[0].names()


def test_a_backend_that_does_not_switch_answers_the_client_plainly(
    pair: tuple[Gateway, Gateway], backend: Backend
) -> None:
    spot = backend.spot(lambda call: call.reply(b"no", "426 Upgrade Required"))
    answer = ask(pair[0].port, upgrade(spot.path("/guarded"), pair[0].token))
    assert (answer.status, answer.body) == (426, b"no")


def test_a_101_that_nobody_asked_for_or_to_something_else_is_a_502(
    pair: tuple[Gateway, Gateway], backend: Backend
) -> None:
    spot = backend.spot(switch)
    asked = request("GET", spot.path("/guarded"), token=pair[0].token)
    assert ask(pair[0].port, asked).error == (502, "upstream_invalid")
    other = backend.spot(lambda call: call.send(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n"))
    assert ask(pair[0].port, upgrade(other.path("/guarded"), pair[0].token)).error == (502, "upstream_invalid")


def test_when_one_side_of_a_tunnel_closes_the_other_is_closed(pair: tuple[Gateway, Gateway], backend: Backend) -> None:
    gone = threading.Event()

    def behaviour(call: Call) -> None:
        switch(call)
        if call.gone():
            gone.set()

    with Client(pair[0].port) as client:
        opened(client, upgrade(backend.spot(behaviour).path("/guarded"), pair[0].token))
    assert gone.wait(5)

    def leave(call: Call) -> None:
        switch(call)
        call.send(frame(b"bye"))
        call.close()

    with Client(pair[0].port) as client:
        opened(client, upgrade(backend.spot(leave).path("/guarded"), pair[0].token))
        assert client.rest() == frame(b"bye")


def test_a_slow_reader_of_a_websocket_pauses_the_backend_and_not_the_memory(
    pair: tuple[Gateway, Gateway], backend: Backend
) -> None:
    total, sent = 64, 0

    def flood(call: Call) -> None:
        nonlocal sent
        switch(call)
        for _ in range(total):
            call.send(frame(bytes(MIB), 2))
            sent += 1

    pair[0].forget_peak()
    before = pair[0].resident()
    with Client(pair[0].port, receive_buffer=4096) as client:
        opened(client, upgrade(backend.spot(flood).path("/guarded"), pair[0].token))
        steady = -1
        deadline = time.monotonic() + 5
        while steady != sent and time.monotonic() < deadline:
            steady = sent
            threading.Event().wait(0.3)
        assert sent < total
        assert pair[0].peak() - before < 20 * MIB
        assert sum(len(piece) for piece in client._exactly(total * len(frame(bytes(MIB), 2)))) > total * MIB


# --- the end of the session ---


def sign_out(gateway: Gateway, token: str) -> None:
    assert ask(gateway.port, request("DELETE", "/auth/sessions", token=token)).status == 204


def test_a_websocket_ends_with_4401_within_a_second_of_its_sessions_end_on_another_replica(
    pair: tuple[Gateway, Gateway], backend: Backend
) -> None:
    token = pair[0].login("bob")["access_token"]
    with Client(pair[0].port) as client:
        opened(client, upgrade(backend.spot(echo).path("/guarded"), token))
        client.send(frame(b"hello", mask=b"abcd"))
        assert b"".join(client._exactly(11)) == frame(b"hello", mask=b"abcd")
        sign_out(pair[1], token)
        begun = time.monotonic()
        assert closing(client.rest()) == (4401, b"The session has ended")
        assert time.monotonic() - begun < WITHIN
    assert pair[0].metric("tokengate_streams_closed_total", reason="revoked") >= 1


def test_the_close_frame_waits_for_the_frame_under_way_and_not_for_ever(
    pair: tuple[Gateway, Gateway], backend: Backend
) -> None:
    whole = frame(b"x" * 1000, 2)
    go_on = threading.Event()

    def half(call: Call) -> None:
        switch(call)
        call.send(whole[:500])
        if go_on.wait(3):
            call.send(whole[500:] + frame(b"more"))
        call.gone()

    for finish in (True, False):
        go_on.clear()
        token = pair[0].login("bob")["access_token"]
        with Client(pair[0].port) as client:
            opened(client, upgrade(backend.spot(half).path("/guarded"), token))
            assert b"".join(client._exactly(500)) == whole[:500]
            sign_out(pair[1], token)
            closed = pair[0].metric("tokengate_streams_closed_total", reason="revoked")
            until(
                lambda before=closed: pair[0].metric("tokengate_streams_closed_total", reason="revoked") > before,  # type: ignore[misc]
                "the stream is ended",
                3,
            ) if not finish else go_on.set()
            if finish:
                rest = client.rest()
                assert rest.startswith(whole[500:])
            else:
                assert client.ended()


@pytest.mark.parametrize("prefix", ["/guarded", "/keeping"])
def test_an_event_stream_ends_within_a_second_of_its_sessions_end(
    pair: tuple[Gateway, Gateway], backend: Backend, prefix: str
) -> None:
    token = pair[0].login("bob")["access_token"]
    gone = threading.Event()

    def events(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        if call.gone():
            gone.set()

    with Client(pair[0].port) as client:
        client.send(request("GET", backend.spot(events).path(prefix), token=token))
        answer = client.head()
        assert answer.status == 200
        assert next(client.body(answer)) == b"data: 1\n\n"  # passed on at once
        sign_out(pair[1], token)
        begun = time.monotonic()
        assert not client.rest().endswith(b"0\r\n\r\n")  # an end that looks like one would be a lie
        assert time.monotonic() - begun < WITHIN
    assert gone.wait(5)


def test_an_upload_under_way_is_refused_when_its_session_ends(pair: tuple[Gateway, Gateway], backend: Backend) -> None:
    token = pair[0].login("bob")["access_token"]
    gone = threading.Event()

    def behaviour(call: Call) -> None:
        if call.gone():
            gone.set()

    with Client(pair[0].port) as client:
        headers = {"Content-Length": "1000"}
        client.send(request("POST", backend.spot(behaviour).path("/guarded"), headers, token=token) + b"x" * 10)
        until(lambda: pair[0].metric("tokengate_connections", side="upstream") >= 1, "the upload is under way")
        sign_out(pair[1], token)
        assert client.answer("POST").error == (401, "revoked_token")
    assert gone.wait(5)


def test_a_stream_ends_within_a_second_of_the_revocation_of_its_token_alone(
    pair: tuple[Gateway, Gateway], backend: Backend
) -> None:
    token = pair[0].login("bob")["access_token"]
    with Client(pair[0].port) as client:
        opened(client, upgrade(backend.spot(echo).path("/guarded"), token))
        body = f"token={token}".encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        assert ask(pair[1].port, request("POST", "/auth/revoke", headers, body)).status == 200
        begun = time.monotonic()
        assert closing(client.rest()) == (4401, b"The session has ended")
        assert time.monotonic() - begun < WITHIN


def test_of_many_streams_those_end_whose_session_does(pair: tuple[Gateway, Gateway], backend: Backend) -> None:
    spot = backend.spot(echo)
    with contextlib.ExitStack() as stack:
        clients = []
        for at in range(24):
            tokens = pair[0].login(("alice", "bob")[at % 2])
            client = stack.enter_context(Client(pair[0].port))
            opened(client, upgrade(spot.path("/guarded"), tokens["access_token"]))
            clients.append((client, tokens["session_id"]))
        until(lambda: pair[0].metric("tokengate_connections", side="upstream") >= 24, "all are open")
        for client, session in clients[::5]:
            assert pair[1].operate("DELETE", f"/admin/sessions/{session}").status == 204
            begun = time.monotonic()
            assert closing(client.rest()) == (4401, b"The session has ended")
            assert time.monotonic() - begun < WITHIN
        for at, (client, _) in enumerate(clients):
            if at % 5:
                client.send(frame(b"still", mask=b"abcd"))
                assert b"".join(client._exactly(11)) == frame(b"still", mask=b"abcd")


def test_a_stream_that_is_kept_ends_within_a_second_of_its_sessions_natural_end(site: Site, backend: Backend) -> None:
    """Nobody ends it, so nothing counts it: its record told when it would be."""
    tokens = {"issuer": ISSUER, "audience": AUDIENCE, "signing_keys": str(site.directory / "keys")}
    lives = {"access_ttl": "1s", "leeway": "0s", "refresh_ttl": "3s", "session_ttl": "3s"}
    routes = [route("/keeping/", backend.url, on_stream_expiry="keep")]
    with site.serve(routes=routes, tokens={**tokens, **lives}) as gateway, Client(gateway.port) as client:
        begun = time.time()
        opened(client, upgrade(backend.spot(echo).path("/keeping"), gateway.login()["access_token"]))
        assert closing(client.rest()) == (4401, b"The session has ended")
        assert 1.5 < time.time() - begun < 3 + WITHIN


def test_a_stream_whose_session_was_taken_out_of_redis_by_hand_ends_a_little_later(
    site: Site, pair: tuple[Gateway, Gateway], backend: Backend
) -> None:
    tokens = pair[0].login("bob")
    with redis.Redis.from_url(site.redis_url) as client, Client(pair[0].port) as stream:
        opened(stream, upgrade(backend.spot(echo).path("/guarded"), tokens["access_token"]))
        names = list(client.scan_iter(f"{site.prefix}:*:session:{tokens['session_id']}", 1000))
        assert client.delete(*names) == 1
        begun = time.monotonic()
        assert closing(stream.rest()) == (4401, b"The session has ended")
        assert time.monotonic() - begun < 20


# --- the end of the token ---


def test_a_stream_ends_within_a_second_of_its_tokens_expiry_with_or_without_the_live_check(
    brief: Gateway, backend: Backend
) -> None:
    for prefix in ("/guarded", "/unlive"):
        tokens = brief.login()
        with Client(brief.port) as client:
            opened(client, upgrade(backend.spot(echo).path(prefix), tokens["access_token"]))
            assert closing(client.rest()) == (4401, b"The access token expired")
            assert abs(time.time() - tokens["access_token_expires_at"]) < WITHIN


def test_a_stream_that_is_kept_outlives_its_token_and_not_its_session(brief: Gateway, backend: Backend) -> None:
    tokens = brief.login()
    with Client(brief.port) as client:
        opened(client, upgrade(backend.spot(echo).path("/keeping"), tokens["access_token"]))
        until(
            lambda: ask(brief.port, request("GET", "/auth/me", token=tokens["access_token"])).status == 401,
            "the token expires",
            5,
        )
        until(lambda: time.time() > tokens["access_token_expires_at"] + 1, "a look at the stream", 5)
        client.send(frame(b"still", mask=b"abcd"))
        assert b"".join(client._exactly(11)) == frame(b"still", mask=b"abcd")
        assert brief.operate("DELETE", f"/admin/sessions/{tokens['session_id']}").status == 204
        assert closing(client.rest()) == (4401, b"The session has ended")


def test_a_long_download_ends_with_its_token(brief: Gateway, backend: Backend) -> None:
    tokens = brief.login()

    def drip(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx")
        call.gone()

    with Client(brief.port) as client:
        client.send(request("GET", backend.spot(drip).path("/guarded"), token=tokens["access_token"]))
        client.head()
        assert client.rest() == b"x"
        assert abs(time.time() - tokens["access_token_expires_at"]) < WITHIN
