"""Forward-auth with the real nginx, HAProxy, Caddy, Envoy and Traefik, configured as config/examples/ has it.

Two gateways share a Redis; nginx, Caddy and Traefik ask the first, HAProxy and Envoy the second. What reaches the
backend has been recorded by the time its answer is here.
"""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Iterator

import pytest

from gateway.api.verify import OVERRIDES
from gateway.gate import WEBSOCKET
from tests.e2e.backends import Call, raw
from tests.e2e.forward_auth_attacks import FORGED, HOSTS, ODD, ORACLES, REFUSED, SPOOFED, TRICKS, expired
from tests.e2e.forward_auth_parts import ROUTES, TRUSTED, Front, Recorder, identity, readings, recorder
from tests.e2e.forward_auth_proxies import EXAMPLES, KINDS, FrontProxy, front_proxy, installed, need
from tests.e2e.harness import Gateway, Site
from tests.e2e.wire import Client, WireError, ask, json_request, request
from tests.redis_server import RedisServer, free_port

# Where a proxy sends what is named and nothing else.
LISTS = (
    "config/examples/envoy/envoy.yaml",
    "config/examples/haproxy/tokengate.lua",
    "k8s/components/forward-auth-envoy-gateway/securitypolicy.yaml",
    "k8s/components/forward-auth-istio/istiod-values.yaml",
    "k8s/components/forward-auth-traefik/middleware.yaml",
)


@pytest.fixture(scope="module")
def recording() -> Iterator[Recorder]:
    with recorder() as made:
        yield made


@pytest.fixture(scope="module")
def replicas(site: Site) -> Iterator[list[Gateway]]:
    with (
        site.serve(routes=ROUTES, server=TRUSTED) as first,
        site.serve(routes=ROUTES, server=TRUSTED) as second,
    ):
        yield [first, second]


@pytest.fixture(params=installed(), scope="module")
def kind(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    need(name)
    return name


@pytest.fixture(scope="module")
def shared_front(kind: str, replicas: list[Gateway], recording: Recorder) -> Iterator[Front]:
    number = list(KINDS).index(kind) % 2
    gateway, other = replicas[number], replicas[1 - number]
    with front_proxy(kind, gateway.port, recording.port) as proxy:
        yield Front(proxy, gateway, other, recording)


@pytest.fixture
def front(shared_front: Front) -> Front:
    shared_front.backend.fresh()
    return shared_front


# --- what passes ---


def test_an_allowed_request_reaches_the_backend_as_it_came_and_with_its_identity(front: Front) -> None:
    headers = {"X-Own": "kept", "Cookie": "theme=dark"}
    target = "/guarded/a%2Fb/c?roles=nobody&x=%20"
    answer = front.ask(request("POST", target, headers, b"some body", front.gateway.token))
    assert answer.status == 200
    call = front.backend.only()
    assert (call.method, call.target, call.raw_body) == ("POST", target, b"some body")
    assert (call.get("x-own"), call.get("cookie")) == ("kept", "theme=dark")
    told = identity(call)
    assert len(told.pop("x-auth-request-session")) == 23
    assert told == {"x-auth-request-user": "u-alice", "x-auth-request-groups": "user,admin"}


def test_a_chunked_body_reaches_the_backend_whole(front: Front) -> None:
    body = b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
    head = request("POST", "/guarded/x", {"Transfer-Encoding": "chunked"}, token=front.gateway.token)
    bodies: list[bytes] = []

    def behaviour(call: Call) -> None:
        bodies.append(call.body())
        call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    front.backend.fresh(behaviour)
    assert front.ask(head + body).status == 200
    assert bodies == [b"hello!"]


def test_a_public_route_passes_without_an_identity(front: Front) -> None:
    for token in ("", front.gateway.token):
        assert front.get("/public/x", token=token).status == 200
        assert identity(front.backend.only()) == {}


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "500 Internal Server Error", "404 Not Found"])
def test_the_backends_own_refusal_reaches_the_client_as_it_is(front: Front, status: str) -> None:
    front.backend.fresh(lambda call: call.reply(b"mine", status, b"WWW-Authenticate: Digest realm=own\r\n"))
    answer = front.get("/guarded/x", token=front.gateway.token)
    assert (answer.status, answer.body) == (int(status[:3]), b"mine")
    assert answer.get("www-authenticate") == "Digest realm=own"
    assert answer.get("x-gateway-error") == ""


def test_sign_in_and_the_keys_are_served_through_the_proxy(front: Front) -> None:
    answer = front.ask(json_request("POST", "/auth/login", {"username": "bob", "password": "correct horse"}))
    assert answer.status == 200
    token = answer.json()["access_token"]
    assert front.get("/auth/me", token=token).json()["sub"] == "u-bob"
    assert front.get("/.well-known/jwks.json").json()["keys"]
    assert front.backend.calls == []
    assert front.get("/guarded/x", token=token).status == 200


