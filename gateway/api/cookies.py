"""The gateway's cookies in a request to the API (the rules stand in gateway/cookies.py)."""

from __future__ import annotations

from starlette.requests import Request

from gateway import cookies
from gateway.api.answers import header_values, only_header
from gateway.cookies import Cookies
from gateway.errors import InvalidRequest


def read_refresh(request: Request, names: Cookies) -> str | None:
    """Return the token of the request's refresh cookie. Raises InvalidRequest where there are several."""
    found = cookies.values(header_values(request, b"cookie"), names.refresh.encode())
    if len(found) > 1:
        raise InvalidRequest("the refresh cookie came more than once")
    return found[0].decode("latin-1") if found else None


def check_origin(request: Request, issuer: str, names: Cookies, *, strict: bool = False) -> None:
    """Raise CsrfRejected for a request that a page of another origin may have made.

    `issuer` is the gateway's own public URL: behind something that ends TLS, the scheme that the gateway
    sees is not the one that the browser saw. `strict` is for forms of the gateway's own pages: a browser always
    says where those are from, and that is this origin alone, whichever others are listed.
    """
    host = (only_header(request, b"host") or b"").decode("latin-1")
    sites, origins = header_values(request, b"sec-fetch-site"), header_values(request, b"origin")
    own = cookies.own_origins(host, schemes(request), issuer)
    if strict:
        cookies.check_origin(sites, origins, own, strict=True)
    else:
        same_site, listed = names.allow_same_site, names.listed
        cookies.check_origin(sites, origins, own, strict=False, same_site=same_site, listed=listed)


def schemes(request: Request) -> set[str]:
    """Return the schemes under which the client may know this gateway: ours, and what trusted proxies tell."""
    return {request.scope["scheme"], request.scope.get("state", {}).get("scheme", "")}
