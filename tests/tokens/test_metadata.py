"""The metadata of RFC 8414."""

from __future__ import annotations

import pytest

from gateway.tokens.metadata import server_metadata


@pytest.mark.parametrize("issuer", ["https://api.example.com", "https://api.example.com/", "https://example.com/gw"])
def test_every_endpoint_lies_under_the_issuer_and_the_issuer_is_repeated_as_it_is(issuer: str) -> None:
    metadata = server_metadata(issuer)
    assert metadata["issuer"] == issuer  # RFC 8414 3.3
    base = issuer.rstrip("/")
    assert metadata["token_endpoint"] == base + "/auth/token"
    assert metadata["revocation_endpoint"] == base + "/auth/revoke"
    assert metadata["introspection_endpoint"] == base + "/auth/introspect"
    assert metadata["jwks_uri"] == base + "/.well-known/jwks.json"


def test_the_members_that_rfc_8414_requires_are_there_and_only_what_is_served_is_promised() -> None:
    metadata = server_metadata("https://api.example.com")
    assert metadata["response_types_supported"] == []
    assert metadata["grant_types_supported"] == ["refresh_token"]
    assert metadata["introspection_endpoint_auth_methods_supported"] == ["client_secret_basic"]
    assert "authorization_endpoint" not in metadata
