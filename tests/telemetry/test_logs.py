"""Logs: one JSON object a line, nothing secret in it, and no way to break the line."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.telemetry import audit, configure_logging
from gateway.telemetry.redaction import clean

JWT = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.eyJzdWIiOiJ1LTEifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
REFRESH = "rt1.20260101T000000Z-abcdef.3abcdefghijklmnopqrstuv.7.c2lnbmF0dXJl"
ARGON2 = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaGhhc2g"
PEM = "-----BEGIN PRIVATE KEY-----\nMIGHAgEA\n-----END PRIVATE KEY-----"

log = logging.getLogger("tests.logs")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root, audit_logger = logging.getLogger(), logging.getLogger("gateway.audit")
    before = (root.level, root.handlers[:], audit_logger.level)
    yield io.StringIO()
    logging.captureWarnings(False)
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    audit_logger.setLevel(before[2])
    logging.getLogger("uvicorn.access").disabled = False


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().removesuffix("\n").split("\n") if line]


def test_a_line_is_one_json_object_with_time_level_logger_message_and_extras(stream: io.StringIO) -> None:
    configure_logging(stream)
    record = logging.LogRecord("a.b", logging.WARNING, "f", 1, "hello %s", ("world",), None)
    record.created, record.route, record.count = 1767225600.1234, "orders", 3
    logging.getLogger("a.b").handle(record)
    assert lines(stream) == [
        {
            "ts": "2026-01-01T00:00:00.123Z",
            "level": "warning",
            "logger": "a.b",
            "message": "hello world",
            "route": "orders",
            "count": 3,
        }
    ]


def test_a_message_with_newlines_stays_one_line(stream: io.StringIO) -> None:
    configure_logging(stream)
    log.warning('x\r\n{"level":"forged"}\x00\x1b[31m\u2028')
    assert stream.getvalue().count("\n") == 1
    assert lines(stream)[0]["level"] == "warning"


def test_an_exception_is_one_field(stream: io.StringIO) -> None:
    configure_logging(stream)
    try:
        raise ValueError(f"bad {JWT}")
    except ValueError:
        log.exception("it failed")
    (line,) = lines(stream)
    assert line["exception"].startswith("Traceback")
    assert "ValueError: bad [redacted]" in line["exception"]
    assert JWT not in stream.getvalue()


@pytest.mark.parametrize(
    "secret",
    [
        JWT,
        JWT.rpartition(".")[0] + ".",
        JWT.partition(".")[0],
        REFRESH,
        ARGON2,
        PEM,
        "Bearer 0a1b2c3d",
        "bearer 0a1b2c3d",
        "Basic ZGVtbzpkZW1v",
        "Cookie: sid=0a1b2c3d; x=y",
        "set-cookie: sid=0a1b2c3d",
        "redis://user:0a1b2c3d@host:6379/0",
        "redis://:0a1b2c3d@host",
        "GET /api?code=0a1b2c3d HTTP/1.1",
        "grant_type=x&refresh_token=0a1b2c3d&y=z",
        '{"password": "0a1b2c3d e"}',
        '{"password": "e\\"0a1b2c3d"}',
        '{"password": "cut 0a1b2c3d',
        "{'password': '0a1b2c3d'}",
        '{"kty":"oct","k":"0a1b2c3d"}',
    ],
)
def test_what_looks_like_a_secret_never_reaches_a_line(stream: io.StringIO, secret: str) -> None:
    configure_logging(stream)
    log.error("message %s", secret, extra={"field": secret, "nested": {"list": [secret.encode()]}})
    told = stream.getvalue()
    assert told
    for part in ("0a1b2c3d", JWT.partition(".")[0], "MIGHAgEA", "aGFzaGhhc2g", "c2lnbmF0dXJl", "ZGVtbzpkZW1v"):
        assert part not in told


@pytest.mark.parametrize("name", ["password", "Authorization", "refresh_token", "cookie", "query_string"])
def test_a_field_with_a_secret_name_is_blotted_out_whatever_it_holds(stream: io.StringIO, name: str) -> None:
    configure_logging(stream)
    log.error("x", extra={"outer": {name: "hunter2"}, name: "hunter2"})
    assert "hunter2" not in stream.getvalue()


@pytest.mark.parametrize(
    "harmless",
    [
        "3abcdefghijklmnopqrstuv",
        "aeyJabcdefghijklmnopqrs",
        "bearer token missing",
        "is it /api/orders? yes",
        "invalid token: expired",
        "http://orders-1:8080/a",
    ],
)
def test_what_is_no_secret_stays_readable(harmless: str) -> None:
    assert clean(harmless, 256) == harmless


def test_a_secret_that_would_be_cut_by_the_length_bound_is_redacted_first() -> None:
    assert JWT[:20] not in clean("x" * 100 + JWT, 120)


def test_a_huge_value_is_cut_and_costs_little(stream: io.StringIO) -> None:
    configure_logging(stream)
    for hostile in ("eyJ" * 300_000, "a" * 1_000_000, "Bearer " * 100_000, "/a" * 300_000, "://" * 300_000):
        log.error("%s", hostile)
    assert len(stream.getvalue()) < 40_000


@pytest.mark.timeout(20)
def test_no_pattern_takes_more_than_linear_time() -> None:
    for piece in (
        "eyJ",
        "eyJa.",
        "Bearer ",
        "cookie:",
        "/",
        "/?",
        "://",
        "$2b$",
        "password",
        "token=",
        '"k":"',
        "rt1.",
        "-----BEGIN ",
    ):
        clean(piece * 100_000, 100)
        clean((piece + " ") * 100_000, 100)


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_values_that_json_cannot_hold_make_a_line_all_the_same(stream: io.StringIO) -> None:
    configure_logging(stream)
    recursive: list[object] = []
    recursive.append(recursive)
    for value in (2**80, float("nan"), "\ud800", b"\xff", {1: {2}}, object(), recursive, Unprintable(), {"\ud800": 1}):
        log.error("x", extra={"value": value})
    log.error("too %s %s", *["few"])
    log.error("unprintable %s", Unprintable())
    assert len(lines(stream)) == 11


def test_a_field_cannot_forge_the_head_of_a_line(stream: io.StringIO) -> None:
    configure_logging(stream)
    log.error("x", extra={"ts": "1970", "level": "debug", "logger": "other"})
    (line,) = lines(stream)
    assert (line["level"], line["logger"]) == ("error", "tests.logs")
    assert line["ts"] != "1970"


def test_an_audit_line_names_its_event_and_its_bounded_fields(stream: io.StringIO) -> None:
    configure_logging(stream)
    audit("login_failed", subject="a" * 1000, session_id="", ip="192.0.2.1", reason=None, number=0)
    (line,) = lines(stream)
    assert line["logger"] == "gateway.audit"
    assert line["event"] == line["message"] == "login_failed"
    assert line["ip"] == "192.0.2.1"
    assert line["number"] == 0
    assert len(line["subject"]) == 256
    assert "session_id" not in line
    assert "reason" not in line


def test_the_audit_trail_is_written_whatever_the_level(stream: io.StringIO) -> None:
    configure_logging(stream, "error")
    audit("logout", subject="u-1")
    log.info("not this")
    assert [line["message"] for line in lines(stream)] == ["logout"]


def test_a_routine_refresh_is_audited_at_debug_level_only(stream: io.StringIO) -> None:
    configure_logging(stream, "info")
    audit("refresh", subject="u-1")
    assert lines(stream) == []
    configure_logging(stream, "debug")
    audit("refresh", subject="u-1")
    assert [line["level"] for line in lines(stream)] == ["debug"]


def test_the_access_log_of_uvicorn_is_off(stream: io.StringIO) -> None:
    configure_logging(stream)
    logging.getLogger("uvicorn.access").error("GET /?token=x")
    logging.getLogger("uvicorn.error").error("started", extra={"color_message": "\x1b[1mstarted"})
    assert [line["message"] for line in lines(stream)] == ["started"]
    assert "color_message" not in lines(stream)[0]


def test_warnings_of_python_become_log_lines(stream: io.StringIO) -> None:
    configure_logging(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("careful", stacklevel=1)
    assert "careful" in lines(stream)[0]["message"]


def test_a_stream_that_cannot_be_written_shows_nothing_elsewhere(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(stream)
    stream.close()
    log.error("password %s", "hunter2")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_an_unknown_level_is_refused(stream: io.StringIO) -> None:
    with pytest.raises(ValueError, match="LOUD"):
        configure_logging(stream, "loud")
