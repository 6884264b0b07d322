"""Who a token of another issuer is about, as a user here (token exchange, RFC 8693)."""

from __future__ import annotations

from gateway.errors import InvalidRequest, InvalidScope
from gateway.identity import fields
from gateway.identity.provider import Identity
from gateway.tokens.claims import Claims, claim_at
from gateway.tokens.foreign import IssuerRules


def exchanged(claims: Claims, rules: IssuerRules, scope: str | None = None) -> Identity:
    """Return the user that a verified token of another issuer is about. `scope` narrows the token's own.

    The subject lies in the issuer's namespace, roles and scope are the token's, further claims those that the rules
    name. Raises InvalidRequest where a session cannot hold them, InvalidScope.
    """
    if claims.foreign is None:
        raise InvalidRequest("subject_token is not another issuer's")
    wanted = claims.scope if scope is None else tuple(filter(None, scope.split(" ")))
    if not set(wanted) <= set(claims.scope):
        raise InvalidScope
    taken = {name: value for name in rules.exchange_claims if (value := claim_at(claims.raw, name)) is not None}
    try:
        subject = fields.name(rules.exchange_prefix + claims.foreign.subject)
        roles, scopes = fields.roles(list(claims.roles)), fields.scope(" ".join(wanted))
        more = fields.claims(taken)
        fields.fitting(roles, scopes, more)
    except ValueError:
        raise InvalidRequest("subject_token says more of its user than a session can hold") from None
    return Identity(subject, roles, scopes, more)
