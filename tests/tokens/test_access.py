"""What a route asks of a token, as a truth table."""

from __future__ import annotations

from typing import Literal

import pytest

from gateway.errors import GatewayError, InsufficientScope, MissingToken
from gateway.tokens.access import AccessRule, decide
from gateway.tokens.claims import Claims
from tests.tokens.support import NOW, claims

Auth = Literal["required", "optional", "none"]


def caller(roles: str = "", scope: str = "") -> Claims:
    raw = claims()
    return Claims(
        iss=raw["iss"],
        sub=raw["sub"],
        aud=("api",),
        exp=NOW,
        iat=NOW,
        jti=raw["jti"],
        sid=raw["sid"],
        n=0,
        roles=tuple(roles.split()),
        scope=tuple(scope.split()),
        client_id="",
        raw=raw,
    )


@pytest.mark.parametrize(
    ("auth", "roles", "scopes", "who", "refused"),
    [
        ("required", "", "", None, MissingToken),
        ("required", "", "", caller(), None),
        ("required", "user", "", caller("user"), None),
        ("required", "user admin", "", caller("admin x"), None),
        ("required", "user", "", caller(), InsufficientScope),
        ("required", "user", "", caller("User"), InsufficientScope),
        ("required", "user", "", caller("users"), InsufficientScope),
        ("required", "", "a b", caller("", "b c a"), None),
        ("required", "", "a b", caller("", "a"), InsufficientScope),
        ("required", "", "a", caller("a"), InsufficientScope),
        ("required", "user", "a", caller("user"), InsufficientScope),
        ("required", "user", "a", caller("", "a"), InsufficientScope),
        ("required", "user", "a", caller("user", "a"), None),
        ("optional", "", "", None, None),
        ("optional", "", "", caller(), None),
        ("optional", "user", "", caller(), InsufficientScope),
        ("optional", "user", "", None, MissingToken),  # leaving the token out gains nothing
        ("optional", "", "a", None, MissingToken),
        ("none", "", "", None, None),
        ("none", "", "", caller(), None),
    ],
)
def test_who_may_pass(
    auth: Auth, roles: str, scopes: str, who: Claims | None, refused: type[GatewayError] | None
) -> None:
    rule = AccessRule(auth, frozenset(roles.split()), frozenset(scopes.split()), live=True)
    if refused is None:
        decide(who, rule)
    else:
        with pytest.raises(refused):
            decide(who, rule)


def test_the_challenge_names_all_scopes_that_the_route_asks_in_a_stable_order() -> None:
    rule = AccessRule("required", frozenset(), frozenset({"b", "a", "c"}), live=True)
    with pytest.raises(InsufficientScope) as caught:
        decide(caller("", "a"), rule)
    assert caught.value.www_authenticate("r") == 'Bearer realm="r", error="insufficient_scope", scope="a b c"'
