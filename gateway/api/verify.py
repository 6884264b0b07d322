"""ANY /auth/verify: forward-auth, the proxy's decision for another proxy.

The sub-request says which request it asks about, in one of these ways:

    nginx            X-Original-Method with X-Original-URI or X-Original-URL
    Traefik, Caddy   X-Forwarded-Method and X-Forwarded-Uri, with X-Forwarded-Host
    Envoy ext_authz  the path after /auth/verify, and the sub-request's own method and Host

Laws:
- Only a trusted peer may say so. From anyone else such a statement is refused, not passed over: to pass
  over it would answer a weaker question than the one that was asked.
- Two statements that disagree are refused, and so is half a statement: a client's own header may stand
  beside the one that the proxy sets.
- Without a statement the token must be valid. `?roles=a,b` (one of them) and `&scopes=x,y` (all of them) of
  the sub-request's URL are the operator's; they hold beside the route's rule and never in its place, since
  a client can forge a header that its proxy neither sets nor removes. (Caddy keeps the client's query on
  the sub-request unless its `uri` ends with `?`; that can only ask for more.)
- With Envoy the query is the client's and counts for nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.answers import empty, header_values
from gateway.api.services import SIGNED_IN, Services, peer_ip
from gateway.errors import BadRequest
from gateway.tokens.access import AccessRule
from gateway.tokens.claims import Claims

PREFIX = b"/auth/verify"
METHODS = (b"x-original-method", b"x-forwarded-method")
TARGETS = (b"x-original-uri", b"x-original-url", b"x-forwarded-uri")
OVERRIDES = (b"x-http-method-override", b"x-http-method", b"x-method-override")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_URL = re.compile(rb"https?://([^/?#@\\ ]+)(/[^#]*)?", re.IGNORECASE)
_HOST = re.compile(rb"[A-Za-z0-9._~:\[\]-]{1,255}")


@dataclass(frozen=True, slots=True)
class Original:
    """The request that a proxy asks about; the path is raw and has no query."""

    method: bytes
    host: bytes
    path: bytes


async def verify(services: Services, request: Request) -> Response:
    """Answer 200 with the identity headers, or what the proxy itself would have answered."""
    claims: Claims | None = None
    method, host, rules = _question(services, request)
    scheme = request.scope["scheme"]
    for rule in rules:
        headers = request.scope["headers"]
        claims = await services.gate.admit(headers, rule, method=method, host=host, scheme=scheme) or claims
    identity = services.identity_headers(claims) if claims is not None else []
    present = {name.lower() for name, _ in identity}
    # Empty ones too: a proxy that copies only what is there would let a client's own through.
    blank = [(name, b"") for name in services.identity_names if name.lower() not in present]
    return empty(200, [*identity, *blank])


def _question(services: Services, request: Request) -> tuple[bytes, str, list[AccessRule]]:
    """Return (method, host, rules) of the request that is asked about."""
    suffix = _suffix(request)
    if suffix is None and not any(header_values(request, name) for name in METHODS + TARGETS):
        return request.method.encode("latin-1"), "", [_operators_rule(request, strict=True) or SIGNED_IN]
    if not services.trusted(peer_ip(request)):
        raise BadRequest(f"verify: {peer_ip(request)} is none of server.trusted_proxies")
    original = read_original(request, suffix)
    rule = services.match(original.host, original.path, original.method)
    for override in (value for name in OVERRIDES for value in header_values(request, name)):
        services.match(original.host, original.path, override.upper())  # what a backend may take for the method
    more = _operators_rule(request, strict=False) if suffix is None else None
    return original.method, original.host.decode("latin-1"), [rule] if more is None else [rule, more]


def read_original(request: Request, suffix: bytes | None) -> Original:
    """Return what the sub-request says of the original one. Raises BadRequest."""
    methods = {value for name in METHODS for value in header_values(request, name)}
    targets = {value for name in TARGETS for value in header_values(request, name)}
    hosts = set(header_values(request, b"x-forwarded-host"))
    pairs = [_split(target) for target in targets]
    paths = {path for _, path in pairs}
    hosts |= {host for host, _ in pairs if host}
    if suffix is not None:
        methods.add(request.method.encode("latin-1"))
        hosts |= set(header_values(request, b"host"))
        paths.add(suffix)
    if not hosts:
        hosts = set(header_values(request, b"host"))
    return Original(_one(methods, _METHOD), _one({_name(host) for host in hosts}, _HOST), _one(paths, None))


def _suffix(request: Request) -> bytes | None:
    """Return the original path that Envoy appends, None where there is none. It stays raw."""
    path: bytes = request.scope.get("raw_path") or quote(request.scope["path"]).encode("ascii")
    rest = path.partition(b"?")[0].removeprefix(PREFIX)
    return rest or None


def _split(target: bytes) -> tuple[bytes, bytes]:
    """Return (host or b"", path without the query) of a request target or an absolute URL."""
    if target[:1] == b"/":
        return b"", target.partition(b"?")[0]
    url = _URL.fullmatch(target)
    if url is None:
        raise BadRequest("verify: the original target is malformed")
    return url[1], (url[2] or b"/").partition(b"?")[0]


def _name(host: bytes) -> bytes:
    """Return a host without its port, in lower case: a proxy may name the port in one place alone."""
    return re.sub(rb":[0-9]*\Z", b"", host).lower()


def _one(values: set[bytes], form: re.Pattern[bytes] | None) -> bytes:
    if len(values) != 1:
        raise BadRequest("verify: the original request is told twice, or in part")
    value = values.pop()
    if form is not None and not form.fullmatch(value):
        raise BadRequest("verify: the original request is malformed")
    return value


def _operators_rule(request: Request, strict: bool) -> AccessRule | None:
    """Return what the sub-request's own query asks, None where it asks nothing.

    `strict` refuses any other parameter, since a misspelt one would leave the door open.
    """
    given = request.query_params.multi_items()
    wanted = {name: value for name, value in given if name in ("roles", "scopes")}
    known = sum(name in wanted for name, _ in given)
    if known != len(wanted) or (strict and known != len(given)) or "" in wanted.values():
        raise BadRequest("verify: the query may hold roles and scopes, once each")
    if not wanted:
        return None
    roles, scopes = (frozenset(filter(None, wanted.get(name, "").split(","))) for name in ("roles", "scopes"))
    if ("roles" in wanted and not roles) or ("scopes" in wanted and not scopes):
        raise BadRequest("verify: a list in the query is empty")
    return AccessRule(auth="required", roles_any=roles, scopes_all=scopes, live=True)
