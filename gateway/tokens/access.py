"""What a route asks of a token, decided: a pure function over claims."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gateway.errors import InsufficientScope, MissingToken
from gateway.tokens.claims import Claims


@dataclass(frozen=True, slots=True)
class AccessRule:
    """What a route asks: a token at all, one of some roles, all of some scopes, and a live session."""

    auth: Literal["required", "optional", "none"]
    roles_any: frozenset[str]
    scopes_all: frozenset[str]
    live: bool  # revocation = "live": the session is looked up, beyond signature and expiry


def decide(claims: Claims | None, rule: AccessRule) -> None:
    """Return where a caller with these verified claims (None = no token) may pass.

    Raises MissingToken or InsufficientScope (RFC 6750 3.1). A rule that names roles or scopes lets no one
    without a token pass, also where the token is optional: to leave it out must not gain access.
    """
    if rule.auth == "none":
        return
    if claims is None:
        if rule.auth == "required" or rule.roles_any or rule.scopes_all:
            raise MissingToken
        return
    if rule.roles_any and rule.roles_any.isdisjoint(claims.roles):
        raise InsufficientScope(" ".join(sorted(rule.scopes_all)), reason="role missing")
    if rule.scopes_all and not rule.scopes_all.issubset(claims.scope):
        raise InsufficientScope(" ".join(sorted(rule.scopes_all)), reason="scope missing")
