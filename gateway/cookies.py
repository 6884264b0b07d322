"""The gateway's cookies, and which requests may use them. Pure.

A browser attaches a cookie by itself, so a request that has no other credential must show that it comes
from the gateway's own origin: SameSite=Strict keeps other sites out, and `Sec-Fetch-Site` (W3C Fetch
Metadata) or `Origin` (RFC 6454 7) the sibling hosts of the same site (RFC 9700 4.7 asks for a defence).

| Sec-Fetch-Site        | Origin              | the refresh cookie | the access cookie, unsafe method or upgrade |
|-----------------------|---------------------|--------------------|---------------------------------------------|
| same-origin           | any                 | counts             | counts                                      |
| none                  | any                 | counts             | refused                                     |
| same-site             | any                 | only if allowed    | only if allowed                             |
| anything else         | any                 | refused            | refused                                     |
| absent                | the gateway's own   | counts             | counts                                      |
| absent                | anything else, null | refused            | refused                                     |
| absent                | absent              | counts: no browser | refused                                     |

The access cookie is stricter because it guards backends that know nothing of cookies or origins. `same-site` is
allowed where every host of the site is trusted (cookies.allow_same_site). Only the browser can say it: which
hosts are one site cannot be told from an Origin without a list of public suffixes, so that where there is no
Sec-Fetch-Site the Origin must be the gateway's own all the same.

An Origin of `cors.allow_origins` counts like the gateway's own, whatever Sec-Fetch-Site says: the operator trusts the
pages of that origin with what the cookies are good for, and no page can choose its Origin (Fetch, "forbidden
request-header"). The account page takes no such word: its forms come from the gateway's own pages alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from gateway.errors import CsrfRejected, Headers

FOREVER = 34_560_000  # seconds; browsers keep no cookie longer than 400 days (RFC 6265bis 5.5)
Listed = frozenset[bytes]  # origins of other pages that are trusted, as browsers write them
SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})  # RFC 9110 9.2.1


class Tokens(Protocol):
    """What a login or a refresh hands out (grants.TokenSet)."""

    @property
    def access_token(self) -> str: ...
    @property
    def refresh_token(self) -> str: ...
    @property
    def refresh_expires_at(self) -> int: ...
    @property
    def refreshed_at(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Cookies:
    """`refresh` and `access` are the names, `access` "" where browsers hold the access token themselves.

    `path` is the refresh cookie's: "/auth", or "/" where it must reach every route. `allow_same_site` says that
    pages of other hosts of the same site may use them, `listed` of which other origins (cors.allow_origins).
    """

    refresh: str
    path: str = "/auth"
    access: str = ""
    allow_same_site: bool = False
    listed: Listed = frozenset()

    def hand_out(self, tokens: Tokens) -> Headers:
        """Return the headers that hand out tokens.

        How long a cookie lives is the store's word alone: by a clock of this machine that is ahead, it might have
        ended before it begins. Where an answer is given again, that is longer than the session by the time since.

        The access cookie lives as long as the refresh cookie: it must still come when its token has
        expired, for that pair is what is refreshed in place.
        """
        end = tokens.refresh_expires_at
        lifetime = min(FOREVER, max(0, end - tokens.refreshed_at)) if end else FOREVER
        headers = [_header(self.refresh, tokens.refresh_token, lifetime, self.path)]
        if self.access:
            headers.append(_header(self.access, tokens.access_token, lifetime, "/"))
        return headers

    def clear(self) -> Headers:
        headers = [_header(self.refresh, "", 0, self.path)]
        return [*headers, _header(self.access, "", 0, "/")] if self.access else headers


def values(headers: Iterable[bytes], name: bytes) -> list[bytes]:
    """Return every non-empty value that `Cookie` headers hold under a name.

    More than one is a planted cookie: another host of the site can set one (cookie tossing), and which of the
    two is ours cannot be told.
    """
    pairs = (part.partition(b"=") for header in headers for part in header.split(b";"))
    return [value for each, _, rest in pairs if each.strip(b" \t") == name and (value := rest.strip(b" \t"))]


def check_origin(
    sites: Sequence[bytes],
    origins: Sequence[bytes],
    own: frozenset[str],
    *,
    strict: bool,
    same_site: bool = False,
    listed: Listed = frozenset(),
) -> None:
    """Raise CsrfRejected for a request that a page of another origin may have made (the table above).

    `sites` and `origins` are the values of Sec-Fetch-Site and Origin, `own` the gateway's own origins; `strict`
    is for the access cookie, `same_site` lets the same site's other origins pass too, and `listed` are further origins.
    """
    if len(origins) == 1 and origins[0] in listed:
        return
    if sites:
        good = {b"same-origin"} | (set() if strict else {b"none"}) | ({b"same-site"} if same_site else set())
        allowed = set(sites) <= good
    elif origins:
        allowed = len(origins) == 1 and origins[0].decode("latin-1").lower() in own
    else:
        allowed = not strict
    if not allowed:
        raise CsrfRejected("another origin")


def own_origins(host: str, schemes: Iterable[str], issuer: str) -> frozenset[str]:
    """Return the origins that a request to `host` may name as its own (RFC 6454 4).

    `schemes` are those that the gateway sees or trusted proxies tell. Behind something that ends TLS the issuer's,
    the gateway's public URL, counts too where it names this host.
    """
    found = set(schemes)
    public = urlsplit(issuer)
    if _without_default_port(public.scheme, host.lower()) == _without_default_port(
        public.scheme, public.netloc.lower()
    ):
        found.add(public.scheme)
    known = found & {"http", "https"}
    return frozenset(f"{scheme}://{_without_default_port(scheme, host.lower())}" for scheme in known)


def _header(name: str, value: str, lifetime: int, path: str) -> tuple[bytes, bytes]:
    text = f"{name}={value}; Max-Age={lifetime}; Path={path}; Secure; HttpOnly; SameSite=Strict"
    return b"set-cookie", text.encode("ascii")


def _without_default_port(scheme: str, host: str) -> str:
    """RFC 6454 6.2: an origin names its port only where it is not the scheme's own."""
    return host.removesuffix({"http": ":80", "https": ":443"}.get(scheme, ":"))
