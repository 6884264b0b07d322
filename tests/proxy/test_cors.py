"""What pages of other origins are told: the rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.answer_head import AnswerHead
from gateway.proxy.cors import MAX_NAMES, VARY, Origins
from gateway.proxy.headers import ResponseKinds
from gateway.proxy.plain import whole_answer

PAGE = b"https://app.example.com"
ORIGINS = Origins([PAGE, b"http://localhost:3000"], [b"X-Total"], 600)
LISTED = ORIGINS.grant([(b"Origin", PAGE)])
OTHERS = ORIGINS.grant([])
ASKS = (b"Access-Control-Request-Method", b"PUT")


def names(lines: bytes, wanted: bytes) -> list[bytes]:
    """Return the values under a name in header lines."""
    pairs = (line.split(b":", 1) for line in lines.split(b"\r\n") if line)
    return [value.strip() for name, value in pairs if name.strip().lower() == wanted]


@pytest.mark.parametrize(
    "origin",
    [
        b"https://app.example.co",
        b"https://app.example.com.evil.test",
        b"https://evil-app.example.com",
        b"https://app.example.com:443",
        b"https://app.example.com:8443",
        b"https://app.example.com/",
        b"http://app.example.com",
        b"https://APP.example.com",
        b"HTTPS://app.example.com",
        b"https://app.example.com https://evil.test",
        b"https://app.example.com, https://evil.test",
        b"app.example.com",
        b"null",
        b"*",
        b"",
    ],
)
def test_an_origin_that_is_not_listed_byte_for_byte_is_told_nothing(origin: bytes) -> None:
    grant = ORIGINS.grant([(b"origin", origin)])
    assert (grant.allowed, grant.lines, grant.headers) == (b"", VARY, [(b"vary", b"Origin")])
    assert ORIGINS.preflight([(b"origin", origin), ASKS], frozenset()) == b""


@given(st.binary(max_size=40))
def test_whatever_is_told_names_a_listed_origin_or_none(origin: bytes) -> None:
    told = ORIGINS.grant([(b"origin", origin)])
    assert names(told.lines, b"access-control-allow-origin") == ([origin] if told.allowed else [])
    assert (told.allowed != b"") == (origin in {PAGE, b"http://localhost:3000"})


@pytest.mark.parametrize("second", [PAGE, b"https://evil.test", b""])
def test_several_origins_are_none(second: bytes) -> None:
    headers = [(b"Origin", PAGE), (b"oRiGiN", second)]
    assert ORIGINS.grant(headers) is OTHERS
    assert ORIGINS.preflight([*headers, ASKS], frozenset()) == b""


@pytest.mark.parametrize("name", [b"Origin", b"origin", b"ORIGIN"])
def test_a_listed_origin_is_told_that_its_page_may_read_with_credentials(name: bytes) -> None:
    told = ORIGINS.grant([(b"Host", b"x"), (name, PAGE)]).lines
    assert names(told, b"access-control-allow-origin") == [PAGE]
    assert names(told, b"access-control-allow-credentials") == [b"true"]
    assert names(told, b"vary") == [b"Origin"]


def test_what_the_gateway_says_and_what_the_operator_names_can_be_read() -> None:
    (exposed,) = names(Origins([PAGE], [b"x-total", b"retry-after"]).grant([(b"origin", PAGE)]).lines, _EXPOSE)
    assert exposed.split(b", ") == [
        b"Retry-After",
        b"WWW-Authenticate",
        b"X-Access-Token",
        b"X-Access-Token-Expires-In",
        b"X-Gateway-Error",
        b"X-Request-Id",
        b"x-total",
    ]


_EXPOSE = b"access-control-expose-headers"


def test_the_pairs_for_asgi_say_what_the_lines_say() -> None:
    assert b"".join(b"%b: %b\r\n" % pair for pair in LISTED.headers).lower() == LISTED.lines.lower()


# --- a backend's answer ---


@pytest.mark.parametrize(
    "own",
    [
        b"Access-Control-Allow-Origin: *\r\n",
        b"access-control-allow-origin: https://evil.test\r\n",
        b"ACCESS-CONTROL-ALLOW-CREDENTIALS:true\r\n",
        b"Access-Control-Expose-Headers: X-A\r\nAccess-Control-Allow-Origin: null\r\n",
        b"Access-Control-Anything-To-Come: 1\r\n",
    ],
)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_a_backend_says_of_cors_reaches_others_alone(own: bytes, at: int) -> None:
    lines = [b"Content-Length: 2\r\n", b"X-Access-Control: 1\r\n"]
    fields = b"".join([*lines[:at], own, *lines[at:]])
    assert LISTED.fields(fields) == b"".join(lines) + LISTED.allowed + VARY
    assert OTHERS.fields(fields) == fields + VARY


@pytest.mark.parametrize(
    ("vary", "added"),
    [
        (b"Origin", False),
        (b"origin", False),
        (b"Accept-Encoding, Origin", False),
        (b"Accept-Encoding,oRIGIN ,Accept", False),
        (b"*", False),
        (b"Accept-Encoding", True),
        (b"X-Origin", True),
        (b"Origin-Agent-Cluster", True),
        (b"Accept, X-Origin", True),
        (b"", True),
    ],
)
@pytest.mark.parametrize("grant", [LISTED, OTHERS], ids=["listed", "others"])
def test_an_answer_varies_by_origin_and_says_so_once(grant: object, vary: bytes, added: bool) -> None:
    fields = b"A: Origin\r\nvArY:%b\r\nB: *\r\n" % vary
    told = (LISTED if grant is LISTED else OTHERS).fields(fields)
    assert names(told, b"vary") == [vary.strip(), *([b"Origin"] if added else [])]


def test_the_plainest_answer_and_one_that_took_a_parser_say_the_same() -> None:
    head = b"Content-Length: 2\r\nAccess-Control-Allow-Origin: *\r\nVary: Accept\r\n"
    plain = whole_answer(b"HTTP/1.1 200 OK\r\n" + head + b"\r\nok", 65536)
    assert plain is not None
    parsed = AnswerHead(b"\n" + head, ResponseKinds(), ())
    wanted = b"Content-Length: 2\r\nVary: Accept\r\n" + LISTED.allowed + VARY
    assert LISTED.fields(plain[1]) == LISTED.fields(parsed.fields) == wanted


# --- preflights ---


def preflight(*asked: tuple[bytes, bytes], methods: frozenset[bytes] = frozenset()) -> bytes:
    return ORIGINS.preflight([(b"Origin", PAGE), *asked], methods)


def test_a_preflight_is_granted_what_it_asks_for() -> None:
    asked = (b"Access-Control-Request-Headers", b"authorization,content-type, x-trace")
    assert preflight(ASKS, asked) == (
        b"Access-Control-Allow-Origin: https://app.example.com\r\n"
        b"Access-Control-Allow-Credentials: true\r\n"
        b"Access-Control-Allow-Methods: PUT\r\n"
        b"Access-Control-Allow-Headers: authorization, content-type, x-trace\r\n"
        b"Access-Control-Max-Age: 600\r\n"
        b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n"
    )


def test_where_a_route_names_its_methods_these_are_granted() -> None:
    told = preflight(ASKS, methods=frozenset({b"POST", b"GET"}))
    assert names(told, b"access-control-allow-methods") == [b"GET, POST"]


@pytest.mark.parametrize(
    "method", [b"", b"P UT", b"PUT,GET", b"PUT\x00", b"P\xffT", b"PUT\r\nSet-Cookie: a=b", b"M" * 33]
)
def test_a_method_that_is_none_makes_no_preflight(method: bytes) -> None:
    assert preflight((b"Access-Control-Request-Method", method)) == b""


@pytest.mark.parametrize("asked", [(), (ASKS, ASKS)])
def test_a_preflight_asks_for_one_method(asked: tuple[tuple[bytes, bytes], ...]) -> None:
    assert preflight(*asked) == b""


@pytest.mark.parametrize(
    "asked",
    [
        b"",
        b" , ,",
        b"x-a\r\nSet-Cookie: a=b",
        b"x-a\nx-b",
        b"x-a, x b",
        b"x-a: 1",
        b'x-a, "x-b"',
        b"x-a;x-b",
        b"x-\xe9",
        b"x-a, x-\x00",
        b",".join([b"x"] * MAX_NAMES),
        b"x" * (MAX_NAMES + 1),
    ],
)
def test_of_a_list_with_a_name_that_is_none_nothing_is_granted(asked: bytes) -> None:
    told = preflight(ASKS, (b"Access-Control-Request-Headers", asked))
    assert names(told, b"access-control-allow-headers") == []
    assert names(told, b"access-control-allow-origin") == [PAGE]


def test_several_lists_of_names_are_one() -> None:
    lines = [(b"Access-Control-Request-Headers", name) for name in (b"x-a", b"x-b,x-c")]
    assert names(preflight(ASKS, *lines), b"access-control-allow-headers") == [b"x-a, x-b, x-c"]


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_request_can_break_out_of_a_line(method: bytes, asked: bytes) -> None:
    told = preflight((b"Access-Control-Request-Method", method), (b"Access-Control-Request-Headers", asked))
    lines = told.split(b"\r\n")
    assert all(line.startswith((b"Access-Control-", b"Vary: ")) for line in lines[:-1])
    assert len(lines) <= 7
    assert not set(told.replace(b"\r\n", b"")) & set(b"\r\n\x00")
