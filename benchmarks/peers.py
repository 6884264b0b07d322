"""The field's proxies: how each is configured and started, all in front of the same nginx backend on loopback.

Each is set up as its manual says for a reverse proxy that keeps connections to its backend, with one thread,
without an access log, and otherwise as it comes. One that is not installed raises FileNotFoundError.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.request import urlopen

import orjson

from benchmarks import machine
from benchmarks.credentials import AUDIENCE, ISSUER, Credentials
from benchmarks.measure import Peer

MANY = 10100  # connections that a proxy must be able to hold (footprint)


def backend(folder: Path) -> contextlib.AbstractContextManager[tuple[int, int]]:
    """Run the nginx that everyone stands in front of; yield (port, pid)."""
    root = folder / "www"
    root.mkdir()
    (root / "1k").write_bytes(b"x" * 1024)
    (root / "1m").write_bytes(os.urandom(1 << 20))
    # nginx answers `return` before the body has come; one that it passes on, here to itself, it reads first.
    drained = f"unix:{folder}/drained.sock"
    http = (
        f"sendfile on; tcp_nopush on; upstream drained {{ server {drained}; keepalive 64; }}"
        f" server {{ listen {drained}; return 204; }}"
    )
    server = (
        f"root {root}; location = /post {{ client_body_buffer_size 128k; proxy_pass http://drained;"
        ' proxy_http_version 1.1; proxy_pass_request_body off; proxy_set_header Content-Length "";'
        ' proxy_set_header Connection ""; }'
    )
    return _nginx(folder / "backend", server, http, machine.cores().rest)


def accounts(folder: Path) -> contextlib.AbstractContextManager[tuple[int, int]]:
    """Run a login webhook that takes every password, each time for another user; yield (port, pid)."""
    answer = """'{"sub":"u-$request_id","roles":["user"]}'"""
    server = f"location / {{ default_type application/json; return 200 {answer}; }}"
    return _nginx(folder / "accounts", server, "", machine.cores().rest)


@contextlib.contextmanager
def nginx(folder: Path, target: int) -> Iterator[Peer]:
    """Plain nginx: the limit, with no authentication at all. Upgrades are passed on.

    Bodies are streamed, as everyone else does; as nginx comes, a request's body would go through a file.
    """
    http = (
        f"upstream b {{ server 127.0.0.1:{target}; keepalive 256; keepalive_requests 1000000000; }}"
        ' map $http_upgrade $hop { default upgrade; "" ""; }'
    )
    server = (
        "location / { proxy_pass http://b; proxy_http_version 1.1; proxy_request_buffering off;"
        " proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $hop; }"
    )
    with _nginx(folder / "nginx", server, http, machine.cores().one) as (port, pid):
        yield Peer("nginx", _url(port), (pid,), version=machine.version([machine.required("nginx"), "-v"]))


@contextlib.contextmanager
def _nginx(home: Path, server: str, http: str, on: frozenset[int]) -> Iterator[tuple[int, int]]:
    program = machine.required("nginx")
    home.mkdir()
    port = machine.free_port()
    config = home / "nginx.conf"
    config.write_text(
        f"""worker_processes 1; daemon off; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 20000; }}
http {{ access_log off; keepalive_requests 1000000000; client_max_body_size 0;
  client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  {http}
  server {{ listen 127.0.0.1:{port} backlog=4096; {server} }} }}
"""
    )
    with machine.process([program, "-c", str(config)], machine.listening(port), home / "log", on=on) as pid:
        yield port, pid


@contextlib.contextmanager
def redis(folder: Path, *options: str) -> Iterator[tuple[int, int]]:
    """Run a Redis that keeps nothing on disk unless `options` say so; yield (port, pid)."""
    port = machine.free_port()
    command = [machine.required("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--dir", str(folder), *options]
    with machine.process(command, machine.listening(port), folder / "redis.log", on=machine.cores().rest) as pid:
        yield port, pid


# RFC 6750 and 7519 in HAProxy's words: a good signature of the one algorithm, issuer, audience, not expired.
_JWT_VERIFY = """
  http-request deny deny_status 401 unless {{ req.hdr(authorization) -m beg "Bearer " }}
  http-request set-var(txn.bearer) http_auth_bearer
  http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
  http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 unless {{ var(txn.alg) -m str {algorithm} }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.iss') -m str {issuer} }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.aud') -m str {audience} }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,"{key}") -m int 1 }}
  http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}"""


@contextlib.contextmanager
def haproxy(
    folder: Path, target: int, credentials: Credentials, token: str = "", algorithm: str = ""
) -> Iterator[Peer]:
    """HAProxy, plain or with jwt_verify for one algorithm."""
    program = machine.required("haproxy")
    name = f"HAProxy jwt_verify {algorithm}" if algorithm else "HAProxy"
    key = credentials.public / f"{algorithm}.pem"
    check = _JWT_VERIFY.format(algorithm=algorithm, issuer=ISSUER, audience=AUDIENCE, key=key) if algorithm else ""
    home = _home(folder, name)
    port = machine.free_port()
    (home / "haproxy.cfg").write_text(
        f"""global
  nbthread 1
  maxconn {MANY}
  ulimit-n {machine.raise_file_limit()}
  no strict-limits
