"""Values that are good alone and not together."""

from __future__ import annotations

from typing import Any

import pytest

from tests.settings.support import ROUTE, loaded, refused

ISSUER = {"issuer": "https://idp.example.com", "jwks_url": "https://idp.example.com/jwks", "audience": "api"}
CASE = {"server": {"ignore_path_case": True}}
USERS = {"provider": "users-file", "webhook_url": None}


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        ({"server": {"bind": "0.0.0.0:80"}, "management": {"bind": "127.0.0.1:80"}}, "management.bind"),
        ({"server": {"bind": "127.0.0.1:80"}, "management": {"bind": "127.0.0.1:80"}}, "management.bind"),
        ({"server": {"bind": "127.0.0.1:80"}, "management": {"bind": "[::]:80"}}, "management.bind"),
        ({"server": {"tls_cert": "/run/tls.crt"}}, "server.tls_key"),
        ({"server": {"tls_key": "/run/tls.key"}}, "server.tls_cert"),
        ({"server": {"proxy_protocol": True}}, "server.proxy_protocol"),
        (
            {"server": {"proxy_protocol": True, "trusted_proxies": ["10.0.0.1"], "tls_cert": "/c", "tls_key": "/k"}},
            "server.proxy_protocol",
        ),
        ({"redis": {"url": "rediss://r", "tls_key": "/run/tls.key"}}, "redis.tls_cert"),
        ({"redis": {"url": "redis://r", "tls_ca": "/run/ca.crt"}}, "redis.url"),
        ({"redis": {"url": "redis://:one@r", "password": "two"}}, "redis.password"),
        ({"redis": {"url": "redis+sentinel://r/s", "tls_cert": "/c", "tls_key": "/k"}}, "redis.url"),
        ({"redis": {"url": "redis+cluster://r", "tls_ca": "/run/ca.crt"}}, "redis.url"),
        ({"redis": {"url": "redis+cluster://r", "sentinel_password": "pw"}}, "redis.sentinel_password"),
        ({"redis": {"url": "redis://r", "sentinel_username": "bob"}}, "redis.sentinel_username"),
        ({"redis": {"url": "redis+sentinel://:one@r,q/s", "password": "two"}}, "redis.password"),
        ({"redis": {"url": "memory://"}, "server": {"workers": 2}}, "server.workers"),
        ({"redis": {"url": "memory://", "wait_replicas": 1}}, "redis.wait_replicas"),
        ({"tokens": {"access_ttl": "30d"}}, "tokens.access_ttl"),
        ({"tokens": {"access_ttl": "1h", "session_ttl": "1h", "refresh_ttl": "0"}}, "tokens.access_ttl"),
        ({"tokens": {"algorithm": "HS256"}, "issuers": [ISSUER]}, "tokens.algorithm"),
        ({"issuers": [ISSUER, ISSUER]}, "issuers.1.issuer"),
        ({"issuers": [{**ISSUER, "issuer": "https://api.example.com"}]}, "issuers.0.issuer"),
        ({"cookies": {"access": "__Secure-Refresh"}}, "cookies.access"),
        ({"cookies": {"access": "__host-access"}}, "cookies.access"),
        ({"cookies": {"refresh": "__SECURE-refresh"}}, "cookies.refresh"),
        ({"identity": {"webhook_url": None}}, "identity.webhook_url"),
        ({"identity": USERS}, "identity.users_file"),
        ({"introspection": {"clients": {"orders": "a-secret-in-the-clear"}}}, "introspection.clients.orders"),
        ({"introspection": {"clients": {"a:b": "$argon2id$x"}}}, "introspection.clients.a:b"),
        ({"identity_headers": {"X-User": "sub", "x_user": "email"}}, "identity_headers.x_user"),
        ({"identity_headers": {"Host": "sub"}}, "identity_headers.Host"),
        ({"identity_headers": {"Content_Length": "sub"}}, "identity_headers.Content_Length"),
        ({"identity_headers": {"Authorization": "sub"}}, "identity_headers.Authorization"),
        ({"identity_headers": {"X-Forwarded-For": "sub"}}, "identity_headers.X-Forwarded-For"),
        ({"identity_headers": {"X_Request_Id": "sub"}}, "identity_headers.X_Request_Id"),
        ({"identity_headers": {"TraceParent": "sub"}}, "identity_headers.TraceParent"),
        ({"identity_headers": {"tracestate": "sub"}}, "identity_headers.tracestate"),
        ({"identity_headers": {"Proxy": "sub"}}, "identity_headers.Proxy"),
        ({"routes": [ROUTE, {**ROUTE, "path": "/api"}]}, "routes.1.path"),
        ({"routes": [{**ROUTE, "host": "a.b"}, {**ROUTE, "host": "A.b."}]}, "routes.1.path"),
        ({"routes": [{**ROUTE, "path": "/auth"}]}, "routes.0.path"),
        ({"routes": [{**ROUTE, "path": "/auth/login"}]}, "routes.0.path"),
        ({"routes": [{**ROUTE, "path": "/.well-known/jwks.json"}]}, "routes.0.path"),
        ({**CASE, "routes": [ROUTE, {**ROUTE, "path": "/API"}]}, "routes.1.path"),
        ({**CASE, "routes": [{**ROUTE, "path": "/AUTH/Login"}]}, "routes.0.path"),
        ({**CASE, "routes": [{**ROUTE, "path": "/.Well-Known/jwks.json"}]}, "routes.0.path"),
        ({"routes": [{**ROUTE, "auth": "none", "roles_any": ["admin"]}]}, "routes.0.auth"),
        ({"routes": [{**ROUTE, "auth": "none", "scopes_all": ["orders:read"]}]}, "routes.0.auth"),
        ({"routes": [{**ROUTE, "strip_prefix": "/ap"}]}, "routes.0.strip_prefix"),
        ({"routes": [{**ROUTE, "strip_prefix": "/other"}]}, "routes.0.strip_prefix"),
        ({"routes": [{**ROUTE, "upstream": ["http://a", "http://a:80/"]}]}, "routes.0.upstream"),
        ({"routes": [{**ROUTE, "upstream": ["http://a", "https://b"]}]}, "routes.0.upstream"),
        ({"routes": [{**ROUTE, "upstream_ca": "/run/ca.crt"}]}, "routes.0.upstream"),
        ({"routes": [{**ROUTE, "upstream_cert": "/run/a.crt", "upstream_key": "/run/a.key"}]}, "routes.0.upstream"),
        ({"routes": [{**ROUTE, "upstream": ["https://a"], "upstream_cert": "/run/a.crt"}]}, "routes.0.upstream_key"),
        ({"routes": [{**ROUTE, "upstream": ["https://a"], "upstream_key": "/run/a.key"}]}, "routes.0.upstream_cert"),
    ],
)
def test_what_is_not_safe_together_is_refused_by_its_key(tables: dict[str, Any], key: str) -> None:
    told = refused(**tables)
    assert [line.split(": ")[0] for line in told] == [key]


