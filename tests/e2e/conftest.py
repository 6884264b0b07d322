"""One Redis, one backend of each kind and one ordinary gateway for the run; tests make special ones themselves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.e2e.backends import Backend, Nginx, nginx_backend, raw_backend
from tests.e2e.harness import Gateway, Site, route, running
from tests.redis_server import RedisServer, free_port


@pytest.fixture(autouse=True)
def _no_exception_is_logged() -> Iterator[None]:
    yield
    for gateway in running():
        gateway.check_log()


@pytest.fixture(scope="session")
def site(shared_redis: RedisServer) -> Iterator[Site]:
    with Site(shared_redis.url) as made:
        yield made.age_store()


@pytest.fixture(scope="session")
def backend() -> Iterator[Backend]:
    with raw_backend() as made:
        yield made


@pytest.fixture(scope="session")
def nginx() -> Iterator[Nginx]:
    if shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin:/usr/local/bin") is None:
        pytest.skip("needs nginx")
    with nginx_backend() as made:
        yield made


@pytest.fixture(scope="session")
def gateway(site: Site, backend: Backend) -> Iterator[Gateway]:
    """The ordinary gateway: the raw backend behind routes of every kind."""
    routes = [
        route("/raw/", backend.url, auth="none"),
        route("/guarded/", backend.url),
        route("/unlive/", backend.url, revocation="none"),
        route("/optional/", backend.url, auth="optional"),
        route("/admin/", backend.url, roles_any=["admin", "root"]),
        route("/writers/", backend.url, scopes_all=["orders:write", "orders:read"]),
        route("/reading/", backend.url, methods=["GET", "HEAD"], auth="none"),
        route("/private/", backend.url, forward_authorization=False),
        route("/impatient/", backend.url, auth="none", response_timeout="300ms", idle_timeout="300ms"),
        route("/closed/", f"http://127.0.0.1:{free_port()}", auth="none"),
    ]
    headers = {
        "X-Auth-Request-User": "sub",
        "X-Auth-Request-Email": "email",
        "X-Auth-Request-Groups": "roles",
        "X-Auth-Request-Session": "sid",
        "X-Auth-Request-Name": "name",
        "X-Auth-Request-Edge": "edge",
    }
    cookies = {"refresh": "__Secure-refresh", "access": "__Host-access"}
    with site.serve(routes=routes, identity_headers=headers, cookies=cookies) as made:
        yield made
