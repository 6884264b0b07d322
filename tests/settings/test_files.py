"""Files that hold secrets, and who else may read or write them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from gateway.settings import SettingsError, check_files, load, read_keys, read_users
from gateway.settings.files import BadFile, read_secret
from tests.settings.support import GOOD, environ, loaded, refused

BACKEND = {"path": "/api/", "upstream": ["https://orders"]}

TOKEN = "an-admin-token-of-good-length"


def _secret(folder: Path, text: str | bytes, mode: int = 0o600, name: str = "secret") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.mkdir(mode=0o700)
    return path


# --- one secret ---


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_mounted_secret_is_read_without_its_last_newline(tmp_path: Path, ending: str) -> None:
    assert read_secret(_secret(tmp_path, TOKEN + ending)) == TOKEN


def test_every_secret_has_a_file_form(tmp_path: Path) -> None:
    url = _secret(tmp_path, "redis://:pw@redis:6379/1\n", name="url")
    admin = _secret(tmp_path, TOKEN, 0o440, name="admin")
    clients = _secret(tmp_path, 'orders = "$argon2id$x"\n', name="clients")
    settings = load(
        None,
        environ()
        | {
            "TOKENGATE_REDIS__URL_FILE": str(url),
            "TOKENGATE_MANAGEMENT__ADMIN_TOKEN_FILE": str(admin),
            "TOKENGATE_INTROSPECTION__CLIENTS_FILE": str(clients),
        },
    )
    assert settings.redis.url.get_secret_value() == "redis://:pw@redis:6379/1"
    assert settings.management.admin_token.get_secret_value() == TOKEN
    assert settings.introspection.clients == {"orders": "$argon2id$x"}


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o644, 0o666])
def test_a_secret_open_to_everyone_stops_the_start(tmp_path: Path, mode: int) -> None:
    path = _secret(tmp_path, TOKEN, mode)
    told = refused({"TOKENGATE_MANAGEMENT__ADMIN_TOKEN_FILE": str(path)})
    assert len(told) == 1
    assert told[0].startswith("management.admin_token_file (TOKENGATE_MANAGEMENT__ADMIN_TOKEN_FILE): ")
    assert str(path) in told[0]
    assert "by everyone" in told[0]
    assert TOKEN not in told[0]


def test_a_link_is_as_open_as_what_it_leads_to(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(_secret(tmp_path, TOKEN, 0o644))
    with pytest.raises(BadFile, match="used by everyone"):
        read_secret(link)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"\xff", "is not UTF-8"), (b"a" * 70000, "is larger than")],
)
def test_a_secret_that_is_none_stops_the_start(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(BadFile, match=reason):
        read_secret(_secret(tmp_path, data))


def test_a_missing_secret_is_named(tmp_path: Path) -> None:
    told = refused({"TOKENGATE_REDIS__PASSWORD_FILE": str(tmp_path / "nowhere")})
    assert 'nowhere" cannot be read: No such file or directory' in told[0]


def test_a_pipe_in_the_place_of_a_secret_does_not_hang_the_start(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    with pytest.raises(BadFile, match="is not a file"):
        read_secret(path)


def test_a_path_with_a_nul_is_no_path() -> None:
    assert "cannot be read" in refused(redis={"url_file": "a\0b"})[0]


def test_a_secret_in_both_forms_is_refused(tmp_path: Path) -> None:
    path = _secret(tmp_path, TOKEN)
    told = refused(management={"admin_token": TOKEN, "admin_token_file": str(path)})
    what = "found beside management.admin_token; one of the two is allowed"
    assert told == [f"management.admin_token_file (TOKENGATE_MANAGEMENT): {what}"]


def test_clients_that_are_not_toml_are_refused_without_showing_them(tmp_path: Path) -> None:
    told = refused({"TOKENGATE_INTROSPECTION__CLIENTS_FILE": str(_secret(tmp_path, f"orders: {TOKEN}"))})
    assert "is not TOML" in told[0]
    assert TOKEN not in told[0]


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000], ids=["deep", "long"])
def test_clients_that_no_toml_reader_takes_are_one_line_and_no_traceback(tmp_path: Path, text: str) -> None:
    told = refused({"TOKENGATE_INTROSPECTION__CLIENTS_FILE": str(_secret(tmp_path, text))})
    assert len(told) == 1
    assert told[0].endswith("is not TOML")


def test_admin_tokens_come_from_a_file_of_their_own(tmp_path: Path) -> None:
    digest = f"sha256:{'0a' * 32}"
    path = _secret(tmp_path, f'alice = "{digest}"\nbob = "sha256:{"1b" * 32}"\n')
    settings = loaded(management={"admin_tokens_file": str(path)})
    assert dict(settings.management.admin_tokens) == {"alice": digest, "bob": f"sha256:{'1b' * 32}"}
    assert digest not in repr(settings)


@pytest.mark.parametrize("own", [{}, {"admin_token": TOKEN}])
def test_the_digest_of_no_token_is_refused(own: dict[str, str]) -> None:
    """`printf %s "$TOKEN" | sha256sum` makes it where the variable is not set: `Authorization: Bearer` would do."""
    digest = f"sha256:{hashlib.sha256(b'').hexdigest()}"
    (told,) = refused(management={**own, "admin_tokens": {"alice": digest}})
    assert told.endswith(": is the digest of nothing; `tokengate hash-token` makes one of a token")


@pytest.mark.parametrize(
    "value", [TOKEN, f"sha256:{'0A' * 32}", f"sha256:{'0a' * 31}", "0a" * 32, f"sha256:{'0a' * 32}\n", 1, ""]
)
def test_what_is_no_digest_of_a_token_is_refused_without_showing_it(value: object) -> None:
    (told,) = refused(management={"admin_tokens": {"alice": value}})
    assert told.startswith("management.admin_tokens.alice ")
    assert told.endswith(": sha256: and 64 hex digits are allowed; `tokengate hash-token` makes them")
    assert not value or str(value).strip() not in told


def test_a_token_of_two_admins_is_refused() -> None:
    """The audit trail names whoever a token is of."""
    digest = f"sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"
    told = refused(management={"admin_tokens": {"alice": digest, "bob": digest}})
    assert told == [
        "management.admin_tokens.bob: is the token of management.admin_tokens.alice too; one of its own is allowed"
    ]
    told = refused(management={"admin_token": TOKEN, "admin_tokens": {"alice": digest}})
    assert told == [
        "management.admin_tokens.alice: is the token of management.admin_token too; one of its own is allowed"
    ]


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "é"])
def test_the_name_of_an_admin_is_one_plain_word(name: str) -> None:
    assert refused(management={"admin_tokens": {name: f"sha256:{'0a' * 32}"}})


# --- the key directory ---


def test_key_files_are_read_by_name_and_nothing_else(directory: Path) -> None:
    _secret(directory, "one", name="1.pem")
    _secret(directory, "two", 0o440, name="2.refresh.jwk")
    for other in ("README", ".hidden.pem", "key.txt"):
        _secret(directory, "no", 0o644, name=other)
    settings = load(None, environ(tokens={**GOOD["tokens"], "signing_keys": str(directory)}))
    rows = read_keys(settings)
    assert [(name, data) for name, data, _ in rows] == [("1.pem", b"one"), ("2.refresh.jwk", b"two")]
    assert rows[0][2] == (directory / "1.pem").stat().st_mtime


def test_a_mounted_kubernetes_secret_is_read_through_its_links(directory: Path) -> None:
    version = directory / "..2026_11_21"
    version.mkdir()
    _secret(version, "one", 0o440, name="1.pem")
    (directory / "..data").symlink_to("..2026_11_21")
    (directory / "1.pem").symlink_to("..data/1.pem")
    directory.chmod(0o1777)  # as the mount point is
    settings = load(None, environ(tokens={"signing_keys": str(directory)}))
    assert [name for name, _, _ in read_keys(settings)] == ["1.pem"]


@pytest.mark.parametrize(
    ("name", "data", "mode", "good"),
    [
        ("1.pem", "-----BEGIN PRIVATE KEY-----", 0o600, True),
        ("1.pem", "-----BEGIN PRIVATE KEY-----", 0o644, False),
        ("1.pem", "-----BEGIN EC PRIVATE KEY-----", 0o644, False),
        ("1.pem", "-----BEGIN PUBLIC KEY-----", 0o644, True),
        ("1.pem", "-----BEGIN PUBLIC KEY-----", 0o666, False),  # whoever writes it mints tokens
        ("1.jwk", "{}", 0o644, False),
        ("1.refresh.jwk", "{}", 0o604, False),
    ],
)
def test_a_key_that_others_could_use_or_replace_stops_the_start(
    directory: Path, name: str, data: str, mode: int, good: bool
) -> None:
    path = _secret(directory, data, mode, name=name)
    settings = load(None, environ(tokens={"signing_keys": str(directory)}))
    if good:
        assert len(read_keys(settings)) == 1
        return
    with pytest.raises(SettingsError) as caught:
        read_keys(settings)
    assert caught.value.lines[0].startswith("tokens.signing_keys: ")
    assert str(path) in caught.value.lines[0]


def test_a_key_directory_that_everyone_may_write_stops_the_start(directory: Path) -> None:
    directory.chmod(0o777)
    settings = load(None, environ(tokens={"signing_keys": str(directory)}))
    with pytest.raises(SettingsError, match="may be written by everyone"):
        read_keys(settings)


def test_a_missing_key_directory_is_named() -> None:
    settings = load(None, environ(tokens={"signing_keys": "/nowhere/keys"}))
    with pytest.raises(SettingsError, match=r'tokens\.signing_keys: "/nowhere/keys" cannot be read: No such file'):
        read_keys(settings)


# --- the other files ---


def test_the_users_file_may_be_read_but_not_written_by_others(directory: Path) -> None:
    path = _secret(directory, "[users]", 0o644, name="users.toml")
    identity = {"provider": "users-file", "users_file": str(path)}
    settings = load(None, environ(identity=identity, tokens={"signing_keys": str(directory)}))
    check_files(settings)
    assert read_users(settings) == b"[users]"
    path.chmod(0o646)
    with pytest.raises(SettingsError, match=r"identity\.users_file: .* may be written by everyone"):
        read_users(settings)


def test_without_a_users_file_there_are_no_users() -> None:
    with pytest.raises(SettingsError, match=r"identity\.users_file: is missing"):
        read_users(load(None, environ()))


def test_every_file_that_is_missing_or_open_is_told_at_once(directory: Path) -> None:
    certificate = _secret(directory, "x", 0o644, name="tls.crt")
    key = _secret(directory, "x", 0o644, name="tls.key")
    settings = load(
        None,
        environ(
            server={"tls_cert": str(certificate), "tls_key": str(key)},
            redis={"url": "rediss://redis", "tls_ca": "/nowhere/ca.crt"},
            tokens={"signing_keys": "/nowhere/keys"},
            routes=[{**BACKEND, "upstream_cert": str(certificate), "upstream_key": str(key)}],
        ),
    )
    with pytest.raises(SettingsError) as caught:
        check_files(settings)
    assert [line.split(": ")[0] for line in caught.value.lines] == [
        "tokens.signing_keys",
        "server.tls_key",
        "routes.0.upstream_key",
        "redis.tls_ca",
    ]
