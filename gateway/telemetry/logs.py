"""One JSON object a line, and the audit line.

A line holds `ts` (RFC 3339, UTC, milliseconds), `level`, `logger`, `message`, then the fields that the
caller passed as `extra`, and `exception` with the traceback. Control characters are escaped by JSON, so
that one event is one line whatever a client sent. Writing a line never raises.
"""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO, TypedDict

import orjson

from gateway.telemetry.redaction import clean, clean_fields

MESSAGE_LIMIT: Final = 4096  # characters
FIELD_LIMIT: Final = 1024
AUDIT_LIMIT: Final = 256
TRACE_LIMIT: Final = 16384

AuditEvent = Literal[
    "login",
    "login_failed",
    "refresh",
    "refresh_reuse",
    "logout",
    "session_revoked",
    "sessions_revoked",
    "sessions_listed",
    "token_revoked",
    "keys_reloaded",
    "store_rolled_back",
]
_ROUTINE: Final = frozenset(("refresh",))  # too many to keep by default

_audit = logging.getLogger("gateway.audit")
_CONTROLS: Final = re.compile(r"[\x00-\x1f]")  # JSON escapes them by itself

AuditFields = dict[str, str]  # a line of the audit trail, `ts` and `event` among its fields


class Cause(TypedDict, total=False):
    """By whom and why something is done. `by` is what is proven, `who` and `reason` are what was said."""

    by: str
    who: str
    reason: str
    ip: str
    request_id: str


# What every record has, and uvicorn's copy of the message with terminal colours, are no fields of a line.
_RECORD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "audit"}


def audit(event: AuditEvent, **fields: str | int | None) -> None:
    """Write an audit line: who did what to whose session, from where, and why.

    The fields are of: subject, session_id, token_id, issuer, ip, request_id, reason, by, who, outcome, number,
    partition. Empty ones are left out. `refresh` is written at debug level only.
    """
    level = logging.DEBUG if event in _ROUTINE else logging.INFO
    if _audit.isEnabledFor(level):
        told = {name: value for name, value in fields.items() if value not in (None, "")}
        _audit.log(level, event, extra={"audit": told})


@contextlib.contextmanager
def audit_sink(take: Callable[[AuditFields], None]) -> Iterator[None]:
    """Hand every audit line to `take` as well, for the length of a block. What `take` raises is lost.

    The values are texts on one line, cleaned and bounded as in the log; `take` is called where the line is written,
    so it must not wait.
    """
    handler = _Sink(take)
    _audit.addHandler(handler)
    try:
        yield
    finally:
        _audit.removeHandler(handler)


class _Sink(logging.Handler):
    def __init__(self, take: Callable[[AuditFields], None]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        told = getattr(record, "audit", None)
        if isinstance(told, dict):
            with contextlib.suppress(Exception):  # no request fails for what becomes of its audit line
                fields = clean_fields(told, AUDIT_LIMIT)
                head = {"ts": _timestamp(record.created), "event": str(record.msg)}
                self._take(head | {name: _one_line(str(value)) for name, value in fields.items()})


def _one_line(text: str) -> str:
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class JsonFormatter(logging.Formatter):
    """A record as one JSON object, without the newline."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = clean_fields(_extra(record), FIELD_LIMIT)
        told = getattr(record, "audit", None)
        if isinstance(told, dict):
            line |= {"event": clean(str(record.msg), AUDIT_LIMIT)} | clean_fields(told, AUDIT_LIMIT)
        head = {
            "ts": _timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": clean(_message(record), MESSAGE_LIMIT),
        }
        line = head | {name: value for name, value in line.items() if name not in head}
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = clean(_trace(record.exc_info[1]), TRACE_LIMIT)
        return orjson.dumps(line).decode()


class JsonHandler(logging.StreamHandler[TextIO]):
    """Writes lines to a stream. A line that cannot be written is lost, not shown elsewhere.

    logging's own answer to a failure is to print the record, with its arguments as they were, to stderr.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.setFormatter(JsonFormatter())

    def handleError(self, record: logging.LogRecord) -> None:
        return


def configure_logging(stream: TextIO, level: str | int = "INFO") -> JsonHandler:
    """Send all logs of the process to the stream, one JSON object a line, and return the handler.

    `level` is a name in any case or a number; ValueError where it is neither. The audit trail is written
    whatever the level. uvicorn's access log is off: it holds query strings.
    """
    handler = JsonHandler(stream)
    root = logging.getLogger()
    set_level(level)
    root.handlers[:] = [handler]
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn.access").disabled = True
    logging.captureWarnings(True)
    return handler


def set_level(level: str | int) -> None:
    """Write no less than this from here on, and the audit trail in any case. Raises ValueError as above."""
    root = logging.getLogger()
    root.setLevel(level.upper() if isinstance(level, str) else level)
    _audit.setLevel(min(root.level, logging.INFO))


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _RECORD}


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # arguments that do not fit the text
        return str(record.msg)


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error, limit=-20))
