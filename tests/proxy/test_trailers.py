"""What follows the last chunk of an answer is read in whatever pieces it comes, and within bounds; so are traces."""

from __future__ import annotations

import itertools

import httptools
import pytest

from gateway.proxy.headers import valid_traceparent
from gateway.proxy.plane import TRACES, new_traces
from gateway.proxy.trailers import MAX_TRAILERS, Trailers, TwinParser

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: ETag, X-Sum\r\nX-Sum: in the head\r\n\r\n"
BODY = b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\n"
END = b'etag: "1" \r\nX-Other: no\r\nX-Sum:\r\nX-Sum: 2\r\nX-Gateway-Error: no\r\n\r\n'
LINES = [b'etag: "1"\r\n', b"X-Sum: \r\n", b"X-Sum: 2\r\n"]


class Answer:
    """What the connection's own parser tells."""

    def __init__(self) -> None:
        self.body = b""
        self.ended = False

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ended = True


def twin(begun: bytes) -> tuple[TwinParser, Answer]:
    """Return a twin of a parser that has read so much."""
    answer = Answer()
    first = httptools.HttpResponseParser(answer)
    first.feed_data(begun)
    return TwinParser(first, Trailers((b"ETag", b"x-sum")), begun), answer


def test_trailers_are_those_announced_whatever_the_pieces() -> None:
    data = HEAD + BODY + END
    for at in range(len(HEAD), len(data) + 1):
        parser, answer = twin(data[:at])
        for position in range(at, len(data)):
            parser.feed_data(data[position : position + 1])
        assert (parser.trailers.lines, parser.trailers.ended) == (LINES, True)
        assert (answer.body, answer.ended) == (b"abcde", True)


def test_nothing_behind_the_answer_counts_as_its_trailers() -> None:
    data = HEAD + BODY + b"\r\n"
    parser, _ = twin(data)
    with pytest.raises(httptools.HttpParserError):
        parser.feed_data(b"ETag: x\r\n\r\n")
    assert parser.trailers.lines == []


@pytest.mark.parametrize("endless", [b"ETag: x\r\n" * 20, b"X-Other: x\r\n" * 20, b"ETag" * 20])
def test_trailers_without_end_are_an_error(endless: bytes) -> None:
    parser, _ = twin(HEAD + BODY)
    for _ in range(MAX_TRAILERS // len(endless)):
        parser.feed_data(endless)
    with pytest.raises(httptools.HttpParserError, match="trailer size"):
        parser.feed_data(endless)


def test_a_long_body_is_not_a_long_trailer() -> None:
    parser, answer = twin(HEAD)
    for _ in range(200):
        parser.feed_data(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
    parser.feed_data(b"0\r\n" + END)
    assert (len(answer.body), parser.trailers.lines) == (200 * 0x1000, LINES)


@pytest.mark.parametrize("bad", [b"ETag : x\r\n", b"ETag: a\rb\r\n", b"ETag: x\x00\r\n", b" folded\r\n", b"ETag\r\n"])
def test_malformed_trailers_are_an_error(bad: bytes) -> None:
    parser, _ = twin(HEAD + BODY)
    with pytest.raises(httptools.HttpParserError):
        parser.feed_data(b"X-Sum: 1\r\n" + bad + b"\r\n")


def test_every_trace_is_valid_and_none_comes_twice() -> None:
    made = list(itertools.islice(new_traces(), 10 * TRACES)) + list(itertools.islice(new_traces(), 10 * TRACES))
    begin, end = b"\r\ntraceparent: ", b"\r\n\r\n"
    assert all(trace.startswith(begin) and trace.endswith(b"-01" + end) for trace in made)
    values = [trace[len(begin) : -len(end)] for trace in made]
    assert all(valid_traceparent(value) for value in values)
    assert len({value[3:35] for value in values}) == len(made)