def test_an_upgrade_is_checked_and_reaches_the_backend_with_its_identity(front: Front) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 1.3, and HAProxy checks the answer to it
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    switch += b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nfirst"
    front.backend.fresh(lambda call: call.send(switch))
    assert front.get("/guarded/x", headers).status == 401
    assert front.backend.calls == []
    with Client(front.proxy.port) as client:
        client.send(request("GET", "/guarded/x", headers, token=front.gateway.token))
        assert client.head().status == 101
        assert b"".join(client._exactly(5)) == b"first"
    call = front.backend.only()
    assert call.get("connection").lower() == "upgrade"
    assert identity(call)["x-auth-request-user"] == "u-alice"


# --- whose identity it is ---


@pytest.mark.parametrize("name", SPOOFED)
@pytest.mark.parametrize("path", ["/guarded/x", "/public/x"])
def test_a_clients_own_identity_headers_never_reach_the_backend(front: Front, name: str, path: str) -> None:
    data = request("GET", path, [(name, "root"), ("X-Between", "1"), (name, "root")], token=front.gateway.token)
    answer = front.ask(data)
    assert answer.status == 200
    assert b"root" not in front.backend.only().head


@pytest.mark.parametrize("named", ["X-Auth-Request-User", "close, x-auth-request-groups", "Authorization", "Cookie"])
def test_a_client_cannot_have_the_identity_removed_by_naming_it_in_connection(front: Front, named: str) -> None:
    answer = front.get("/guarded/x", {"Connection": named}, front.gateway.token)
    assert answer.status in (200, 400, 401)
    for call in front.backend.calls:
        assert identity(call)["x-auth-request-user"] == "u-alice"
        assert call.get("connection").lower() in ("", "close", "keep-alive")


# --- what is refused ---


@pytest.mark.parametrize("code", REFUSED)
def test_the_gateways_own_refusal_reaches_the_client(front: Front, code: str) -> None:
    make, method, path, status, challenge = REFUSED[code]
    answer = front.ask(request(method, path, {"X-Auth-Request-User": "root"}, token=make(front)))
    assert (answer.status, answer.get("x-gateway-error")) == (status, code)
    assert answer.json()["error"] == code
    assert answer.get("www-authenticate") == challenge
    assert answer.get("cache-control") == "no-store"
    assert answer.get("allow") == ("GET" if status == 405 else "")
    assert front.backend.calls == []


def test_a_refused_request_with_a_body_leaves_its_connection_usable_or_closed(front: Front) -> None:
    with Client(front.proxy.port) as client:
        smuggled = request("GET", "/public/smuggled")
        refused = client.ask(request("POST", "/guarded/x", {}, smuggled))
        assert refused.status == 401
        try:
            answer = client.ask(request("GET", "/guarded/y", token=front.gateway.token))
        except (WireError, OSError):
            answer = None
    assert answer is None or answer.status == 200
    assert [call.target for call in front.backend.calls] == (["/guarded/y"] if answer else [])


def test_the_role_of_the_matched_route_is_asked_for(front: Front) -> None:
    guest = front.gateway.login("bob")["access_token"]
    for path in ("/admin/x", "/admin/x?roles=guest", "/admin", "/public/../admin/x", "/%61dmin/x"):
        assert front.get(path, token=guest).status in (400, 403, 404), path
        assert front.backend.calls == []
    assert front.get("/admin/x", token=front.gateway.token).status == 200


@pytest.mark.parametrize("second", ["Authorization", "AUTHORIZATION"])
def test_two_credentials_are_none(front: Front, second: str) -> None:
    headers = [(second, f"Bearer {expired(front)}")]
    answer = front.ask(request("GET", "/guarded/x", headers, token=front.gateway.token))
    assert answer.status in (400, 401)
    assert front.backend.calls == []


@pytest.mark.parametrize("headers", FORGED, ids=",".join)
def test_a_client_cannot_name_the_request_that_the_gateway_is_asked_about(
    front: Front, headers: dict[str, str]
) -> None:
    assert front.get("/admin/x", headers).status in (400, 401)
    assert front.backend.calls == []
    assert front.get("/admin/x", headers, front.gateway.login("bob")["access_token"]).status in (400, 403)
    assert front.backend.calls == []


@pytest.mark.parametrize("headers", HOSTS, ids=lambda pairs: ",".join(f"{name}={value}" for name, value in pairs))
def test_the_rule_of_the_requests_own_host_holds(front: Front, headers: list[tuple[str, str]]) -> None:
    for token, statuses in (("", (400, 401)), (front.gateway.token, (400, 403))):
        assert front.ask(request("GET", "/tenant/x", headers, token=token)).status in statuses
        assert front.backend.calls == []
    assert front.get("/tenant/x").status == 200  # as it does at any other host


