"""python -m tests.clients.site [SECTIONS]: a gateway, its Redis and a backend, until standard input ends.

SECTIONS is JSON that is laid over the configuration, as in {"tokens": {"access_ttl": "2s"}}. The first line of
output says where everything is: {"url", "management", "adminToken", "users", "password"}. Each further line of
input is a command and gets a line of output: {"do": "redis", "how": "stop" | "start" | "pause" | "resume"},
{"do": "counts"}, {"do": "ready", "status": 200}, {"do": "keys"}: another signing key in place of the one there is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from tests.clients.backend import EchoBackend, echo_backend
from tests.e2e.harness import ADMIN_TOKEN, PASSWORD, USERS, Gateway, Site, route
from tests.redis_server import RedisServer, redis_server


def main(sections: Mapping[str, Any]) -> None:
    with redis_server() as redis, echo_backend() as backend, Site(redis.url) as site:
        routes = [
            route("/api/", backend.url),
            route("/open/", backend.url, auth="none"),
            route("/admin-only/", backend.url, roles_any=["root"]),
        ]
        with site.serve(routes=routes, **sections) as gateway:
            _say(
                url=f"http://localhost:{gateway.port}",
                management=f"http://127.0.0.1:{gateway.management}",
                adminToken=ADMIN_TOKEN,
                users=sorted(USERS),
                password=PASSWORD,
            )
            for line in sys.stdin:
                _say(**_do(json.loads(line), redis, backend, site, gateway))


def _do(
    command: Mapping[str, Any], redis: RedisServer, backend: EchoBackend, site: Site, gateway: Gateway
) -> dict[str, Any]:
    match command["do"]:
        case "keys":
            site.replace_signing_key()
            return {"status": gateway.operate("POST", "/admin/keys/reload").status}
        case "redis":
            getattr(redis, command["how"])()
            return {}
        case "counts":
            with backend.lock:
                return {"counts": dict(backend.counts)}
        case "ready":
            gateway.wait_ready(command["status"])
            return {}
        case other:
            raise ValueError(other)


def _say(**content: Any) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})
