"""Reading a request's body: bounded in bytes and time, and with one reading only.

Parameters come as a form (RFC 6749 appendix B) or as a JSON object of strings. A parameter that comes
twice, whichever way, is refused: two readers could take different ones (RFC 6749 3.2). A parameter
without a value counts as left out (ibid.); one that is not known is ignored (ibid.).
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from gateway.api.answers import only_header
from gateway.errors import BodyTooLarge, InvalidRequest, RequestTimeout

MAX_BODY = 65536  # bytes
TIMEOUT = 10.0  # seconds for the whole body
MAX_FIELDS = 32

_JSON = b"application/json"
_FORM = b"application/x-www-form-urlencoded"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

Parameters = dict[str, str]


async def parameters(request: Request, forms: bool = True) -> Parameters:
    """Return the parameters of a form or a JSON object; {} for an empty body.

    Raises InvalidRequest, BodyTooLarge, RequestTimeout.
    """
    kind = _media_type(request)
    body = await _read(request)
    if not body:
        return {}
    if kind == _FORM and forms:
        return _form(body)
    if kind != _JSON:
        raise InvalidRequest("the content type is not supported")
    members = _json_object(body)
    if not all(isinstance(value, str) for value in members.values()):
        raise InvalidRequest("every member must be a string")
    return {name: value for name, value in members.items() if value}


async def json_object(request: Request) -> dict[str, Any]:
    """Return a JSON object whose members may be of any type. Raises as `parameters`."""
    kind = _media_type(request)
    body = await _read(request)
    if kind != _JSON:
        raise InvalidRequest("the content type is not supported")
    return _json_object(body)


def required(given: Parameters, name: str) -> str:
    """Return a parameter that must be there. Raises InvalidRequest."""
    value = given.get(name)
    if value is None:
        raise InvalidRequest(f"{name} is missing")
    return value


def line(value: str, name: str, limit: int = 255) -> str:
    """Return a text of at most `limit` characters without control characters. Raises InvalidRequest."""
    if len(value) > limit or _CONTROL.search(value):
        raise InvalidRequest(f"{name} is too long or has control characters")
    return value


def _media_type(request: Request) -> bytes:
    """Return the lower-case media type; the only parameter it may have is charset=utf-8 (RFC 9110 8.3)."""
    if only_header(request, b"content-encoding") not in (None, b"identity"):
        raise InvalidRequest("the content coding is not supported")
    kind, _, parameter = (only_header(request, b"content-type") or b"").lower().partition(b";")
    if parameter.strip().replace(b'"', b"") not in (b"", b"charset=utf-8"):
        raise InvalidRequest("the content type is not supported")
    return kind.strip()


async def _read(request: Request) -> bytes:
    length = only_header(request, b"content-length")
    if length is not None and length.isdigit() and int(length[:12]) > MAX_BODY:
        raise BodyTooLarge("content-length")
    body = bytearray()
    try:
        async with asyncio.timeout(TIMEOUT):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY:
                    raise BodyTooLarge("body")
    except TimeoutError:
        raise RequestTimeout("body") from None
    return bytes(body)


def _form(body: bytes) -> Parameters:
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        raise InvalidRequest("the form is malformed") from None
    given = _unique(pairs)
    return {name: value for name, value in given.items() if value}


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # refuses a lone surrogate
    except (ValueError, RecursionError):
        raise InvalidRequest("the body is not a JSON object") from None
    if not isinstance(value, dict):
        raise InvalidRequest("the body is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidRequest("a parameter came more than once")
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are no JSON (RFC 8259 6)
