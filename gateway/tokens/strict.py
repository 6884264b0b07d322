"""base64url and JSON, read in one way only.

Two readers that understand the same bytes differently are an attack (RFC 8725 2.6, 3.9). So whatever has a
second spelling is refused: padding, white space and stray bits in base64url, a member named twice,
NaN and Infinity, text that is not UTF-8. What is merely large is refused too.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

MAX_DEPTH = 16  # objects and arrays within one another; claims of identity providers use 3 or 4
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1  # what the JSON writers of this gateway and its clients can write back


class Malformed(ValueError):
    """The bytes are not in the one form that is read. The message never quotes them."""


def encode_base64url(data: bytes) -> bytes:
    """Return `data` as base64url without padding (RFC 7515 appendix C)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def decode_base64url(text: bytes) -> bytes:
    """Return the bytes that `text` spells; raise Malformed unless it is their only spelling (RFC 4648 3.5)."""
    try:
        data = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        raise Malformed("not base64url") from None
    if encode_base64url(data) != text:  # padding, foreign characters, or bits beyond the last byte
        raise Malformed("not canonical base64url")
    return data


def encode_object(value: Mapping[str, Any]) -> bytes:
    """Return `value` as compact JSON in UTF-8; raise ValueError or TypeError for what is not JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def parse_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`; raise Malformed for anything else.

    Refused beyond what RFC 8259 refuses: a member named twice, at any depth; more than MAX_DEPTH levels;
    integers over 64 bits and floats that are infinite; lone surrogates; a byte order mark.
    """
    try:
        value = _DECODER.decode(data.decode("utf-8"))
        _inspect(value, MAX_DEPTH)
    except Malformed:
        raise
    except (ValueError, RecursionError):  # UnicodeError and JSONDecodeError are ValueErrors
        raise Malformed("not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise Malformed("not a JSON object")
    return value


def _inspect(value: Any, levels: int) -> None:
    """Raise Malformed past `levels` of nesting, UnicodeEncodeError for a string with a lone surrogate."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict | list):
        if levels == 0:
            raise Malformed("JSON nested too deeply")
        for item in value:
            _inspect(item, levels - 1)
        if isinstance(value, dict):
            for item in value.values():
                _inspect(item, levels - 1)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """RFC 7515 4 and RFC 7519 4 let a reader refuse names that occur twice, or take the last one."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Malformed("a JSON member occurs twice")
    return members


def _integer(text: str) -> int:
    if len(text) > 20 or not _MIN_INT <= (number := int(text)) <= _MAX_INT:
        raise Malformed("a JSON number is too large")
    return number


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Malformed("a JSON number is too large")
    return number


def _constant(name: str) -> NoReturn:
    raise Malformed(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)
