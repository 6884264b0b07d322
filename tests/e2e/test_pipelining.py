"""Requests of one connection are answered in their order, and nothing is read after one that closes it."""

from __future__ import annotations

import threading

import pytest

from tests.e2e.backends import Backend, Call
from tests.e2e.harness import Gateway, Site, route
from tests.e2e.wire import Client, ask, json_request, request


def test_pipelined_requests_of_every_kind_are_answered_in_their_order(gateway: Gateway, backend: Backend) -> None:
    slow_go = threading.Event()

    def slow(call: Call) -> None:
        assert slow_go.wait(10)
        call.reply(b"slow")

    quick = backend.spot(lambda call: call.reply(b"quick"))
    late = backend.spot(slow)
    with Client(gateway.port) as client:
        client.send(
            request("GET", late.path())
            + request("GET", "/.well-known/jwks.json")
            + request("GET", quick.path())
            + request("GET", quick.path("/guarded"))
            + json_request("POST", "/auth/login", {"username": 1})
            + request("POST", quick.path(), body=b"x" * 1000)
            + request("GET", "/auth/me", token=gateway.token)
            + request("HEAD", quick.path())
            + request("DELETE", quick.path("/reading"))
            + request("GET", quick.path("/guarded"), token=gateway.token)
        )
        slow_go.set()
        methods = ["GET", "GET", "GET", "GET", "POST", "POST", "GET", "HEAD", "DELETE", "GET"]
        answers = [client.answer(method) for method in methods[:9]]
        assert answers[0].body == b"slow"
        assert "keys" in answers[1].json()
        assert answers[2].body == b"quick"
        assert answers[3].error == (401, "missing_token")
        assert answers[4].error == (400, "invalid_request")
        assert answers[5].body == b"quick"
        assert answers[6].json()["sub"] == "u-alice"
        assert (answers[7].status, answers[7].get("content-length")) == (200, "5")
        assert answers[8].error == (405, "method_not_allowed")
        if answers[8].get("connection") != "close":
            assert client.answer("GET").body == b"quick"


def test_a_thousand_pipelined_requests_are_all_answered(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot(lambda call: call.reply(call.target.rpartition("?")[2].encode()))
    with Client(gateway.port) as client:
        data = b"".join(request("GET", f"{spot.path()}?{number}") for number in range(1000))
        threading.Thread(target=client.send, args=(data,), daemon=True).start()
        for number in range(1000):
            assert client.answer().body == b"%d" % number


def test_a_thousand_pipelined_refusals_are_all_answered(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        client.send(request("GET", "/guarded/x") * 1000)
        for _ in range(1000):
            assert client.answer().error == (401, "missing_token")


def test_nothing_is_read_after_a_request_that_asks_to_close(gateway: Gateway, backend: Backend) -> None:
    spot, other = backend.spot(), backend.spot()
    with Client(gateway.port) as client:
        client.send(request("GET", spot.path(), {"Connection": "close"}) + request("GET", other.path()))
        answer = client.answer()
        assert (answer.status, answer.get("connection")) == (200, "close")
        assert client.ended()
    assert other.calls() == []


@pytest.mark.parametrize("path", ["/nowhere/x", "/reading/x"], ids=["no route", "not this method"])
def test_nothing_is_read_after_a_refusal_that_closes(gateway: Gateway, backend: Backend, path: str) -> None:
    spot = backend.spot()
    with Client(gateway.port) as client:
        client.send(request("DELETE", path) + request("POST", spot.path(), body=b"x") + request("GET", "/auth/me"))
        if client.answer("DELETE").get("connection") == "close":
            assert client.ended()
            assert ask(gateway.port, request("GET", "/auth/me")).status == 401
            assert spot.calls() == []
        else:
            assert client.answer("POST").status == 200


def test_a_request_in_single_bytes_is_a_request(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    with Client(gateway.port) as client:
        for byte in request("POST", spot.path(), body=b"abc"):
            client.send(bytes([byte]))
        assert client.answer("POST").status == 200
    assert spot.call().raw_body == b"abc"


def test_empty_lines_before_a_request_are_ignored(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    with Client(gateway.port) as client:  # RFC 9112 2.2
        assert client.ask(b"\r\n" + request("GET", spot.path()), "GET").status == 200
        assert client.ask(b"\r\n\r\n" + request("GET", spot.path()), "GET").status == 200


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_call_without_a_body_that_is_made_again_on_its_connection_is_answered_at_once(
    gateway: Gateway, pipelined: bool
) -> None:
    """The application reads the body of a sign-out; that there is none must reach it however the head was read."""
    again = request("POST", "/auth/logout", body=b"", token=str(gateway.login()["access_token"]))
    with Client(gateway.port, timeout=8) as client:  # the API itself gives up on a body after 10 s
        if pipelined:
            client.send(again * 3)
            assert [client.answer("POST").status for _ in range(3)] == [204] * 3
        else:
            assert [client.ask(again).status for _ in range(3)] == [204] * 3


@pytest.mark.parametrize("pipelined", [False, True], ids=["one after the other", "pipelined"])
def test_a_sign_out_without_a_body_needs_none_behind_another_request(
    gateway: Gateway, backend: Backend, pipelined: bool
) -> None:
    """Its head differs from the one before in the first line alone, and it is whole before it is its turn."""
    token = gateway.login("bob")["access_token"]
    first = request("GET", backend.spot().path("/guarded"), token=token)
    second = request("POST", "/auth/logout", token=token)
    with Client(gateway.port, timeout=5) as client:
        if pipelined:
            client.send(first + second)
            assert [client.answer("GET").status, client.answer("POST").status] == [200, 204]
        else:
            assert [client.ask(first).status, client.ask(second).status] == [200, 204]


def test_a_body_that_is_too_large_is_refused_in_its_turn(site: Site, backend: Backend) -> None:
    """A 413 that came at once would be taken for the answer to the request before it."""
    go = threading.Event()

    def slow(call: Call) -> None:
        assert go.wait(10)
        call.reply(b"first")

    spot, never = backend.spot(slow), backend.spot()
    routes = [route("/raw/", backend.url, auth="none")]
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (4000, b"x" * 4000)
    with site.serve(routes=routes, server={"max_body_bytes": "1KiB"}) as gateway, Client(gateway.port) as client:
        second = request("POST", never.path(), {"Transfer-Encoding": "chunked"}) + chunks
        client.send(request("GET", spot.path()) + second)
        spot.calls(1)
        go.set()
        assert client.answer().body == b"first"
        assert client.answer("POST").error == (413, "body_too_large")
        assert client.ended()
    assert never.calls() == []
