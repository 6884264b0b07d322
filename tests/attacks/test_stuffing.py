"""Guessing: who may try how often, from where, and what the answers give away (OWASP ASVS 2.2.1, RFC 6819 4.4.3)."""

from __future__ import annotations

import secrets
import unicodedata

import pytest
import redis

from gateway.identity.counted import alike, network
from tests.attacks.support import address, attempt
from tests.e2e.backends import Backend
from tests.e2e.harness import PASSWORD, Gateway, Site, route
from tests.e2e.wire import Answer, ask, request

PER_USER, PER_ADDRESS, PER_SESSION = 3, 4, 3  # of `twins`: so few that none comes back while a test runs
Twins = tuple[Gateway, Gateway]


def outcome(answer: Answer) -> tuple[int, str]:
    if answer.status == 429:
        assert 1 <= int(answer.get("retry-after")) <= 60
    return answer.error if answer.status != 200 else (200, "")


def everything(answer: Answer) -> tuple[int, list[tuple[str, str]], bytes]:
    """All that a guesser sees, but for the time."""
    return answer.status, [header for header in answer.headers if header[0] not in ("date", "retry-after")], answer.body


def nobody() -> str:
    return f"nobody-{secrets.token_hex(6)}"


def forget(twins: Twins) -> None:
    """Give every user and address a full allowance again."""
    with redis.Redis.from_url(twins[0].site.redis_url) as client:
        for key in client.scan_iter(f"{twins[0].site.prefix}:*:attempt:*", count=1000):
            client.delete(key)


# --- enumeration ---


@pytest.mark.parametrize("user", ["alice", "bob", "odd"])
def test_an_unknown_name_is_answered_like_a_wrong_password_header_for_header(fortress: Gateway, user: str) -> None:
    known, unknown = (everything(attempt(fortress, name)) for name in (user, nobody()))
    assert known == unknown
    assert known[0] == 401


@pytest.mark.parametrize("password", ["", " ", "x" * 1024, "x" * 1025, "\x00", "\u00e9" * 600, "\ud83d\ude00"])
def test_an_odd_password_is_answered_alike_for_known_and_unknown_names(fortress: Gateway, password: str) -> None:
    known, unknown = (everything(attempt(fortress, name, password)) for name in ("alice", nobody()))
    assert known == unknown
    assert known[0] in (400, 401)


def test_a_limit_is_reached_alike_by_known_and_unknown_names(twins: Twins) -> None:
    forget(twins)
    seen = [[outcome(attempt(twins[0], name, forwarded=address())) for _ in range(8)] for name in ("carol", nobody())]
    assert seen[0] == seen[1] == [(401, "invalid_credentials")] * PER_USER + [(429, "too_many_attempts")] * 5


# --- many addresses, one user ---


def test_one_user_is_guessed_no_oftener_from_many_addresses_over_all_replicas(twins: Twins) -> None:
    user = nobody()
    seen = [outcome(attempt(twins[number % 2], user, forwarded=address())) for number in range(20)]
    assert seen.count((401, "invalid_credentials")) == PER_USER
    assert seen[-1] == (429, "too_many_attempts")


def test_the_right_password_does_not_show_once_the_limit_is_reached(twins: Twins) -> None:
    """Or a guesser who ignores the limit would still learn when a guess is right."""
    forget(twins)
    for _ in range(PER_USER):
        attempt(twins[0], "bob", forwarded=address())
    wrong, right = (everything(attempt(twins[1], "bob", word, address())) for word in ("wrong", PASSWORD))
    assert wrong == right
    assert wrong[0] == 429


def test_a_user_under_attack_keeps_the_sessions_they_have_and_waits_seconds_for_a_new_one(twins: Twins) -> None:
    """What the limit costs its owner: a new sign-in waits for a place, one every 60 / limit seconds; nothing else."""
    forget(twins)
    mine = twins[0].login("bob")
    for _ in range(30):
        attempt(twins[0], "bob", forwarded=address())
    assert ask(twins[1].port, request("GET", "/auth/me", token=mine["access_token"])).status == 200
    assert twins[1].refresh(mine["refresh_token"]).status == 200
    refused = attempt(twins[1], "bob", PASSWORD, address())
    assert refused.status == 429
    assert int(refused.get("retry-after")) <= 60 // PER_USER  # and refused attempts do not prolong it


SPELLINGS = [
    "carol",
    "CAROL",
    "Carol",
    " carol",
    "carol ",
    "\uff43arol",
    "c\u00e1rol",
    "ca\u0301rol",
    "car\u00adol",
    "ca\u200brol",
]


