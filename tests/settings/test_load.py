"""File, environment and defaults become settings, or lines that name the keys."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.settings import SettingsError, load
from tests.settings.support import GOOD, ROUTE, environ, loaded, refused

MINIMAL = """
[tokens]
issuer = "https://api.example.com"
audience = "api"
[identity]
webhook_url = "http://accounts:8080/login"
"""


def _file(folder: Path, text: str) -> Path:
    path = folder / "gateway.toml"
    path.write_text(text)
    return path


def test_defaults_are_those_of_the_contract() -> None:
    settings = loaded(routes=[ROUTE])
    route = settings.routes[0]
    assert (settings.tokens.access_ttl, settings.tokens.refresh_ttl, settings.tokens.session_ttl) == (
        600,
        30 * 86400,
        180 * 86400,
    )
    assert (settings.server.max_header_bytes, settings.server.max_body_bytes, settings.server.drain_timeout) == (
        32768,
        0,
        25,
    )
    assert settings.redis.url.get_secret_value() == "redis://127.0.0.1:6379/0"
    assert (settings.redis.timeout, settings.redis.on_outage) == (0.25, "deny")
    assert (route.auth, route.revocation, route.on_expired, route.methods) == ("required", "live", "reject", ())
    assert (route.connect_timeout, route.response_timeout, route.idle_timeout) == (2, 30, 300)
    assert settings.identity_headers["X-Auth-Request-Groups"] == "roles"


def test_a_file_is_read(tmp_path: Path) -> None:
    settings = load(_file(tmp_path, MINIMAL), {})
    assert settings.tokens.issuer == "https://api.example.com"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        loaded().tokens.access_ttl = 1.0


def test_settings_can_be_sent_to_another_process() -> None:
    settings = loaded(routes=[ROUTE], server={"trusted_proxies": ["10.0.0.0/8"]})
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_settings_see_no_environment_but_the_one_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENGATE_LOG__LEVEL", "debug")
    monkeypatch.setenv("LOG", '{"level": "debug"}')
    assert loaded().log.level == "info"


def test_what_is_missing_is_named_key_by_key() -> None:
    with pytest.raises(SettingsError) as caught:
        load(None, {})
    assert caught.value.lines == ["tokens.issuer: is missing", "tokens.audience: is missing"]


@pytest.mark.parametrize(
    ("table", "value", "line"),
    [
        (
            "tokens",
            {"access_ttl": "ten"},
            'tokens.access_ttl (TOKENGATE_TOKENS): found "ten"; a duration as in "250ms" "10s" "15m" "12h" "30d"',
        ),
        (
            "tokens",
            {"algorithm": "none"},
            "'ES256', 'ES384', 'EdDSA', 'RS256', 'PS256' or 'HS256' is allowed",
        ),
        ("server", {"workers": 0}, "server.workers (TOKENGATE_SERVER): found 0; 1 or more is allowed"),
        ("server", {"workers": True}, "server.workers (TOKENGATE_SERVER): found true; a whole number is allowed"),
        ("server", {"workers": "two"}, 'server.workers (TOKENGATE_SERVER): found "two"; a whole number is allowed'),
        (
            "server",
            {"header_timeout": "0s"},
            'server.header_timeout (TOKENGATE_SERVER): found "0s"; 1ms to 1d is allowed',
        ),
        ("tokens", {"leeway": "1h"}, 'tokens.leeway (TOKENGATE_TOKENS): found "1h"; 0s to 5m is allowed'),
        ("identity", {"recheck_on_refresh": "maybe"}, "true or false is allowed"),
        ("routes", [{**ROUTE, "upstream": []}], "routes.0.upstream (TOKENGATE_ROUTES): found a list; at least one"),
        ("routes", {"path": "/"}, "routes (TOKENGATE_ROUTES): found a table; a list is allowed"),
        ("limits", 7, "limits (TOKENGATE_LIMITS): found 7; a table is allowed"),
    ],
)
def test_a_bad_value_is_told_in_one_line_with_key_and_what_is_allowed(table: str, value: Any, line: str) -> None:
    told = refused(**{table: value})
    assert len(told) == 1
    assert line in told[0]


@pytest.mark.parametrize(
    ("table", "value", "hint"),
    [
        (
            "tokens",
            {"acces_ttl": "5m"},
            "tokens.acces_ttl (TOKENGATE_TOKENS): is not a key; did you mean tokens.access_ttl?",
        ),
        (
            "server",
            {"access_ttl": "5m"},
            "server.access_ttl (TOKENGATE_SERVER): is not a key; did you mean tokens.access_ttl?",
        ),
        (
            "routes",
            [{**ROUTE, "methds": []}],
            "routes.0.methds (TOKENGATE_ROUTES): is not a key; did you mean routes.0.methods?",
        ),
        ("rediss", {}, "rediss (TOKENGATE_REDISS): is not a key; did you mean redis?"),
        ("cookies", {"zzz": 1}, "cookies.zzz (TOKENGATE_COOKIES): is not a key; refresh, access, allow_same_site are"),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(table: str, value: Any, hint: str) -> None:
    assert refused(**{table: value}) == [hint]


@pytest.mark.parametrize("name", ["_env_file", "_cli_parse_args", "__pydantic_self__", "_secrets_dir"])
def test_a_key_cannot_reach_the_options_of_the_library(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(_file(tmp_path, f"{name} = true\n{MINIMAL}"), {})
    assert caught.value.lines == [f"{name}: is not a key"]


def test_every_problem_is_told_at_once() -> None:
    assert len(refused(server={"workers": 0, "bind": "x"}, log={"level": "loud"}, zzz={})) == 4


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[tokens\n", "is not TOML: it cannot be read at line 1"),
        ('password = "hunter2\n', "is not TOML"),
        ("a = " + "[" * 20000, "is not TOML: it is nested too deep"),
        ("a = " + "9" * 5000, "is not TOML: a number is too long"),  # int() refuses it by a plain ValueError
    ],
)
def test_a_file_that_is_not_toml_is_told_with_its_place_but_not_its_text(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(_file(tmp_path, text), {})
    assert len(caught.value.lines) == 1
    assert line in caught.value.lines[0]
    assert "hunter2" not in caught.value.lines[0]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r'configuration file: ".*nowhere.toml" cannot be read: No such file'):
        load(tmp_path / "nowhere.toml", {})


def test_a_file_that_everyone_may_write_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path, MINIMAL)
    path.chmod(0o666)
    with pytest.raises(SettingsError, match="may be written by everyone"):
        load(path, {})


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not UTF-8"):
        load(path, {})


# --- secrets ---

SECRET = "correct-horse-battery"


@pytest.mark.parametrize(
    "variables",
    [
        {"TOKENGATE_REDIS__URL": f"http://:{SECRET}@redis"},
        {"TOKENGATE_REDIS": f"redis://:{SECRET}@redis"},
        {"TOKENGATE_REDIS": f'"redis://:{SECRET}@redis"'},
        {"TOKENGATE_REDIS__PASSWRD": SECRET},
        {"TOKENGATE_REDIS__PASSWORD__X": SECRET},
        {"TOKENGATE_MANAGEMENT__ADMIN_TOKEN": f"{SECRET} "},
        {"TOKENGATE_MANAGEMENT": f'["{SECRET}"]'},
        {"TOKENGATE_IDENTITY__WEBHOOK_URL": f"http://user:{SECRET}@accounts/login"},
        {"TOKENGATE_ROUTES": f'[{{"path": "/", "upstream": ["http://u:{SECRET}@a"]}}]'},
        {"TOKENGATE_INTROSPECTION__CLIENTS": f'{{"orders": "{SECRET}"}}'},
        {"TOKENGATE_INTROSPECTION__CLIENTS": f'{{"orders": ["{SECRET}"]}}'},
        {"TOKENGATE_INTROSPECTION__CLIENTS": SECRET},
        {"TOKENGATE_PASSWORD": SECRET},
    ],
)
def test_no_line_shows_a_secret(variables: dict[str, str]) -> None:
    told = refused(variables)
    assert told
    assert SECRET not in "\n".join(told)


def test_settings_do_not_show_their_secrets() -> None:
    settings = loaded(
        redis={"url": f"redis://:{SECRET}@redis", "password": ""},
        management={"admin_token": SECRET},
        introspection={"clients": {"orders": f"$argon2id${SECRET}"}},
    )
    assert SECRET not in f"{settings!r} {settings}"


def test_a_value_stays_on_its_line() -> None:
    told = refused(log={"level": "x\n\x1b[31mlog.level: fine" + "y" * 1000})
    assert len(told) == 1
    assert told[0].isprintable()
    assert len(told[0]) < 200


def test_good_is_good() -> None:
    assert load(None, environ()).tokens.audience == GOOD["tokens"]["audience"]
