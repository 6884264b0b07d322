"""TOKENGATE_* variables, laid over the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings import SettingsError, load
from tests.settings.support import refused

FILE = """
[tokens]
issuer = "https://api.example.com"
audience = "api"
access_ttl = "1m"

[identity]
webhook_url = "http://accounts:8080/login"

[redis]
url = "redis://file:6379"

[[routes]]
path = "/a/"
upstream = ["http://a:1"]

[[routes]]
path = "/b/"
upstream = ["http://b:1"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.toml"
    file.write_text(FILE)
    return file


def test_a_variable_wins_over_the_file(path: Path) -> None:
    settings = load(path, {"TOKENGATE_TOKENS__ACCESS_TTL": "5m", "TOKENGATE_SERVER__WORKERS": "3"})
    assert (settings.tokens.access_ttl, settings.server.workers, settings.tokens.audience) == (300, 3, "api")


def test_case_does_not_count_in_a_variable(path: Path) -> None:
    assert load(path, {"tokengate_tokens__Access_TTL": "5m"}).tokens.access_ttl == 300


def test_a_list_is_words_between_commas_or_json(path: Path) -> None:
    for text in ("10.0.0.0/8, ::1", '["10.0.0.0/8", "::1"]'):
        networks = load(path, {"TOKENGATE_SERVER__TRUSTED_PROXIES": text}).server.trusted_proxies
        assert [str(network) for network in networks] == ["10.0.0.0/8", "::1/128"]


def test_one_key_of_one_route_can_be_set(path: Path) -> None:
    routes = load(path, {"TOKENGATE_ROUTES__1__UPSTREAM": "http://c:1,http://d:1"}).routes
    assert [str(origin) for origin in routes[1].upstream] == ["http://c:1", "http://d:1"]
    assert [str(origin) for origin in routes[0].upstream] == ["http://a:1"]


def test_a_route_can_be_added(path: Path) -> None:
    added = {"TOKENGATE_ROUTES__2__PATH": "/c/", "TOKENGATE_ROUTES__2__UPSTREAM": "http://c:1"}
    assert [route.path for route in load(path, added).routes] == ["/a/", "/b/", "/c/"]


def test_all_routes_can_be_given_as_json_and_one_key_beside(path: Path) -> None:
    given = {
        "TOKENGATE_ROUTES": '[{"path": "/c/", "upstream": ["http://c:1"]}]',
        "TOKENGATE_ROUTES__0__AUTH": "optional",
    }
    routes = load(path, given).routes
    assert [(route.path, route.auth) for route in routes] == [("/c/", "optional")]


def test_one_identity_header_can_be_set_and_the_others_stay(path: Path) -> None:
    headers = load(path, {"TOKENGATE_IDENTITY_HEADERS__X_AUTH_REQUEST_USER": "email"}).identity_headers
    assert headers["X-Auth-Request-User"] == "email"
    assert headers["X-Auth-Request-Groups"] == "roles"
    assert len(headers) == 4


def test_a_new_identity_header_has_hyphens(path: Path) -> None:
    assert load(path, {"TOKENGATE_IDENTITY_HEADERS__X_TENANT": "tenant"}).identity_headers["x-tenant"] == "tenant"


def test_a_variable_for_a_secret_takes_the_place_of_the_file_form(path: Path, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("from-the-mount\n")
    secret.chmod(0o600)
    path.write_text(FILE.replace('url = "redis', 'password = "from-the-file"\nurl = "redis'))
    redis = load(path, {"TOKENGATE_REDIS__PASSWORD_FILE": str(secret)}).redis
    assert redis.password.get_secret_value() == "from-the-mount"


@pytest.mark.parametrize(
    "name",
    [
        "TOKENGATE_PORT",
        "TOKENGATE_PORT_8080_TCP",
        "TOKENGATE_PORT_8080_TCP_ADDR",
        "TOKENGATE_SERVICE_HOST",
        "TOKENGATE_SERVICE_PORT",
        "TOKENGATE_SERVICE_PORT_HTTP",
        "TOKENGATE_MANAGEMENT_SERVICE_HOST",
        "TOKENGATE_MANAGEMENT_PORT_9090_TCP_PROTO",
        "TOKENGATE_CONFIG",
        "TOKENGATE_INTERNAL_RUN",
        "TOKENGATED",
        "PATH",
    ],
)
def test_what_kubernetes_and_we_ourselves_set_is_no_key(path: Path, name: str) -> None:
    assert load(path, {name: "tcp://10.0.0.1:8080"}) == load(path, {})


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        (
            "TOKENGATE_TOKNES__ACCESS_TTL",
            "5m",
            "toknes (TOKENGATE_TOKNES__ACCESS_TTL): is not a key; did you mean tokens?",
        ),
        ("TOKENGATE_TOKENS__ACCESS__TTL", "5m", "tokens.access (TOKENGATE_TOKENS__ACCESS__TTL)"),
        ("TOKENGATE_TOKENS_ACCESS_TTL", "5m", "TOKENGATE_TOKENS_ACCESS_TTL: is not JSON"),
        ("TOKENGATE_TOKENS", "5m", "TOKENGATE_TOKENS: is not JSON"),
        ("TOKENGATE_ROUTES__X__PATH", "/", "TOKENGATE_ROUTES__X__PATH: 'x' is not the place of a table"),
        ("TOKENGATE_ROUTES__7__PATH", "/", "TOKENGATE_ROUTES__7__PATH: '7' is not the place of a table"),
        ("TOKENGATE_ROUTES__0", "/", "TOKENGATE_ROUTES__0: names a place"),
        ("TOKENGATE_ROUTES__\x1b[2J\udcff", "/", "TOKENGATE_ROUTES__?[2J?: names a place"),
        ("TOKENGATE_TOKENS__ISSUER__X", "/", "TOKENGATE_TOKENS__ISSUER__X: names a place"),
        ("TOKENGATE_ROUTES__0__UPSTREAM__0__X", "/", "names a place"),
        ("TOKENGATE_", "x", "TOKENGATE_: is not JSON"),
        ("TOKENGATE___A", "x", "is not a key"),
    ],
)
def test_a_variable_that_names_no_key_is_refused(path: Path, name: str, value: str, line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(path, {name: value})
    assert line in caught.value.lines[0]


def test_a_line_names_the_variable_that_it_is_about() -> None:
    assert refused({"TOKENGATE_LOG__LEVEL": "loud"})[0].startswith('log.level (TOKENGATE_LOG__LEVEL): found "loud"')
