"""Backends that misbehave: each has its error and its metric, and no client ever gets a byte of another's answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.e2e.backends import Backend, Call
from tests.e2e.harness import Gateway, Site, route
from tests.e2e.hostile_answers import ANSWERS, INVALID, STATUS, UNREACHABLE, Bad
from tests.e2e.wire import Answer, Client, WireError, ask, request

METRIC = "tokengate_upstream_errors_total"
NOWHERE = "http://nobody.invalid:80"  # RFC 6761 6.4: resolves nowhere


@pytest.fixture(scope="module")
def own(site: Site, backend: Backend) -> Iterator[Gateway]:
    routes = [
        route("/bad/", backend.url, auth="none", response_timeout="400ms", idle_timeout="400ms"),
        route("/good/", backend.url, auth="none"),
        route("/nowhere/", NOWHERE, auth="none", connect_timeout="1s"),
    ]
    with site.serve(routes=routes) as gateway:
        yield gateway


def _errors(gateway: Gateway) -> dict[str, float]:
    return {kind: gateway.metric(METRIC, kind=kind) for kind in STATUS}


class Misbehaviour:
    """What a backend does with a call: as the row says; the late bytes go out when `answered` is set."""

    def __init__(self, bad: Bad) -> None:
        self.bad = bad
        self.answered = threading.Event()
        self.ended = threading.Event()

    def __call__(self, call: Call) -> None:
        call.body()
        call.send(self.bad.data)
        if self.bad.begun and self.bad.then in ("close", "reset"):
            self.answered.wait(5)  # a reset would take away what the gateway has not read yet
        if self.bad.late:
            self.answered.wait(5)
            call.send(self.bad.late)
        if self.bad.then == "close":
            call.close()
        elif self.bad.then == "reset":
            call.connection.reset()
        elif self.bad.then == "stall" and call.gone():
            self.ended.set()


@pytest.mark.parametrize("bad", ANSWERS, ids=[bad.name for bad in ANSWERS])
def test_a_hostile_answer_has_its_error_and_its_metric_and_harms_no_other(
    own: Gateway, backend: Backend, bad: Bad
) -> None:
    doing = Misbehaviour(bad)
    spot = backend.spot(doing)
    before = _errors(own)
    with Client(own.port) as client:
        client.send(request(bad.method, spot.path("/bad"), body=b"" if bad.method == "POST" else None))
        ended = _check_answer(client, bad, doing)
        doing.answered.set()
        if bad.late:
            time.sleep(0.05)  # what comes late comes while the connection is idle
        _check_others(own, backend, None if ended else client)
    gained = {kind: count - before[kind] for kind, count in _errors(own).items() if count != before[kind]}
    assert gained == ({bad.kind: 1} if bad.kind else {})
    if bad.then == "stall":
        assert doing.ended.wait(5), "the gateway kept a connection that it had given up"


def _check_answer(client: Client, bad: Bad, doing: Misbehaviour) -> bool:
    """Check what the client sees; return whether its connection has ended."""
    if bad.begun:
        _check_cut(client, bad, doing)
        return True
    answer = client.answer(bad.method)
    if bad.kind:
        assert answer.get("x-gateway-error"), f"passed on: {answer}"
        assert answer.error == (STATUS[bad.kind], bad.kind)
        assert len(answer.interim) <= 32
    else:
        assert (answer.status, answer.body) == (bad.status, bad.body), answer
        assert not any("evil" in name + value for name, value in answer.headers)
    for interim in answer.interim:
        assert {"content-length", "transfer-encoding"}.isdisjoint(name for name, _ in interim.headers)
    return answer.get("connection") == "close"


def _check_cut(client: Client, bad: Bad, doing: Misbehaviour) -> None:
    """The answer has begun: the client must see that it is not whole, or get the error in its place."""
    with pytest.raises((WireError, ConnectionError)):  # noqa: PT012 - where it breaks is not said
        answer: Answer = client.head()
        doing.answered.set()
        body = b"".join(client.body(answer, bad.method))
        answer.body = body
        assert b"evil" not in body
        assert answer.error == (STATUS[bad.kind], bad.kind)
        raise WireError("refused before its head was out")


def _check_others(gateway: Gateway, backend: Backend, client: Client | None) -> None:
    """Several requests after it, on the same connection and on others, each get their own answer."""
    for number in range(3):
        mine = f"mine-{number}".encode()
        spot = backend.spot(lambda call, mine=mine: call.reply(mine))  # type: ignore[misc]
        asked = request("GET", spot.path("/good"))
        assert ask(gateway.port, asked).body == mine
        if client is not None:
            answer = client.ask(asked)
            assert (answer.status, answer.body) == (200, mine)


@pytest.mark.parametrize("bad", [bad for bad in ANSWERS if bad.begun], ids=lambda bad: bad.name)
def test_an_answer_that_breaks_ends_an_http_1_0_client_by_a_reset(own: Gateway, backend: Backend, bad: Bad) -> None:
    """An HTTP/1.0 client is told the end of a body without a length by the end of the connection alone."""
    doing = Misbehaviour(bad)
    spot = backend.spot(doing)
    with Client(own.port) as client:
        client.send(f"GET {spot.path('/bad')} HTTP/1.0\r\n\r\n".encode())
        try:
            answer = client.head()
            doing.answered.set()
            body = client.rest()
        except (ConnectionResetError, WireError):  # no answer at all is no whole answer either
            return
        finally:
            doing.answered.set()
    answer.body = body
    length = answer.get("content-length")
    if answer.status == 200:
        assert length, "an answer that was cut looks whole"
        assert len(body) < int(length)
    else:
        assert answer.error == (STATUS[bad.kind], bad.kind)


def test_a_route_to_a_host_that_does_not_resolve_is_a_502_and_counted(own: Gateway) -> None:
    before = own.metric(METRIC, kind=UNREACHABLE, route="/nowhere/")
    with Client(own.port) as client:
        for number in (1, 2, 3):
            answer = client.ask(request("GET", "/nowhere/x"))
            assert answer.error == (502, UNREACHABLE)
            assert own.metric(METRIC, kind=UNREACHABLE, route="/nowhere/") == before + number


def test_a_backend_that_resets_every_connection_harms_no_other_route(own: Gateway, backend: Backend) -> None:
    spot = backend.spot(lambda call: call.connection.reset())
    good = backend.spot(lambda call: call.reply(b"good"))
    before = own.metric(METRIC, route="/bad/")
    for _ in range(20):
        assert ask(own.port, request("POST", spot.path("/bad"), body=b"x")).error == (502, UNREACHABLE)
        assert ask(own.port, request("GET", good.path("/good"))).body == b"good"
    assert own.metric(METRIC, route="/bad/") == before + 20
    assert own.metric(METRIC, route="/good/") == 0


def test_pipelined_requests_get_their_own_answers_whatever_is_between_them(own: Gateway, backend: Backend) -> None:
    for bad in (bad for bad in ANSWERS if bad.kind == INVALID and not bad.begun and bad.then == "keep"):
        evil = backend.spot(Misbehaviour(bad))
        first, last = (backend.spot(lambda call, n=n: call.reply(n)) for n in (b"first", b"last"))  # type: ignore[misc]
        with Client(own.port) as client:
            asked = [request("GET", spot.path(p)) for spot, p in ((first, "/good"), (evil, "/bad"), (last, "/good"))]
            client.send(b"".join(asked))
            assert client.answer().body == b"first", bad
            refused = client.answer()
            assert (refused.status, refused.get("x-gateway-error")) == (502, INVALID), bad
            if refused.get("connection") != "close":
                assert client.answer().body == b"last", bad


def test_kept_connections_under_a_mix_of_good_and_bad_answers_never_mix_them_up(own: Gateway, backend: Backend) -> None:
    """Four clients at once; half of the backend's answers carry more than they should."""
    problems: list[str] = []
    extra = [bad.data for bad in ANSWERS if not bad.kind and bad.method == "GET" and b"evil" in bad.data]

    def behaviour(call: Call) -> None:
        call.body()
        mine = call.target.partition("?")[2].encode()
        more = extra[len(mine) % len(extra)] if mine.endswith(b"!") else b""
        call.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(mine), mine) + more)

    spot = backend.spot(behaviour)

    def run(name: str) -> None:
        with Client(own.port) as client:
            for number in range(60):
                mine = f"{name}{number}" + "x" * (number % 7) + ("!" if number % 2 else "")
                answer = client.ask(request("GET", f"{spot.path('/good')}?{mine}"))
                if (answer.status, answer.body) != (200, mine.encode()):
                    problems.append(f"{mine}: {answer}")
                if answer.get("connection") == "close":
                    return

    threads = [threading.Thread(target=run, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not problems, problems[:3]
