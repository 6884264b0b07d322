"""The table `[cors]`: pages of other origins, how these are written, and what is told to browsers of them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, PlainValidator, WithJsonSchema

from gateway.settings.routes import Section, written
from gateway.settings.values import Duration, Within, listed, secure_url, token

_DEFAULT_PORTS = {"http": 80, "https": 443}


def page_origin(value: object) -> str:
    """Read the origin of pages as browsers write it (RFC 6454 6.2), so that it can be compared byte for byte.

    Over plain http anyone on the way could be that page, so http:// is for this machine alone.
    """
    try:
        text = secure_url(value.lower() if isinstance(value, str) else value)
        good = _serialised(urlsplit(text)) == text
    except ValueError:
        good = False
    if not good:
        raise ValueError(
            'an origin as in "https://app.example.com" is allowed (http:// on a loopback host), without path, '
            "trailing slash or default port"
        )
    return text


def exposed_header(value: object) -> str:
    """Read the name of a header. `*` would be a name like any other, and none that exists (Fetch, "CORS protocol")."""
    if value == "*":
        raise ValueError("the name of a header is allowed; * stands for no other one")
    return token(value)


def _serialised(parts: SplitResult) -> str:
    host, port = parts.hostname or "", parts.port
    host = f"[{ip_address(host).compressed}]" if ":" in host else host
    named = port is not None and port != _DEFAULT_PORTS[parts.scheme]
    return f"{parts.scheme}://{host}:{port}" if named else f"{parts.scheme}://{host}"


_URL = WithJsonSchema({"type": "string", "format": "uri"})
_NAME = WithJsonSchema({"type": "string"})
PageOrigin = Annotated[str, PlainValidator(page_origin), _URL]
ExposedHeader = Annotated[str, PlainValidator(exposed_header), _NAME]


class Cors(Section):
    """Pages of other origins (Fetch standard, "CORS protocol"): which of them may call, and read the answers."""

    allow_origins: Annotated[tuple[PageOrigin, ...], BeforeValidator(listed)] = ()
    """Their origins, as in `"https://app.example.com"`; none by default, and no pattern. Such a page is trusted as the
    gateway's own are: it may use the cookies, where the browser sends them, which it does within one site."""
    expose_headers: Annotated[tuple[ExposedHeader, ...], BeforeValidator(listed)] = ()
    """Headers of backends' answers that such pages may read, beside the gateway's own and those that any page may."""
    max_age: Annotated[Duration, AfterValidator(Within("0s", "1d", 0, 86400))] = written("10m")
    """How long a browser may remember what a preflight was told."""
