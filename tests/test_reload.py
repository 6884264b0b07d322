"""What a reload takes up, what only a restart can change, and which files are looked at."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.app import Worker
from gateway.parts import open_provider
from gateway.reload import check_usable, merge, mounted
from gateway.sessions.keyspace import new_session_id
from gateway.settings import Settings, SettingsError, load
from gateway.tokens.keyring import generate, generate_refresh
from tests.e2e.harness import toml


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, text in {
        "admin": "an-admin-token-of-one",
        "url": "redis://:one@h:6379/0",
        "password": "one",
        "clients": "",
        "users": "[users.alice]\npassword = 'x'\n",
    }.items():
        (tmp_path / name).write_text(text + "\n")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "keys").mkdir()
    for file in (generate("ES256", 0), generate_refresh(0)):
        (tmp_path / "keys" / file.name).write_bytes(file.data)
        (tmp_path / "keys" / file.name).chmod(0o600)
    return tmp_path


def read(directory: Path, **sections: Any) -> Settings:
    known: dict[str, Any] = {
        "tokens": {
            "issuer": "https://api.example.com",
            "audience": "api",
            "signing_keys": str(directory / "keys"),
        },
        "identity": {"webhook_url": "http://accounts/login"},
    }
    path = directory / "gateway.toml"
    path.write_text(toml({**known, **{name: {**known.get(name, {}), **given} for name, given in sections.items()}}))
    path.chmod(0o600)
    return load(path, {})


def test_a_password_in_a_file_is_no_change_that_a_restart_is_needed_for(directory: Path) -> None:
    redis = {"password_file": str(directory / "password")}
    before = read(directory, redis=redis)
    (directory / "password").write_text("two")
    merged, left = merge(before, read(directory, redis=redis))
    assert left == []
    assert merged.redis.password.get_secret_value() == "two"


def test_a_password_in_the_configuration_is_one(directory: Path) -> None:
    merged, left = merge(*(read(directory, redis={"password": word}) for word in ("one", "two")))
    assert left == ["redis.password"]
    assert merged.redis.password.get_secret_value() == "one"


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("redis://:two@h:6379/0", []),
        ("redis://bob:two@h/0", []),
        ("redis://:one@elsewhere:6379/0", ["redis.url"]),
        ("redis://:one@h:6380/0", ["redis.url"]),
        ("redis+cluster://:one@h:6379", ["redis.url"]),
    ],
)
def test_a_file_with_the_url_may_bring_another_password_and_no_other_server(
    directory: Path, url: str, wanted: list[str]
) -> None:
    redis = {"url_file": str(directory / "url")}
    before = read(directory, redis=redis)
    (directory / "url").write_text(url)
    merged, left = merge(before, read(directory, redis=redis))
    assert left == wanted
    assert merged.redis.url.get_secret_value() == ("redis://:one@h:6379/0" if wanted else url)


def test_a_file_with_a_url_that_is_none_is_refused(directory: Path) -> None:
    redis = {"url_file": str(directory / "url")}
    before = read(directory, redis=redis)
    (directory / "url").write_text("redis://:s3cret@h:port/0")
    with pytest.raises(SettingsError, match=r"redis\.url") as caught:
        merge(before, read(directory, redis=redis))
    assert "s3cret" not in str(caught.value)


def test_the_admin_token_is_taken_up_and_the_address_of_its_listener_is_not(directory: Path) -> None:
    before = read(directory, management={"admin_token_file": str(directory / "admin")})
    (directory / "admin").write_text("an-admin-token-of-two")
    given = {"admin_token_file": str(directory / "admin"), "bind": "127.0.0.1:9191"}
    merged, left = merge(before, read(directory, management=given))
    assert left == ["management.bind"]
    assert merged.management.admin_token.get_secret_value() == "an-admin-token-of-two"


def test_every_file_of_the_settings_is_looked_at(directory: Path) -> None:
    """Certificates of Redis are looked at by its connections; that of the collector of traces needs a restart."""
    names = {
        "server.tls_cert",
        "server.tls_key",
        "management.admin_token_file",
        "management.admin_tokens_file",
        "tracing.headers_file",
        "redis.url_file",
        "redis.password_file",
        "redis.sentinel_password_file",
        "identity.users_file",
        "introspection.clients_file",
    }
    settings = read(directory)
    left_out = {"redis.tls_ca", "redis.tls_cert", "redis.tls_key", "tracing.tls_ca"}
    found = set()
    for section in Settings.model_fields:
        model = getattr(settings, section)
        for key, field in getattr(type(model), "model_fields", {}).items():
            if field.annotation == Path | None:
                found.add(f"{section}.{key}")
    assert found == names | left_out
    changed = settings
    for name in names:
        section, key = name.split(".")
        model = getattr(changed, section).model_copy(update={key: Path(f"/{name}")})
        changed = changed.model_copy(update={section: model})
    assert set(mounted(changed, Path("/c"))) == {Path("/c"), *(Path(f"/{name}") for name in names)}


def test_the_files_of_a_route_and_of_another_issuer_are_looked_at(directory: Path) -> None:
    files = {f"upstream_{kind}": str(directory / kind) for kind in ("ca", "cert", "key")}
    issuer = {
        "issuer": "https://idp",
        "jwks_url": "https://idp/jwks",
        "audience": "a",
        "jwks_ca": str(directory / "idp"),
    }
    path = directory / "gateway.toml"
    read(directory)
    tables = {"routes": [{"path": "/a/", "upstream": ["https://a"], **files}], "issuers": [issuer]}
    path.write_text(path.read_text() + toml(tables))
    assert set(mounted(load(path, {}), None)) == {directory / name for name in ("ca", "cert", "key", "idp")}


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"introspection": {"clients": {"orders": "$argon2id$short"}}}, r"introspection\.clients\.orders"),
        ({"tokens": {"algorithm": "EdDSA"}}, "can sign with EdDSA"),
        ({"tokens": {"signing_keys": "/nowhere"}}, r"tokens\.signing_keys"),
        ({"identity": {"provider": "users-file", "users_file": "users"}}, r"users\.alice"),
        ({"server": {"tls_cert": "clients", "tls_key": "password"}}, r"server\.tls_cert"),
    ],
)
def test_what_the_workers_could_not_use_is_found_before_they_hear_of_it(
    directory: Path, sections: dict[str, dict[str, Any]], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory)
    check_usable(read(directory))
    with pytest.raises((SettingsError, ValueError), match=reason):
        check_usable(read(directory, **sections))


def test_what_was_rendered_for_a_token_is_made_anew_also_where_later_keys_came_first(directory: Path) -> None:
    """Else backends were told by the old headers until the token ends."""

    async def run() -> None:
        store = {"url": f"memory://{secrets.token_hex(4)}"}
        worker = Worker(read(directory, redis=store, identity_headers={"X-Auth-Request-User": "sub"}))
        made = worker.signer.mint(
            subject="u-1",
            session_id=new_session_id("u-1"),
            counter=0,
            roles=(),
            scope="",
            claims={"email": "a@example.com"},
            now=time.time(),
        )
        rings = worker.keys.read()
        await worker.reload_keys()  # an admin's, or the watch's, while the reload has yet to read the rest
        worker.verifier.verify(made.token.encode(), time.time()).memo["identity"] = b"as it was"
        after = read(directory, redis=store, identity_headers={"X-Auth-Request-User": "email"})
        worker.take_up(after, open_provider(after), rings)
        claims = worker.verifier.verify(made.token.encode(), time.time())
        assert b"a@example.com" in worker.plane.identity(claims)
        assert claims.memo == {}
        await worker.stop()

    asyncio.run(run())