def test_a_user_is_one_user_in_every_spelling_that_a_provider_may_take_for_the_same(twins: Twins) -> None:
    """Databases compare without case, width and accents, and pass over what is not seen."""
    forget(twins)
    seen = [outcome(attempt(twins[0], spelling, forwarded=address())) for spelling in SPELLINGS]
    assert seen.count((401, "invalid_credentials")) == PER_USER
    assert seen[PER_USER:] == [(429, "too_many_attempts")] * (len(SPELLINGS) - PER_USER)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("stra\u00dfe", "STRASSE"),
        ("\u0130stanbul", "istanbul"),
        ("\u212aelvin", "kelvin"),  # the sign of the unit
        ("\ufb01nn", "finn"),
        ("jos\u00e9", unicodedata.normalize("NFD", "Jos\u00c9")),
        ("\u0419", "\u0438\u0306"),
        ("\u00e5\u0301", "A\u030a\u0301"),
    ],
)
def test_spellings_of_one_name_share_a_limit(one: str, other: str) -> None:
    assert alike(one) == alike(other)


@pytest.mark.parametrize(
    ("one", "other"), [("alice", "alicia"), ("a b", "ab"), ("\u0915\u093f", "\u0915"), ("a", "\u0430")]
)
def test_names_that_no_provider_takes_for_one_do_not_share_a_limit(one: str, other: str) -> None:
    assert alike(one) != alike(other)


# --- one address, many users ---


def test_one_address_tries_no_oftener_with_many_users_over_all_replicas(twins: Twins) -> None:
    here = address()
    seen = [outcome(attempt(twins[number % 2], nobody(), forwarded=here)) for number in range(20)]
    assert seen.count((401, "invalid_credentials")) == PER_ADDRESS
    assert outcome(attempt(twins[0], nobody(), forwarded=address())) == (401, "invalid_credentials")


def test_an_address_over_its_limit_uses_up_nobodys_allowance(twins: Twins) -> None:
    here, user = address(), nobody()
    for _ in range(PER_ADDRESS):
        attempt(twins[0], nobody(), forwarded=here)
    for _ in range(PER_USER + 1):
        assert attempt(twins[0], user, forwarded=here).status == 429
    assert outcome(attempt(twins[0], user, forwarded=address())) == (401, "invalid_credentials")


def test_a_network_of_ipv6_is_one_address(twins: Twins) -> None:
    """One customer has a /64, and so 2**64 addresses to guess from."""
    prefix = f"2001:db8:{secrets.randbits(16):x}:{secrets.randbits(16):x}"
    seen = [outcome(attempt(twins[0], nobody(), forwarded=f"{prefix}:{n:x}::{n:x}")) for n in range(1, 16)]
    assert seen.count((401, "invalid_credentials")) == PER_ADDRESS
    assert network("::ffff:192.0.2.1") == network("192.0.2.1")
    assert network(f"{prefix}::1%eth0") == network(f"{prefix}::2")


@pytest.mark.parametrize(
    "said",
    [
        "6.6.6.@, {}",  # what the client itself had sent stands to the left
        "6.6.6.@, {}, 10.0.0.5",
        "6.6.6.@, 10.9.9.@, {}",
        "unknown, 6.6.6.@, {}, 10.0.0.5, 127.0.0.1",
        "{},",
    ],
)
def test_a_client_behind_a_trusted_proxy_cannot_choose_the_address_that_is_counted(twins: Twins, said: str) -> None:
    here = address()
    seen = [attempt(twins[0], nobody(), forwarded=said.replace("@", str(n)).format(here)) for n in range(14)]
    assert [answer.status for answer in seen].count(401) == PER_ADDRESS


def test_whoever_is_not_trusted_is_counted_by_the_connection_whatever_it_says(site: Site, backend: Backend) -> None:
    limits = {"login_per_user": 0, "login_per_ip": 3}
    store = {"url": site.redis_url, "prefix": f"xff{secrets.token_hex(4)}"}
    headers = ["X-Forwarded-For", "X_Forwarded_For", "Forwarded", "X-Real-IP", "X-Client-IP", "Client-IP"]
    with site.serve(routes=[route("/guarded/", backend.url)], limits=limits, redis=store) as gateway:
        seen = []
        for number, header in enumerate(headers):
            given = {"Content-Type": "application/json", header: f"6.6.6.{number}"}
            body = b'{"username":"nobody","password":"x"}'
            seen.append(ask(gateway.port, request("POST", "/auth/login", given, body)).status)
    assert seen == [401] * 3 + [429] * 3


# --- other things to guess ---


def test_refreshes_of_one_session_are_limited_over_all_replicas_and_end_nothing(twins: Twins) -> None:
    forget(twins)
    token = twins[0].login("bob")["refresh_token"]
    seen = []
    for number in range(PER_SESSION + 3):
        answer = twins[number % 2].refresh(token)
        seen.append(outcome(answer))
        token = answer.json().get("refresh_token", token)
    assert seen == [(200, "")] * PER_SESSION + [(429, "too_many_attempts")] * 3


def test_forged_refresh_tokens_count_against_nobody(twins: Twins) -> None:
    """They are refused by their signature, before the session that they name is looked at."""
    forget(twins)
    token = twins[0].login("bob")["refresh_token"]
    forged = token[:-6] + ("AAAAAA" if not token.endswith("AAAAAA") else "BBBBBB")
    assert [twins[0].refresh(forged).error for _ in range(PER_SESSION + 3)] == [(400, "invalid_grant")] * 6
    assert twins[0].refresh(token).status == 200
