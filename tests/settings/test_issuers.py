"""[[issuers]]: what is allowed, and which combinations are refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.settings import SettingsError, check_files
from gateway.settings.routes import FOREIGN_ALGORITHMS
from gateway.tokens import keyfile
from tests.settings.support import loaded, refused

ISSUER = {"issuer": "https://idp.example.com/realms/a", "jwks_url": "https://idp.example.com/jwks", "audience": "api"}
OTHER = {**ISSUER, "issuer": "https://idp.example.com/realms/b"}


def test_the_least_that_is_needed_has_defaults_for_the_rest() -> None:
    (issuer,) = loaded(issuers=[ISSUER]).issuers
    assert (issuer.roles_claim, issuer.scope_claim, issuer.subject_claim) == ("roles", "scope", "sub")
    assert (issuer.max_token_ttl, issuer.jwks_refresh, issuer.jwks_timeout) == (86400, 600, 5)
    assert issuer.typ == ("at+jwt", "JWT", "")
    assert not issuer.exchange


def test_the_algorithms_are_those_that_the_verifier_has_and_none_is_a_secrets() -> None:
    assert FOREIGN_ALGORITHMS == keyfile.FOREIGN_ALGORITHMS
    assert {name[:2] for name in FOREIGN_ALGORITHMS} == {"RS", "PS", "ES", "Ed"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("algorithms", ["HS256"]),
        ("algorithms", ["RS256", "none"]),
        ("algorithms", []),
        ("jwks_url", "http://idp.example.com/jwks"),
        ("jwks_url", "https://user:password@idp.example.com/jwks"),
        ("jwks_url", "https://idp.example.com/jwks#x"),
        ("jwks_url", "file:///etc/jwks.json"),
        ("issuer", "http://idp.example.com"),
        ("issuer", "https://idp.example.com?x"),
        ("issuer", "https://u@idp.example.com"),
        ("audience", ""),
        ("max_token_ttl", "0"),
        ("max_token_ttl", "91d"),
        ("jwks_refresh", "500ms"),
        ("jwks_timeout", "2m"),
        ("typ", ["rt+jwt"]),
        ("typ", ["application/logout+jwt"]),
        ("typ", []),
        ("typ", ["a b"]),
        ("roles_claim", ""),
        ("exchange_claims", ["sid"]),
        ("exchange_claims", ["email", "roles"]),
        ("exchange", "perhaps"),
        ("insecure_jwks", True),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_its_key(key: str, value: Any) -> None:
    told = refused(issuers=[{**ISSUER, key: value}])
    assert len(told) == 1
    assert told[0].startswith(f"issuers.0.{key}")
    assert "password" not in told[0]


@pytest.mark.parametrize(
    ("second", "key"),
    [
        (ISSUER, "issuers.1.issuer"),
        ({**OTHER, "issuer": "https://api.example.com"}, "issuers.1.issuer"),
        ({**OTHER, "jwks_url": "http://127.0.0.1:1/jwks", "jwks_ca": "/run/ca.crt"}, "issuers.1.jwks_url"),
    ],
)
def test_issuers_that_could_be_taken_for_one_another_are_refused(second: dict[str, Any], key: str) -> None:
    assert [line.split(": ")[0] for line in refused(issuers=[ISSUER, second])] == [key]


@pytest.mark.parametrize(
    ("prefixes", "broken"),
    [
        (("a|", "a|"), True),
        (("a|", "a|b|"), True),
        (("a|b|", "a|"), True),
        (("", ""), False),  # made from the issuers, which differ
        (("a|", "b|"), False),
        (("idp.example.com/realms/b|", ""), True),
    ],
)
def test_users_of_two_issuers_must_not_share_a_namespace(prefixes: tuple[str, str], broken: bool) -> None:
    tables = [
        {**issuer, "exchange": True, "subject_prefix": prefix}
        for issuer, prefix in zip((ISSUER, OTHER), prefixes, strict=True)
    ]
    if broken:
        assert all(".subject_prefix: found " in line for line in refused(issuers=tables))
    else:
        assert len(loaded(issuers=tables).issuers) == 2


def test_the_namespace_is_the_issuer_unless_it_is_named() -> None:
    assert [each.namespace for each in loaded(issuers=[ISSUER, {**OTHER, "subject_prefix": "b:"}]).issuers] == [
        "idp.example.com/realms/a|",
        "b:",
    ]


def test_a_key_of_an_issuer_can_come_from_the_environment() -> None:
    from gateway.settings import load
    from tests.settings.support import environ

    variables = environ(issuers=[ISSUER]) | {
        "TOKENGATE_ISSUERS__0__ALGORITHMS": "ES256,RS256",
        "TOKENGATE_ISSUERS__0__EXCHANGE": "true",
    }
    (issuer,) = load(None, variables).issuers
    assert (issuer.algorithms, issuer.exchange) == (("ES256", "RS256"), True)


def test_a_file_of_authorities_must_be_there(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    settings = loaded(tokens={"signing_keys": str(keys)}, issuers=[{**ISSUER, "jwks_ca": "/nowhere/ca.crt"}])
    with pytest.raises(SettingsError) as caught:
        check_files(settings)
    assert [line.split(": ")[0] for line in caught.value.lines] == ["issuers.0.jwks_ca"]