def test_the_host_of_a_target_in_absolute_form_is_the_one_that_the_backend_gets(front: Front) -> None:
    """RFC 9112 3.2.2: it counts, and `Host` does not."""
    answer = front.get("http://tenant.test/tenant/x", {"Host": "gateway.test"})
    assert answer.status >= 400 or front.backend.only().get("host") == "gateway.test"
    assert front.get("http://tenant.test/tenant/x", {"Host": "tenant.test"}).status in (400, 401)
    assert front.backend.calls == []


@pytest.mark.parametrize("target", TRICKS)
def test_no_reading_of_a_path_passes_under_another_routes_rule(front: Front, target: str) -> None:
    """Anonymous, so only what is public in every reading may reach the backend."""
    try:
        answer = front.get(target)
    except (WireError, OSError):
        answer = None  # refused by an answer that is not HTTP/1.1, or by none
    for call in front.backend.calls:
        path = call.target.partition("?")[0].partition("#")[0]
        wrong = {reading for reading in readings(path) if not (reading + "/").startswith("/public/")}
        assert not wrong, f"{call.target} reached the backend"
    assert front.backend.calls or answer is None or answer.status >= 400


@pytest.mark.parametrize("path", ORACLES)
def test_the_question_itself_is_not_served_to_clients(front: Front, path: str) -> None:
    forged = {"X-Original-Method": "GET", "X-Original-URI": "/public/x"}
    for headers in ({}, forged):
        assert front.get(path, headers).status in (400, 401, 404)
        assert front.backend.calls == []


# --- revocation ---


@pytest.mark.parametrize("end", ["logout", "everywhere", "token"])
def test_a_revoke_on_one_replica_holds_at_the_next_request_through_the_other_replicas_proxy(
    front: Front, end: str
) -> None:
    token = front.gateway.login("carol")["access_token"]
    ends = {
        "logout": request("POST", "/auth/logout", {"Content-Length": "0"}, token=token),
        "everywhere": request("DELETE", "/auth/sessions", token=front.other.login("carol")["access_token"]),
        "token": request(
            "POST",
            "/auth/revoke",
            {"Content-Type": "application/x-www-form-urlencoded"},
            f"token={token}".encode(),
        ),
    }
    data = request("GET", "/guarded/x", token=token)
    with Client(front.proxy.port) as client:
        assert [client.ask(data).status for _ in range(3)] == [200, 200, 200]
        assert ask(front.other.port, ends[end]).status in (200, 204)
        front.backend.fresh()
        answer = client.ask(data)
    assert (answer.status, answer.get("x-gateway-error")) == (401, "revoked_token")
    assert front.backend.calls == []


# --- nobody to ask ---


def test_with_the_gateway_gone_nothing_passes(kind: str, site: Site, recording: Recorder) -> None:
    with site.serve(routes=ROUTES, server=TRUSTED) as gateway, front_proxy(kind, gateway.port, recording.port) as proxy:
        token = gateway.token
        front = Front(proxy, gateway, gateway, recording.fresh())
        assert front.get("/guarded/x", token=token).status == 200
        gateway.stop()
        for path in ("/guarded/x", "/public/x", "/elsewhere"):
            answer = front.get(path, {"X-Auth-Request-User": "root"}, token)
            assert answer.status in KINDS[kind].gone
            assert answer.status == 500 or int(answer.get("retry-after")) >= 1
            assert answer.get("x-gateway-error") == ""
            assert recording.calls == []


def test_with_nothing_at_the_gateways_address_nothing_passes(kind: str, recording: Recorder) -> None:
    with front_proxy(kind, free_port(), recording.fresh().port) as proxy:
        for path in ("/guarded/x", "/public/x"):
            assert ask(proxy.port, request("GET", path)).status in KINDS[kind].gone
        assert recording.calls == []


def test_without_redis_the_client_is_told_to_come_again_and_keeps_its_token(
    kind: str, own_redis: RedisServer, recording: Recorder
) -> None:
    with (
        Site(own_redis.url) as site,
        site.serve(routes=ROUTES, server=TRUSTED) as gateway,
        front_proxy(kind, gateway.port, recording.fresh().port) as proxy,
    ):
        token = gateway.token
        own_redis.stop()
        answer = ask(proxy.port, request("GET", "/guarded/x", token=token))
        assert answer.status == 503
        assert int(answer.get("retry-after")) >= 1
        assert answer.all("www-authenticate") == []
        if kind != "envoy":  # to ext_authz a 5xx is an error of its own and has no text
            assert answer.get("x-gateway-error") == "store_unavailable"
        assert recording.calls == []
        assert ask(proxy.port, request("GET", "/public/x")).status == 200  # what needs no session is served


