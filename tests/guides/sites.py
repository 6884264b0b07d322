"""What two of the pages put side by side: everything that they have, started as they say."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from tests.e2e.harness import until
from tests.guides.backend import Files, mirror
from tests.guides.browser import begin_nginx, wait_for
from tests.guides.provider import API, Provider
from tests.guides.supertokens import SuperTokens
from tests.guides.terminal import Terminal, commands, ports, terminal

ADMIN_TOKEN = "admin-token-of-the-tests"
KINDS = ["stand-in", *(["oauth2-proxy"] if shutil.which("oauth2-proxy") else [])]
_REDIS = "redis-server --port 6380 --save '' --bind 127.0.0.1 >redis.log 2>&1 &"


def ask(running: Terminal, path: str, token: str, method: str = "GET") -> requests.Response:
    """Ask the gateway itself."""
    headers = {"Authorization": f"Bearer {token}"}
    return requests.request(method, running.here("http://127.0.0.1:8080") + path, headers=headers, timeout=10)


def passes(running: Terminal, token: str) -> bool:
    return ask(running, "/auth/me", token).status_code == 200


@contextmanager
def oauth2_proxy_site(idp: Provider, kind: str, files: Files | None = None) -> Iterator[Terminal]:
    """Run docs/migrate/oauth2-proxy.md; `kind` says whether oauth2-proxy is itself or our stand-in.

    `files` are served by the backend.
    """
    swaps = ports("8080", "9090", "6380", "4180", "8000", "8082")
    command = "oauth2-proxy" if kind == "oauth2-proxy" else "python -m tests.guides.oauth2_proxy"
    with (
        mirror(int(swaps["8082"])) as served,
        terminal({**swaps, "https://idp.example.com/realms/main": idp.name}) as running,
    ):
        served.update(files or {})
        running.run(_REDIS)
        running.run(
            "export TOKENGATE_TOKENS__LEEWAY=1s"
        )  # a store that begins is settled in two seconds, not in twenty
        running.play(commands("docs/migrate/oauth2-proxy.md"))
        # the minutes of the page are a second here
        running.run(f"{command} --config oauth2-proxy.cfg --cookie-refresh 1s >oauth2-proxy.log 2>&1 &")
        begin_nginx(running, "side-by-side.conf")
        for name in ("4180", "8000"):
            wait_for(swaps[name])
        until(lambda: passes(running, idp.signed({"aud": API})), "tokens are younger than the store")
        yield running


@contextmanager
def supertokens_site(core: SuperTokens) -> Iterator[Terminal]:
    """Run docs/migrate/supertokens.md."""
    swaps = {**ports("8080", "9090", "6380", "8000", "8001"), "3001": str(core.server_port)}
    with terminal({**swaps, "3567": str(core.server_port)}) as running:
        running.run(_REDIS)
        running.run(
            "export TOKENGATE_TOKENS__LEEWAY=1s"
        )  # a store that begins is settled in two seconds, not in twenty
        running.run(f"export TOKENGATE_MANAGEMENT__ADMIN_TOKEN={ADMIN_TOKEN}")
        running.play(commands("docs/migrate/supertokens.md"))
        begin_nginx(running, "side-by-side.conf")
        for name in ("8000", "8001"):
            wait_for(swaps[name])
        until(lambda: passes(running, core.token()), "tokens are younger than the store")
        yield running
