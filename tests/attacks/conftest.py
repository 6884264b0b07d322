"""One Redis, one backend, and gateways that are set up as an attacker would like to meet them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.identity.passwords import hash_password
from tests.attacks.support import ACCESS, CLIENT, CLIENT_SECRET, REFRESH
from tests.e2e.backends import Backend
from tests.e2e.conftest import _no_exception_is_logged, backend, site
from tests.e2e.harness import Gateway, Site, route

__all__ = ["_no_exception_is_logged", "backend", "behind", "fortress", "site", "twins"]


@pytest.fixture(scope="session")
def fortress(site: Site, backend: Backend) -> Iterator[Gateway]:
    """Believes nobody; cookies for both tokens, a client for introspection, and a log that says all it ever says."""
    routes = [
        route("/", backend.url, auth="none"),  # a careless one: whatever nobody else takes goes to a backend
        route("/guarded/", backend.url),
        route("/optional/", backend.url, auth="optional"),
        route("/sealed/", backend.url, auth="none", forward_authorization=False),
        route("/reading/", backend.url, methods=["GET", "HEAD"]),
        route("/posting/", backend.url, methods=["GET", "POST"]),
        route("/admins/", backend.url, roles_any=["admin"]),
        route("/tenant/", backend.url, host="tenant.test", roles_any=["nobody"]),
    ]
    clients = {"clients": {CLIENT: hash_password(CLIENT_SECRET)}}
    cookies = {"refresh": REFRESH, "access": ACCESS}
    with site.serve(routes=routes, cookies=cookies, introspection=clients, log={"level": "debug"}) as made:
        yield made


@pytest.fixture(scope="session")
def behind(site: Site, backend: Backend) -> Iterator[Gateway]:
    """Believes proxies on this machine and in 10.0.0.0/8, and answers their questions."""
    routes = [
        route("/guarded/", backend.url),
        route("/reading/", backend.url, methods=["GET"]),
        route("/posting/", backend.url, methods=["GET", "POST"]),
    ]
    server = {"trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]}
    with site.serve(routes=routes, server=server, cookies={"refresh": REFRESH, "access": ACCESS}) as made:
        yield made


@pytest.fixture(scope="session")
def twins(site: Site, backend: Backend) -> Iterator[tuple[Gateway, Gateway]]:
    """Two replicas with limits, behind a proxy that they believe."""
    options: dict[str, Any] = {
        "routes": [route("/guarded/", backend.url)],
        "server": {"trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]},
        "limits": {"login_per_user": 3, "login_per_ip": 4, "refresh_per_session": 3},
    }
    with site.serve(**options) as first, site.serve(**options) as second:
        yield first, second
