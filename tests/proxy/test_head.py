"""Heads that are read without a call a header mean what llhttp takes them to mean."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.head import Fields, Head, repeated, section_of
from gateway.proxy.headers import CANDIDATES, R_PASS, RequestKinds, ResponseKinds
from gateway.proxy.plain import PlainAnswers, whole_answer
from tests.proxy.parsed import Seen, SeenAnswer, WholeAnswer

NAMES = [b"Accept", b"X-Thing", b"Cookie", b"Connection", b"X-Auth-Request-User", b"x_auth_request_user", b"Set-Cookie"]
MARKS = b"abc:=;, \t\r\n\x00\x7f\xff/?#%\"'()[]"


def strictly(data: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]] | None:
    """Return (method, target, headers) where llhttp takes the bytes as one whole request without a body."""
    seen = Seen()
    parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(data)
    except httptools.HttpParserError:
        return None
    if seen.complete != 1:
        return None
    return parser.get_method(), seen.url, seen.headers


def sorted_fields(headers: list[tuple[bytes, bytes]]) -> Fields:
    fields = Fields(headers)
    fields.sort(RequestKinds([b"X-Auth-Request-User"]), (b"__Secure-refresh",))
    return fields


SECTION = b"Host: a.example\r\nAuthorization: Bearer x\r\nAccept: */*\r\n\r\n"
FIELDS = sorted_fields([(b"Host", b"a.example"), (b"Authorization", b"Bearer x"), (b"Accept", b"*/*")])


@given(st.binary(max_size=40) | st.text("GETPOST /?#%aHTP1.\r\n:", max_size=40).map(str.encode))
def test_a_first_line_that_is_taken_without_the_parser_is_one_that_the_parser_takes_alike(line: bytes) -> None:
    for data in (line + SECTION, b"GET /" + line + b" HTTP/1.1\r\n" + SECTION, b"GET " + line + b"\r\n" + SECTION):
        head = repeated(data, SECTION, FIELDS)
        if head is not None:
            assert strictly(data) == (head.method, head.target, FIELDS.headers)


@pytest.mark.parametrize(
    "line",
    [
        b"GET /a HTTP/1.0\r\n",
        b"GET http://a.example/ HTTP/1.1\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"GET /a b HTTP/1.1\r\n",
        b"GET /a HTTP/1.1\n",
        b"GET /a HTTP/1.1\r\nX: y\r\n",
        b"GET / HTTP/1.1\r\nHost: b\r\n\r\nGET /a HTTP/1.1\r\n",
        b"\r\nGET /a HTTP/1.1\r\n",
        b"GET /\xff HTTP/1.1\r\n",
        b"",
    ],
)
def test_a_first_line_that_is_not_plain_is_left_to_the_parser(line: bytes) -> None:
    assert repeated(line + SECTION, SECTION, FIELDS) is None


@pytest.mark.parametrize(
    "more",
    [
        (b"Content-Length", b"3"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Expect", b"100-continue"),
        (b"Connection", b"x-thing"),
        (b"X-Request-Id", b"abc"),
        (b"Traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ],
)
def test_a_header_section_that_is_about_one_message_is_not_remembered(more: tuple[bytes, bytes]) -> None:
    head = Head(b"POST", b"/", sorted_fields([(b"Host", b"a.example"), more]), http11=True, keep_alive=True)
    assert section_of(b"POST / HTTP/1.1\r\nHost: a.example\r\n%b: %b\r\n\r\n" % more, head) == b""


PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("named", "passes"),
    [
        (b"keep-alive", (PARENT, b"a=b")),
        (b"x, Tracestate", (PARENT,)),
        (b"traceparent", ()),
    ],
)
def test_a_trace_that_connection_names_goes_no_further(named: bytes, passes: tuple[bytes, ...]) -> None:
    """RFC 9110 7.6.1: what is left out is as if the client had not sent it."""
    fields = sorted_fields([(b"traceparent", PARENT), (b"Tracestate", b"a=b"), (b"Connection", named)])
    assert tuple(line.partition(b": ")[2] for line in fields.trace().split(b"\r\n") if line) == passes


def test_a_header_section_is_remembered_whole_and_only_where_it_is_all_that_came() -> None:
    head = Head(b"GET", b"/", FIELDS, http11=True, keep_alive=True)
    first = b"GET / HTTP/1.1\r\n"
    assert section_of(first + SECTION, head) == SECTION
    assert section_of(first + SECTION + first + SECTION, head) == b""
    assert section_of(b"\r\n" + first + SECTION, head) == b""
    assert section_of(first + b"X: " + b"y" * 5000 + b"\r\n" + SECTION, head) == b""


HEADERS = st.lists(
    st.tuples(
        st.sampled_from([*NAMES, b"Content-Type", b"Trailer", b"TE", b"Keep-Alive", b"Upgrade", b"X-Gateway-Error"]),
        st.lists(st.sampled_from(list(MARKS)), max_size=12).map(bytes),
    ),
    max_size=8,
)


@given(HEADERS)
def test_the_lines_that_mean_something_in_an_answer_are_the_ones_that_the_parser_finds(
    headers: list[tuple[bytes, bytes]],
) -> None:
    raw = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n"
    seen = SeenAnswer()
    try:
        httptools.HttpResponseParser(seen).feed_data(raw)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return
    kinds = ResponseKinds()
    end = raw.find(b"\r\n\r\n") + 2
    lines = (line.partition(b":") for line in CANDIDATES.findall(raw[16:end]))
    found = [(name[1:], value.strip(b" \t")) for name, _, value in lines if kinds[name]]
    assert found == [header for header in seen.headers if kinds[header[0]] != R_PASS]


LINES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *(*NAMES, b"Date", b"Content-Type", b"Content-Length", b"content-length", b"CONTENT-LENGTH"),
                *(b"Connection", b"COnnection", b"Transfer-Encoding", b"Keep-Alive", b"TE", b"Trailer", b"Upgrade"),
                *(b"X-Gateway-Error", b"x-gateway-error", b"x-g", b"Proxy-Authenticate", b"X-Powered-By", b"ETag"),
                *(b"", b"A b", b"A\x00"),
            ]
        ),
        st.sampled_from([b": ", b":", b":\t ", b" : "]),
        st.sampled_from(
            [b"2", b"02", b"3", b"keep-alive", b"close", b"chunked", b"x, y", b"", b"a\r b", b"a\x00b", b"\xff"]
        ),
        st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b" \r\n", b"\r\n "]),
    ),
    max_size=6,
)


@given(
    st.sampled_from(
        [
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200\r\n",
            b"HTTP/1.0 200 OK\r\n",
            b"HTTP/1.1 999 x\r\n",
            b"HTTP/1.1 500 \r\n",
        ]
    ),
    LINES,
    st.sampled_from([b"ok", b"", b"okk", b"o"]),
)
def test_an_answer_that_is_taken_without_the_parser_is_one_that_the_parser_takes_alike(
    first: bytes, lines: list[tuple[bytes, bytes, bytes, bytes]], body: bytes
) -> None:
    for length in (b"Content-Length: 2\r\n", b""):
        data = first + b"".join(map(b"".join, lines)) + length + b"\r\n" + body
        plain = whole_answer(data, 65536)
        if plain is None:
            continue
        seen = WholeAnswer()
        seen.parser.feed_data(data)
        status, kept, at = plain
        assert (status, data[at:], seen.complete) == (seen.parser.get_status_code(), seen.body, 1)
        assert seen.keeps
        known = [line.partition(b":") for line in kept.split(b"\r\n")[:-1]]
        assert [(name, value.strip(b" \t")) for name, _, value in known] == [
            header for header in seen.headers if header[0].lower() != b"connection"
        ]
        passing = {b"content-length"}
        assert all(name.lower() in passing or ResponseKinds()[name] == R_PASS for name, _, _ in known)


@pytest.mark.parametrize(
    "line",
    [
        b"COnnection: close", b"CONNECTION: x", b"Connection: close", b"connection: upgrade", b"X-GATEWAY-Error: x",
        b"Content-LENGTH: 2", b"CONTENT-Length: 2", b"Transfer-Encoding: chunked", b"trailer: x", b"Keep-Alive: 5",
        b"Proxy-Connection: x", b" folded: x", b"A : b", b"A: b\rc", b"A: \x00", b"A: \x7f",
    ],
)  # fmt: skip
def test_a_line_that_means_something_is_left_to_the_parser(line: bytes) -> None:
    for data in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + line + b"\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n" + line + b"\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n" + line + b"\r\n\r\nok",
    ):
        assert whole_answer(data, 65536) is None


HEADS = [
    b"HTTP/1.1 200 OK\r\nDate: Mon\r\nContent-Length: %d\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nDate: Tue\r\nContent-Length: %d\r\n\r\n",
    b"HTTP/1.1 404 OK\r\nDate: Mon\r\nContent-Length: %d\r\n\r\n",
    b"HTTP/1.1 401 No\r\nDate: Mon\r\nContent-Length: %d\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTE: gzipped.\r\nContent-Length: %d\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nDate: Mon\r\nContent-Length: %d\r\nX: " + b"x" * 2000 + b"\r\n\r\n",
]
READ = st.tuples(st.sampled_from(HEADS), st.integers(0, 3), st.sampled_from([b"", b"o", b"ok", b"no", b"\r\n", b"oks"]))


@given(st.lists(READ, max_size=12))
def test_an_answer_is_read_the_same_whatever_came_before_it_on_its_connection(
    reads: list[tuple[bytes, int, bytes]],
) -> None:
    answers = PlainAnswers()
    for head, length, body in reads:
        data = head % length + body
        assert answers.read(data, 65536) == whole_answer(data, 65536)


def test_of_an_answer_with_the_head_of_the_one_before_the_body_is_its_own() -> None:
    answers = PlainAnswers()
    first, second = (HEADS[0] % 2 + body for body in (b"ok", b"no"))
    one, other = answers.read(first, 65536), answers.read(second, 65536)
    assert one is not None
    assert one is other
    assert (first[one[2] :], second[one[2] :]) == (b"ok", b"no")


def test_a_head_beyond_the_limit_is_left_to_the_parser() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert whole_answer(data, len(data) - 2) is not None
    assert whole_answer(data, len(data) - 3) is None
