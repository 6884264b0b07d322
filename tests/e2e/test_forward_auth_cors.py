"""Pages of other origins behind the real nginx, HAProxy, Caddy, Envoy and Traefik: docs/forward-auth.md, "CORS"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.cors import ASKS, PAGE, assert_granted, assert_readable, from_page, said
from tests.e2e.forward_auth_parts import ROUTES, TRUSTED, Recorder, recorder
from tests.e2e.forward_auth_proxies import KINDS, front_proxy, installed, need
from tests.e2e.harness import Gateway, Site
from tests.e2e.wire import ask

# What the page says to put in, as texts of the examples and what takes their place.
OPTIONS = {
    "nginx": {
        "        auth_request /tokengate-verify;": "if ($request_method = OPTIONS) { return 204; }\n"
        "auth_request /tokengate-verify;",
    },
    "haproxy": {
        "    http-request lua.tokengate unless": "    http-request return status 204 if METH_OPTIONS !tokengates_own\n"
        "    http-request lua.tokengate unless",
    },
    "caddy": {"forward_auth ": "@options method OPTIONS\nrespond @options 204\nforward_auth "},
    "traefik": {
        "[no-pretence, tokengate]": "[no-pretence, cors, tokengate]",
        "    tokengate:\n      forwardAuth:": "    cors: { headers: { accessControlAllowMethods: [PUT], "
        f"accessControlAllowOriginList: [{PAGE}] }} }}\n    tokengate:\n      forwardAuth:",
    },
}


@pytest.fixture(scope="module")
def recording() -> Iterator[Recorder]:
    with recorder() as made:
        yield made


@pytest.fixture(scope="module")
def asked(site: Site) -> Iterator[Gateway]:
    cors = {"allow_origins": [PAGE], "expose_headers": ["X-Total"]}
    with site.serve(routes=ROUTES, server=TRUSTED, cors=cors) as made:
        yield made


@pytest.fixture(params=installed())
def kind(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    need(name)
    return name


def test_no_preflight_passes_to_a_backend_and_the_api_grants_its_own(
    kind: str, asked: Gateway, recording: Recorder
) -> None:
    recording.fresh()
    with front_proxy(kind, asked.port, recording.port) as proxy:
        answer = ask(proxy.port, from_page("OPTIONS", "/guarded/x", more=ASKS))
        assert (answer.status, answer.get("x-gateway-error")) == (401, "missing_token")
        assert recording.calls == []
        assert_granted(ask(proxy.port, from_page("OPTIONS", "/auth/token", more=ASKS)))
        assert_readable(ask(proxy.port, from_page("GET", "/auth/me", token=asked.token)))
        refused = ask(proxy.port, from_page("GET", "/guarded/x"))
        if kind in ("caddy", "envoy", "traefik"):
            assert_readable(refused)
        else:  # the proxy's own text: what it says of CORS is the proxy's, too
            assert said(refused) == {}
        assert ask(proxy.port, from_page("GET", "/guarded/x", token=asked.token)).status == 200
        assert said(ask(proxy.port, from_page("GET", "/guarded/x", token=asked.token))) == {}


@pytest.mark.parametrize("name", [name for name in installed() if name in OPTIONS])
def test_what_the_page_names_answers_preflights_before_anyone_is_asked(
    name: str, asked: Gateway, recording: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(name)
    wrap = KINDS[name].wrap

    def with_cors(text: str, directory: Path) -> str:
        for old, new in OPTIONS[name].items():
            assert old in text
            text = text.replace(old, new)
        return wrap(text, directory)

    monkeypatch.setitem(KINDS, name, replace(KINDS[name], wrap=with_cors))
    recording.fresh()
    with front_proxy(name, asked.port, recording.port) as proxy:
        assert ask(proxy.port, from_page("OPTIONS", "/guarded/x", more=ASKS)).status in (200, 204)
        assert recording.calls == []
        assert_granted(ask(proxy.port, from_page("OPTIONS", "/auth/token", more=ASKS)))
        refused = ask(proxy.port, from_page("GET", "/guarded/x"))
        assert refused.status == 401
        assert len(refused.all("access-control-allow-origin")) <= 1
        assert ask(proxy.port, from_page("GET", "/guarded/x", token=asked.token)).status == 200