@pytest.fixture(scope="module")
def impostor(kind: str, recording: Recorder) -> Iterator[tuple[FrontProxy, Recorder]]:
    """A proxy whose gateway is the test's own."""
    with recorder() as gateway, front_proxy(kind, gateway.port, recording.port) as proxy:
        yield proxy, gateway


@pytest.mark.parametrize("odd", ODD)
def test_an_answer_that_is_not_the_gateways_consent_is_a_refusal(
    impostor: tuple[FrontProxy, Recorder], recording: Recorder, odd: str
) -> None:
    proxy, gateway = impostor
    patience = KINDS[proxy.name].patience
    recording.fresh()
    gateway.fresh(ODD[odd])
    started = time.monotonic()
    with Client(proxy.port, timeout=patience + 5) as client:
        answer = client.ask(request("GET", "/guarded/x", {"X-Auth-Request-User": "root"}))
    assert answer.status >= 300
    assert time.monotonic() - started < patience
    assert recording.calls == []


def test_an_identity_header_that_the_gateway_leaves_out_is_not_the_clients(
    impostor: tuple[FrontProxy, Recorder], recording: Recorder
) -> None:
    """An older or differently configured gateway sends fewer of them, and no blank ones."""
    proxy, gateway = impostor
    recording.fresh()
    gateway.fresh(raw(b"HTTP/1.1 200 OK\r\nX-Auth-Request-User: u-1\r\nContent-Length: 0\r\n\r\n"))
    headers = dict.fromkeys(("X-Auth-Request-User", "X-Auth-Request-Groups", "X_Auth_Request_Email"), "root")
    assert ask(proxy.port, request("GET", "/guarded/x", headers)).status == 200
    assert identity(recording.only())["x-auth-request-user"] == "u-1"
    assert b"root" not in recording.only().head  # Caddy 2.6 sends the name of its own placeholder


# --- the question ---


def test_the_gateway_is_asked_without_the_body_and_told_who_the_client_is(
    impostor: tuple[FrontProxy, Recorder], recording: Recorder
) -> None:
    proxy, gateway = impostor
    recording.fresh()
    gateway.fresh()
    credentials = {"Authorization": "Bearer x", "Cookie": "a=b", "Origin": "https://x.test", "Sec-Fetch-Site": "none"}
    spoofed = {"X-Forwarded-For": "203.0.113.9", "X-Original-Method": "GET", "X_Forwarded_For": "203.0.113.9"}
    assert ask(proxy.port, request("PUT", "/guarded/x?y", credentials | spoofed, b"body" * 1000)).status == 200
    call = gateway.only()
    assert call.raw_body == b""
    assert {name: call.get(name) for name in credentials} == credentials
    assert "203.0.113.9" not in call.get("x-forwarded-for")
    assert call.all("x_forwarded_for") == []
    assert recording.only().raw_body == b"body" * 1000


def test_the_gateway_is_told_of_a_websocket_and_of_another_method_in_a_header(
    impostor: tuple[FrontProxy, Recorder], recording: Recorder
) -> None:
    """Or another origin's WebSocket passes with the access cookie, and a DELETE where only GET may."""
    proxy, gateway = impostor
    recording.fresh()
    gateway.fresh(raw(b"HTTP/1.1 403 Forbidden\r\nX-Gateway-Error: csrf_rejected\r\nContent-Length: 0\r\n\r\n"))
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    overrides = dict.fromkeys(("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"), "DELETE")
    assert ask(proxy.port, request("GET", "/reading/x", upgrade | overrides)).status == 403
    call = gateway.only()
    assert (call.get("sec-websocket-key"), call.get("sec-websocket-version")) == ("dGhlIHNhbXBsZSBub25jZQ==", "13")
    assert {name: call.get(name) for name in overrides} == overrides


@pytest.mark.parametrize("path", LISTS)
def test_every_list_of_what_verify_is_told_has_all_that_it_judges_a_request_by(path: str) -> None:
    words = set(re.findall(r"[\w-]+", (EXAMPLES.parents[1] / path).read_text().lower()))
    judged = {"authorization", "cookie", "origin", "sec-fetch-site"}
    assert judged | {name.decode() for name in (*WEBSOCKET, *OVERRIDES)} - {"upgrade"} <= words


def test_the_examples_copy_every_identity_header_that_the_sample_configuration_names() -> None:
    sample = (EXAMPLES.parent / "gateway.toml").read_text()
    names = list(tomllib.loads(sample)["identity_headers"])
    assert len(names) == 4
    for kind in KINDS.values():
        text = (EXAMPLES / kind.example).read_text().lower()
        assert all(name.lower() in text for name in names), kind.example