defaults
  mode http
  http-reuse always
  timeout client 75s
  timeout server 60s
  timeout connect 2s
frontend clients
  bind 127.0.0.1:{port} backlog 4096{check}
  default_backend servers
backend servers
  server one 127.0.0.1:{target}
"""
    )
    command = [program, "-db", "-f", str(home / "haproxy.cfg")]
    with _run(command, port, home) as pid:
        headers = {"Authorization": f"Bearer {token}"} if algorithm else {}
        yield Peer(name, _url(port), (pid,), headers, bool(algorithm), machine.version([program, "-v"]))


@contextlib.contextmanager
def caddy(folder: Path, target: int) -> Iterator[Peer]:
    """Caddy, plain."""
    program = machine.required("caddy")
    home = _home(folder, "caddy")
    port = machine.free_port()
    (home / "Caddyfile").write_text(
        f"""{{
	admin off
	auto_https off
}}
http://127.0.0.1:{port} {{
	bind 127.0.0.1
	reverse_proxy 127.0.0.1:{target} {{
		transport http {{
			keepalive_idle_conns_per_host 512
		}}
	}}
}}
"""
    )
    command = [program, "run", "--config", str(home / "Caddyfile"), "--adapter", "caddyfile"]
    with _run(command, port, home, {"HOME": str(home), "GOMAXPROCS": "1"}) as pid:
        yield Peer("Caddy", _url(port), (pid,), version=machine.version([program, "version"]))


@contextlib.contextmanager
def traefik(folder: Path, target: int) -> Iterator[Peer]:
    """Traefik, plain."""
    program = machine.required("traefik")
    home = _home(folder, "traefik")
    port = machine.free_port()
    service = {"loadBalancer": {"servers": [{"url": f"http://127.0.0.1:{target}"}]}}
    routers = {"all": {"rule": "PathPrefix(`/`)", "service": "backend", "entryPoints": ["clients"]}}
    (home / "dynamic.json").write_bytes(orjson.dumps({"http": {"routers": routers, "services": {"backend": service}}}))
    command = [
        program,
        f"--entrypoints.clients.address=127.0.0.1:{port}",
        f"--providers.file.filename={home}/dynamic.json",
        "--serversTransport.maxIdleConnsPerHost=512",
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
    ]
    ready, environ = _routing(port), {"GOMAXPROCS": "1"}
    with machine.process(command, ready, home / "log", on=machine.cores().one, environ=environ) as pid:
        yield Peer("Traefik", _url(port), (pid,), version=machine.version([program, "version"]))


def _routing(port: int) -> Callable[[], bool]:
    """Tell whether what listens has its routes too, which it reads later."""

    def ready() -> bool:
        try:
            with urlopen(f"{_url(port)}/1k", timeout=5) as answer:
                return int(answer.status) == 200
        except OSError:
            return False

    return ready


@contextlib.contextmanager
def oauth2_proxy(folder: Path, target: int, jwks_url: str, token: str) -> Iterator[Peer]:
    """oauth2-proxy, which verifies the bearer token (RS256) and looks nothing up."""
    program = machine.required("oauth2-proxy")
    home = _home(folder, "oauth2-proxy")
    port = machine.free_port()
    command = [
        program,
        f"--http-address=127.0.0.1:{port}",
        f"--upstream=http://127.0.0.1:{target}",
        "--provider=oidc",
        f"--oidc-issuer-url={ISSUER}",
        "--skip-oidc-discovery",
        f"--oidc-jwks-url={jwks_url}",
        f"--login-url={ISSUER}/none",
        f"--redeem-url={ISSUER}/none",
        f"--client-id={AUDIENCE}",
        "--client-secret=none",
        "--cookie-secret=0123456789abcdef",
        "--email-domain=*",
        "--skip-jwt-bearer-tokens",
        "--skip-provider-button",
        "--api-route=^/",  # 401 rather than a redirect to sign in
        "--request-logging=false",
        "--auth-logging=false",
        "--standard-logging=false",
    ]
    with _run(command, port, home, {"GOMAXPROCS": "1"}) as pid:
        headers = {"Authorization": f"Bearer {token}"}
        yield Peer("oauth2-proxy", _url(port), (pid,), headers, True, machine.version([program, "--version"]))


@contextlib.contextmanager
def starlette(folder: Path, target: int) -> Iterator[Peer]:
    """Starlette and httpx under uvicorn, plain."""
    if importlib.util.find_spec("httpx") is None:
        raise FileNotFoundError("httpx is not installed")
    home = _home(folder, "starlette")
    port = machine.free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.asgi_proxy:app", "--port", str(port)]
    command += ["--no-access-log", "--log-level", "warning"]
    with _run(command, port, home, {"BENCHMARK_TARGET": _url(target)}) as pid:
        yield Peer("Starlette + httpx", _url(port), (pid,))


def _run(
    command: list[str], port: int, home: Path, environ: Mapping[str, str] | None = None
) -> contextlib.AbstractContextManager[int]:
    ready = machine.listening(port)
    return machine.process(command, ready, home / "log", on=machine.cores().one, environ=environ)


def _home(folder: Path, name: str) -> Path:
    home = folder / name.replace(" ", "-")
    home.mkdir()
    return home


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"
