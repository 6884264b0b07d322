"""What may stand in an identity, whoever gives it.

An identity goes into tokens, Redis, headers and logs, so its shape is settled here, once. Every function
returns the checked value and raises ValueError with what is allowed, never with what was found.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

LONGEST_NAME: Final = 255  # characters; OpenID Connect Core 2 has it for `sub`
LARGEST_IDENTITY: Final = 4096  # bytes of JSON: a token of it stays under the 8 KiB that a request may bring
MOST_ROLES: Final = 200
DEEPEST_CLAIM: Final = 8

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SCOPE = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*")  # RFC 6749 3.3


def name(value: object) -> str:
    """Check a subject, a user's name or a role: 1 to 255 characters, no control characters."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME or _CONTROL.search(value):
        raise ValueError(f"must be a string of 1 to {LONGEST_NAME} characters without control characters")
    return value


def roles(value: object) -> tuple[str, ...]:
    """Check a list of roles; None means none. Duplicates are left out, the order is kept."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MOST_ROLES:
        raise ValueError(f"must be a list of at most {MOST_ROLES} strings")
    return tuple(dict.fromkeys(name(role) for role in value))


def scope(value: object) -> str:
    """Check a scope: words of printable ASCII without quotes, one space between them; None means none."""
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or len(value) > LARGEST_IDENTITY or not _SCOPE.fullmatch(value):
        raise ValueError("must be a string of scope words with one space between them (RFC 6749 3.3)")
    return value


def credential_version(value: object) -> str:
    """Check a credential version: a string of at most 255 characters; None means that none is told."""
    return "" if value is None or value == "" else name(value)


def claims(value: object) -> dict[str, Any]:
    """Check further claims: an object of JSON values; None means none."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not _is_json(value, DEEPEST_CLAIM):
        raise ValueError(f"must be an object of JSON values, nested at most {DEEPEST_CLAIM} deep")
    return dict(value)


def fitting(roles: tuple[str, ...], scope: str, claims: Mapping[str, Any]) -> None:
    """Check that these together fit an access token."""
    if len(orjson.dumps([roles, scope, claims])) > LARGEST_IDENTITY:
        raise ValueError(f"roles, scope and claims must not exceed {LARGEST_IDENTITY} bytes of JSON together")


def _is_json(value: object, depth: int) -> bool:
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, float):
        return math.isfinite(value)
    return depth > 0 and _is_json_container(value, depth - 1)


def _is_json_container(value: object, depth: int) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_json(key, 0) and _is_json(v, depth) for key, v in value.items())
    return isinstance(value, list) and all(_is_json(item, depth) for item in value)
