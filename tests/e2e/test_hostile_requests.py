"""Every row of the tables of hostile requests has its one verdict, however its bytes are cut into writes.

The verdict is one of two: the gateway refuses in the contract's shape and no whole request reaches the backend,
or what reaches the backend is exactly the request that the row names, with one reading, under the rules of the
route that its path belongs to, and without a header that the client made up.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from tests.e2e.harness import Gateway, Site, route
from tests.e2e.hostile_backend import Ambiguous, Received, Recorder, Sent, recorder, strictly
from tests.e2e.hostile_framing import FRAMING
from tests.e2e.hostile_heads import HEADS
from tests.e2e.hostile_rows import SPOOFED, Passed, Refused, Row
from tests.e2e.hostile_targets import TARGETS
from tests.e2e.wire import Answer, Client, ask, request

ROWS: list[Row] = [*FRAMING, *HEADS, *TARGETS]
IDENTITY = (b"x-auth-request-user", b"x-auth-request-email", b"x-auth-request-groups", b"x-auth-request-session")
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"trailer", b"upgrade")
)
FOLLOWER = b"GET /open/follower HTTP/1.1\r\nHost: a\r\n\r\n"
SPLITS = ("whole", "bytes", "cuts")


@pytest.fixture(scope="module")
def backend() -> Iterator[Recorder]:
    with recorder() as made:
        yield made


@pytest.fixture(scope="module")
def sites(site: Site, backend: Recorder) -> Iterator[dict[str, Gateway]]:
    """The gateway of the rows, and one whose routes differ by host, which remembers no targets."""
    routes = [
        route("/open/", backend.url, auth="none"),
        route("/open/vault/", backend.url),
        route("/guarded/", backend.url),
        route("/admin/", backend.url, roles_any=["root"]),
        route("/reading/", backend.url, auth="none", methods=["GET", "HEAD"]),
        route("/svc/", backend.url, auth="none", strip_prefix="/svc"),
        route("/quick/", backend.url, auth="none", response_timeout="1s", idle_timeout="1s"),
    ]
    hosted = [
        route("/open/", backend.url, auth="none"),
        route("/open/", backend.url, host="inner.test"),
    ]
    server = {"header_timeout": "5s"}
    cookies = {"refresh": "__Secure-refresh", "access": "__Host-access"}
    names = {"X-Auth-Request-User": "sub", "X-Auth-Request-Email": "email"}
    names |= {"X-Auth-Request-Groups": "roles", "X-Auth-Request-Session": "sid"}
    common: dict[str, Any] = {"server": server, "cookies": cookies, "identity_headers": names}
    with site.serve(routes=routes, **common) as plain, site.serve(routes=hosted, **common) as other:
        yield {"plain": plain, "hosted": other}


def test_the_table_is_long_and_every_row_says_why() -> None:
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names)) >= 120
    assert all(re.search(r"\d|contract", row.rfc) and row.why for row in ROWS)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_hostile_request_has_its_one_verdict(
    sites: dict[str, Gateway], backend: Recorder, row: Row, split: str
) -> None:
    gateway = sites[row.site]
    data = row.data.replace(b"TOKEN", gateway.token.encode())
    last = row.outcomes[-1]
    if (isinstance(last, Refused) and last.closes) or row.ends:
        data += FOLLOWER  # nothing may be read once the end of a message is in doubt
    backend.take()
    with Client(gateway.port, timeout=4.0) as client:
        _send(client, pieces(data, split, row.name))
        answers = _answers(client, row)
    after = request("GET", "/open/after")
    assert ask(gateway.port, after).status == 200, "the gateway no longer serves"
    received = backend.take()
    _check_received(row, received, gateway.token.encode(), after=_goes_on(row, answers[-1]))


def pieces(data: bytes, split: str, seed: str) -> list[bytes]:
    """Cut a request: not at all, into single bytes (larger ones into some 300 pieces), or at three places."""
    if split == "whole":
        return [data]
    if split == "bytes":
        size = max(1, len(data) // 300)
        return [data[at : at + size] for at in range(0, len(data), size)]
    cuts = sorted(random.Random(seed).randrange(1, len(data)) for _ in range(3))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _send(client: Client, parts: Sequence[bytes]) -> None:
    """Send what a gateway that has refused may not want to read any more."""
    try:
        for part in parts:
            client.send(part)
            if 1 < len(parts) < 10:
                time.sleep(0.001)  # so that each is a read of its own
    except (BrokenPipeError, ConnectionResetError):
        pass


def _answers(client: Client, row: Row) -> list[Answer]:
    """Read the answers that a row is due and check them; send one more request where the connection goes on."""
    answers = []
    for outcome in row.outcomes:
        answer = client.answer(outcome.method.decode())
        answers.append(answer)
        if isinstance(outcome, Passed):
            assert (answer.status, answer.get("x-gateway-error")) == (200, ""), answer
            assert answer.body == (b"" if outcome.method == b"HEAD" else b"ok")
        else:
            _check_refusal(outcome, answer)
    if not _goes_on(row, answers[-1]):
        assert client.ended(), "an answer that nothing had asked for"
    else:
        client.send(request("GET", "/open/same"))
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"ok"), answer
    return answers


def _check_refusal(outcome: Refused, answer: Answer) -> None:
    assert answer.get("x-gateway-error"), f"not refused: {answer}"
    status, code = answer.error
    if outcome.status:
        assert (status, code) == (outcome.status, outcome.code)
    else:
        assert status in (400, 413, 431), answer
    if outcome.closes:
        assert answer.get("connection") == "close"


def _goes_on(row: Row, last: Answer) -> bool:
    return not row.ends and last.get("connection") != "close"


def _check_received(row: Row, received: list[Received], token: bytes, *, after: bool) -> None:
    whole: list[Sent] = []
    for each in received:
        assert SPOOFED not in each.data, each.data[:2000]
        assert not each.error, f"h11 refuses what reached the backend: {each.error}: {each.data[:500]!r}"
        whole += _agreed(each)
    begun = [sent for sent in whole if not sent.whole]
    whole = [sent for sent in whole if sent.whole and sent.target not in (b"/open/after", b"/open/same")]
    expected = [outcome for outcome in row.outcomes if isinstance(outcome, Passed)]
    assert [(s.method, s.target, s.body) for s in whole] == [(e.method, e.target, e.body) for e in expected]
    assert not begun or any(isinstance(outcome, Refused) and outcome.begun for outcome in row.outcomes), begun
    for sent in [*whole, *(sent for sent in begun if sent.method)]:
        _check_sent(sent)
    for sent, outcome in zip(whole, expected, strict=True):
        _check_asked(sent, outcome, token)


def _agreed(received: Received) -> list[Sent]:
    """Return what both readers say of the same bytes."""
    try:
        strict = strictly(received.data)
    except Ambiguous as ambiguous:
        raise AssertionError(f"what reached the backend has two readings: {ambiguous}") from None
    read = received.requests
    seen = [sent for sent in strict if sent.method]  # a head that was cut short is no request to either
    assert [(s.method, s.target, s.headers, s.body, s.whole) for s in seen] == [
        (s.method, s.target, s.headers, s.body, s.whole) for s in read
    ]
    return strict


def _check_sent(sent: Sent) -> None:
    """Check what holds of every request that reaches a backend."""
    names = [name.replace(b"_", b"-") for name, _ in sent.headers]
    assert not HOP_BY_HOP & set(names), names
    assert sent.all(b"x-forwarded-for") == [b"127.0.0.1"]
    assert sent.all(b"x-forwarded-proto") == [b"http"]
    assert sent.all(b"x-forwarded-host") == sent.all(b"host")
    assert all(len(sent.all(name)) <= 1 for name in (b"x-request-id", *IDENTITY))
    mine = [name for name in names if name in IDENTITY]
    readings = readings_of(sent.target)
    if any(each.startswith((b"/guarded", b"/open/vault")) for each in readings):
        assert sent.all(b"x-auth-request-user") == [b"u-alice"], "no one was asked for"
    elif sent.target.startswith(b"/open"):
        assert not mine, mine
    assert not any(each.startswith((b"/admin", b"/auth")) for each in readings), readings


def readings_of(target: bytes) -> set[bytes]:
    """Return every path that some backend reads in a target: each of its liberties taken or not."""
    path = target.partition(b"?")[0]
    return {_read(path, liberties) for liberties in product((False, True), repeat=4)}


def _read(path: bytes, liberties: tuple[bool, ...]) -> bytes:
    decodes, turns, cuts, merges = liberties
    path = unquote_to_bytes(path) if decodes else path
    path = path.replace(b"\\", b"/") if turns else path
    path = re.sub(rb";[^/]*", b"", path) if cuts else path
    path = re.sub(rb"/+", b"/", path) if merges else path
    kept: list[bytes] = []
    for segment in path.split(b"/")[1:]:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    return b"/" + b"/".join(kept)


def _check_asked(sent: Sent, outcome: Passed, token: bytes) -> None:
    for name, value in outcome.has:
        assert sent.all(name) == [value.replace(b"TOKEN", token)], name
    names = {name for name, _ in sent.headers}
    assert not names & set(outcome.lacks)
