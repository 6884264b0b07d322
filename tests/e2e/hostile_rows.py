"""What a row of the tables of hostile requests says: the bytes, the law, and the one verdict that holds."""

from __future__ import annotations

from dataclasses import dataclass

HIDDEN = b"GET /guarded/hidden HTTP/1.1\r\nHost: a\r\n\r\n"  # what a smuggler wants to reach the backend
SPOOFED = b"spoofed"  # the value of whatever must never reach the backend


@dataclass(frozen=True, slots=True)
class Passed:
    """The request reaches the backend as exactly this; `has` are lines that it must hold, `lacks` names it must not."""

    target: bytes
    body: bytes = b""
    method: bytes = b"GET"
    has: tuple[tuple[bytes, bytes], ...] = ()
    lacks: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """The gateway answers with its own error and no whole request reaches the backend.

    `begun` allows the beginning of a request whose body turned out to be malformed; it must never look whole.
    Status 0 stands for 400, 413 or 431, whichever of them comes first.
    """

    status: int = 400
    code: str = "bad_request"
    begun: bool = False
    method: bytes = b"GET"

    @property
    def closes(self) -> bool:
        """Where the bytes cannot be told apart any more, the connection ends (RFC 9112 6.3)."""
        return self.code in ("bad_request", "headers_too_large")


Outcome = Passed | Refused


@dataclass(frozen=True, slots=True)
class Row:
    """`data` is sent to the gateway; TOKEN in it stands for an access token of alice."""

    name: str
    rfc: str
    why: str
    data: bytes
    outcomes: tuple[Outcome, ...]
    ends: bool = False  # the connection ends after the last answer, though nothing was refused
    site: str = "plain"

    def __repr__(self) -> str:
        return f"<Row {self.name}: {self.why} ({self.rfc})>"


def row(name: str, rfc: str, why: str, data: bytes, *outcomes: Outcome, ends: bool = False, site: str = "plain") -> Row:
    return Row(name, rfc, why, data, outcomes or (Refused(),), ends, site)


def get(target: bytes = b"/open/x", *headers: bytes, host: bytes = b"Host: a") -> bytes:
    """Return a GET with these header lines, as they are."""
    return b"GET %b HTTP/1.1\r\n" % target + b"".join(line + b"\r\n" for line in (host, *headers) if line) + b"\r\n"


def post(headers: bytes, body: bytes = b"", target: bytes = b"/open/x", method: bytes = b"POST") -> bytes:
    """Return a request with a body; `headers` are lines joined by CRLF."""
    return b"%b %b HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n%b" % (method, target, headers, body)


def chunked(body: bytes, headers: bytes = b"") -> bytes:
    """Return a chunked POST whose body is on the wire as it is given here."""
    return post(b"Transfer-Encoding: chunked" + (b"\r\n" + headers if headers else b""), body)


def passed(body: bytes = b"", target: bytes = b"/open/x", method: bytes = b"POST", *lacks: bytes) -> Passed:
    return Passed(target, body, method, (), lacks)


BEGUN = Refused(begun=True)
UNAUTHORIZED = Refused(401, "missing_token")
TOO_LARGE = Refused(431, "headers_too_large")
NO_ROUTE = Refused(404, "no_route")
FINE = Passed(b"/open/x")
