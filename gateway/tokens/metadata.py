"""The authorization server's metadata (RFC 8414 2)."""

from __future__ import annotations

from typing import Any

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105  # RFC 8693 2.1


def server_metadata(issuer: str, *, exchange: bool = False) -> dict[str, Any]:
    """Return the metadata of the gateway that is reached at `issuer`, as the JSON object to serve.

    `exchange` tells whether tokens of other issuers are taken in exchange.
    """
    base = issuer.rstrip("/")
    return {
        "issuer": issuer,  # RFC 8414 3.3: identical to the configured one
        "token_endpoint": f"{base}/auth/token",
        "revocation_endpoint": f"{base}/auth/revoke",
        "introspection_endpoint": f"{base}/auth/introspect",
        "jwks_uri": f"{base}/.well-known/jwks.json",
        "grant_types_supported": ["refresh_token", *([TOKEN_EXCHANGE] if exchange else [])],
        "response_types_supported": [],  # required by RFC 8414; there is no authorization endpoint
        "token_endpoint_auth_methods_supported": ["none"],  # public clients: the refresh token is the credential
        "revocation_endpoint_auth_methods_supported": ["none"],
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic"],
    }
