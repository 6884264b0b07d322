"""The net under the logs: what looks like a secret is blotted out before a line is written.

No caller hands a token, password, cookie or query string to a log; this is for the day one does, or a
library's exception does. Every pattern is linear in the text, which `clean` bounds first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from typing import Any, Final

BLOT: Final = "[redacted]"
MAX_DEPTH: Final = 6
MAX_ITEMS: Final = 100
_LONGEST_SEARCHED: Final = 65536
_INT64: Final = 1 << 63

# Names of fields whose value is never written, whatever it looks like.
SECRET_NAMES: Final = frozenset(
    {
        "access_token",
        "admin_token",
        "assertion",
        "authorization",
        "client_secret",
        "cookie",
        "cookies",
        "id_token",
        "passwd",
        "password",
        "private_key",
        "proxy-authorization",
        "query",
        "query_string",
        "refresh_token",
        "secret",
        "set-cookie",
        "subject_token",
        "token",
    }
)

_PATTERNS: Final = (
    # PEM (RFC 7468), before anything that might take a part of it.
    (re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]*(?:-----END [A-Z ]{0,40}-----)?"), BLOT),
    # A header line, and the schemes of RFC 6750 2.1 and RFC 7617.
    (re.compile(r"(?i)((?:set-)?cookie['\"]?[ \t]*[:=][ \t]*)[^\r\n]+"), rf"\1{BLOT}"),
    # A plain lower-case word after them is prose ("bearer token missing").
    (re.compile(r"(?i:\b(bearer|basic))[ \t]+(?=[a-z]{16}|[a-z]*[A-Z0-9_~+/=-])[^\s\"',]+"), rf"\1 {BLOT}"),
    # A compact JWS (RFC 7515 3.1) begins with the base64url of '{"'. A session id is 23 characters and may
    # hold these three, so a run without a dot must be longer than that.
    (re.compile(r"eyJ(?:[A-Za-z0-9_-]{24,}|[A-Za-z0-9_-]*\.)[A-Za-z0-9_.-]*"), BLOT),
    (re.compile(r"rt1\.[A-Za-z0-9._-]{8,}"), BLOT),
    # The secret members of a JWK (RFC 7518 6.2.2, 6.3.2, 6.4.1).
    (re.compile(r"(['\"](?:d|k|p|q|dp|dq|qi)['\"][ \t]?:[ \t]?)['\"][A-Za-z0-9_-]+['\"]"), rf'\1"{BLOT}"'),
    # Modular-crypt password hashes.
    (re.compile(r"\$(?:argon2(?:id|i|d)|scrypt|2[abxy]?)\$[A-Za-z0-9./+=,$-]+"), BLOT),
    # The user information of a URL (RFC 3986 3.2.1).
    (re.compile(r"(://)[^/?#\s@]*@"), rf"\1{BLOT}@"),
    # The query of a request target, which may carry anything.
    (re.compile(r"(?<=[^\s\"'])\?[^\s\"']+"), f"?{BLOT}"),
    # A parameter or a member, in a form, a JSON text or a repr.
    (
        re.compile(
            r"(?i)((?:password|passwd|secret|(?:(?:access|refresh|subject|id|admin)_)?token)"
            r"(?:['\"][ \t]?:|[ \t]?=)[ \t]?)"
            r"(?:\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?|[^\s&\"',;)}\]]+)"
        ),
        rf"\1{BLOT}",
    ),
)

# What JSON leaves as it is and a terminal obeys or a reader of lines takes for an end: C1 controls (ECMA-48 5.3),
# line and paragraph separators, and what turns the direction of writing.
_UNSEEN: Final = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def clean(text: str, limit: int) -> str:
    """Return the text without what looks like a secret, at most `limit` characters, encodable as UTF-8."""
    text = text[:_LONGEST_SEARCHED]
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    text = _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return text.encode("utf-8", "backslashreplace").decode()


def clean_value(value: object, limit: int, depth: int = 0) -> Any:
    """Return what JSON can hold of a value: its strings cleaned, its depth and its length bounded."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else clean(hex(value), limit)
    if isinstance(value, str):
        return clean(value, limit)
    if isinstance(value, bytes | bytearray):
        return clean(bytes(value[:_LONGEST_SEARCHED]).decode("utf-8", "backslashreplace"), limit)
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return clean_fields(value, limit, depth + 1)
    if depth < MAX_DEPTH and isinstance(value, Sequence | Set):
        return [clean_value(item, limit, depth + 1) for item in list(value)[:MAX_ITEMS]]
    return clean(_text(value), limit)


def clean_fields(fields: Mapping[Any, object], limit: int, depth: int = 0) -> dict[str, Any]:
    cleaned: dict[str, Any] = {}
    for key, value in list(fields.items())[:MAX_ITEMS]:
        name = clean(_text(key), limit)
        cleaned[name] = BLOT if name.casefold() in SECRET_NAMES else clean_value(value, limit, depth)
    return cleaned


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # a log line must not fail for what it was given
        return f"<{type(value).__name__}: {type(error).__name__}>"
