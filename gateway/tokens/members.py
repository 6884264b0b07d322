"""One member of a claims object, of the type that it must have.

Every function raises Malformed where it is not: what would have to be converted is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.tokens.strict import Malformed

MAX_TEXT = 255
MAX_DATE = 253402300799  # the end of the year 9999
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def string(raw: Mapping[str, Any], name: str) -> str:
    return _string(raw.get(name), name)


def text(raw: Mapping[str, Any], name: str) -> str:
    """Return 1 to 255 characters without control characters."""
    return checked_text(raw.get(name), name)


def checked_text(value: Any, name: str) -> str:
    if not 0 < len(_string(value, name)) <= MAX_TEXT or _CONTROL.search(value):
        raise Malformed(f"{name} is empty, too long or has control characters")
    return str(value)


def texts(raw: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = raw.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Malformed(f"{name} is not a list of strings")
    return tuple(value)


def audiences(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """RFC 7519 4.1.3: a string, or a list of strings."""
    value = raw.get("aud")
    return (value,) if isinstance(value, str) else texts(raw, "aud")


def whole(raw: Mapping[str, Any], name: str) -> int:
    value = raw.get(name)
    if type(value) is not int or value < 0:  # a bool is an int to isinstance
        raise Malformed(f"{name} is not a whole number")
    return value


def date(raw: Mapping[str, Any], name: str) -> int:
    """Return Unix seconds (RFC 7519 2, NumericDate), whole ones."""
    value = whole(raw, name)
    if value > MAX_DATE:
        raise Malformed(f"{name} is not a date")
    return value


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise Malformed(f"{name} is not a string")
    return value