@pytest.mark.parametrize(
    "tables",
    [
        {"server": {"bind": "127.0.0.1:0"}, "management": {"bind": "127.0.0.1:0"}},
        {"server": {"bind": "10.0.0.1:80"}, "management": {"bind": "127.0.0.1:80"}},
        {"server": {"tls_cert": "/run/tls.crt", "tls_key": "/run/tls.key"}},
        {"server": {"proxy_protocol": True, "trusted_proxies": ["10.0.0.0/8"]}},
        {"redis": {"url": "rediss://:one@r", "tls_ca": "/run/ca.crt"}},
        {"redis": {"url": "redis://r", "password": "two"}},
        {"redis": {"url": "rediss+sentinel://q,r/s", "tls_ca": "/run/ca.crt", "sentinel_password": "pw"}},
        {"redis": {"url": "rediss+cluster://q,r", "tls_ca": "/run/ca.crt", "password": "two"}},
        {"redis": {"url": "memory://"}},
        {"tokens": {"access_ttl": "60d", "refresh_ttl": "0", "session_ttl": "0"}},
        {"tokens": {"algorithm": "HS256"}},
        {"issuers": [ISSUER]},
        {"cookies": {"access": "__Host-access"}},
        {"cookies": {"refresh": "refresh", "access": "access"}},
        {"identity": {**USERS, "users_file": "/run/users.toml"}},
        {"routes": [{**ROUTE, "path": "/"}, {**ROUTE, "path": "/authors"}]},
        {"routes": [ROUTE, {**ROUTE, "host": "a.b"}]},
        {"routes": [ROUTE, {**ROUTE, "path": "/API"}, {**ROUTE, "path": "/AUTH/Login"}]},
        {"routes": [{**ROUTE, "upstream": ["https://a"], "upstream_ca": "/run/ca.crt"}]},
        {"routes": [{**ROUTE, "upstream": ["https://a"], "upstream_cert": "/run/a.crt", "upstream_key": "/run/a.key"}]},
        {"routes": [{**ROUTE, "auth": "optional", "roles_any": ["admin"]}]},
        {"routes": [{**ROUTE, "strip_prefix": "/api"}]},
        {"routes": [{**ROUTE, "strip_prefix": "/api/"}]},
        {"identity_headers": {"X-Forwarded-User": "sub"}},
        {"identity_headers": {}},
    ],
)
def test_what_is_safe_together_is_accepted(tables: dict[str, Any]) -> None:
    loaded(**tables)


def test_a_short_admin_token_is_refused_without_showing_it() -> None:
    allowed = "at least 16 printable ASCII characters without a space are allowed"
    assert refused(management={"admin_token": "hunter2"}) == [
        f"management.admin_token (TOKENGATE_MANAGEMENT): {allowed}"
    ]


@pytest.mark.parametrize("url", ["http://idp.example.com/jwks", "file:///etc/jwks.json", "https://u:p@idp.example.com"])
def test_keys_of_another_issuer_are_fetched_over_https_alone(url: str) -> None:
    assert refused(issuers=[{**ISSUER, "jwks_url": url}])[0].startswith("issuers.0.jwks_url")
