"""The refresh cookie, and which requests may use it.

A browser attaches a cookie by itself, so a request that has no other credential must show that it comes
from the gateway's own origin: SameSite=Strict keeps other sites out, and `Sec-Fetch-Site` (W3C Fetch
Metadata) or `Origin` (RFC 6454 7) the sibling hosts of the same site (RFC 9700 4.7 asks for a defence).

| Sec-Fetch-Site        | Origin              | the cookie counts |
|-----------------------|---------------------|-------------------|
| same-origin, none     | any                 | yes               |
| anything else         | any                 | no                |
| absent                | the gateway's own   | yes               |
| absent                | anything else, null | no                |
| absent                | absent              | yes: no browser   |
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request

from gateway.api.answers import header_values, only_header
from gateway.errors import CsrfRejected, Headers, InvalidRequest

FOREVER = 34_560_000  # seconds; browsers keep no cookie longer than 400 days (RFC 6265bis 5.5)


@dataclass(frozen=True, slots=True)
class RefreshCookie:
    """The cookie that holds a refresh token. `path` is "/auth", or "/" for a name that begins with `__Host-`."""

    name: str
    path: str = "/auth"

    def set(self, token: str, expires_at: int, now: float) -> Headers:
        """Return the header that hands out a token; `expires_at` in Unix seconds, 0 = never."""
        lifetime = min(FOREVER, max(0, expires_at - int(now))) if expires_at else FOREVER
        return self._header(token, lifetime)

    def clear(self) -> Headers:
        return self._header("", 0)

    def read(self, request: Request) -> str | None:
        """Return the token of the request's cookie. Raises InvalidRequest where there are several."""
        prefix = self.name.encode() + b"="
        parts = (part.strip(b" \t") for value in header_values(request, b"cookie") for part in value.split(b";"))
        found = [part[len(prefix) :] for part in parts if part.startswith(prefix)]
        if len(found) > 1:  # another host of the site may have planted one (cookie tossing)
            raise InvalidRequest("the refresh cookie came more than once")
        return found[0].decode("latin-1") if found and found[0] else None

    def _header(self, value: str, lifetime: int) -> Headers:
        text = f"{self.name}={value}; Max-Age={lifetime}; Path={self.path}; Secure; HttpOnly; SameSite=Strict"
        return [(b"set-cookie", text.encode("ascii"))]


def check_origin(request: Request, issuer: str) -> None:
    """Raise CsrfRejected for a request that a page of another origin may have made.

    `issuer` is the gateway's own public URL: behind something that ends TLS, the scheme that the gateway
    sees is not the one that the browser saw.
    """
    site = header_values(request, b"sec-fetch-site")
    origin = header_values(request, b"origin")
    if site:
        allowed = set(site) <= {b"same-origin", b"none"}
    else:
        allowed = not origin or (len(origin) == 1 and _is_own(origin[0].decode("latin-1"), request, issuer))
    if not allowed:
        raise CsrfRejected("another origin")


def _is_own(origin: str, request: Request, issuer: str) -> bool:
    host = (only_header(request, b"host") or b"").decode("latin-1").lower()
    own = {f"{scheme}://{_without_default_port(scheme, host)}" for scheme in _schemes(request, host, issuer)}
    return origin.lower() in own


def _schemes(request: Request, host: str, issuer: str) -> set[str]:
    schemes = {request.scope["scheme"]}
    public = urlsplit(issuer)
    if _without_default_port(public.scheme, host) == _without_default_port(public.scheme, public.netloc.lower()):
        schemes.add(public.scheme)
    if request.scope.get("state", {}).get("trusted"):
        schemes |= {value.decode("latin-1").lower() for value in header_values(request, b"x-forwarded-proto")}
    return schemes & {"http", "https"}


def _without_default_port(scheme: str, host: str) -> str:
    """RFC 6454 6.2: an origin names its port only where it is not the scheme's own."""
    return host.removesuffix({"http": ":80", "https": ":443"}.get(scheme, ":"))
