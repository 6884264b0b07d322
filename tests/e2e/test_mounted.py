"""Mounted ConfigMaps and Secrets are taken up as they change, without a signal, and a bad one changes nothing."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.tokens.keyring import generate
from tests.e2e.backends import Backend
from tests.e2e.certificates import Authority
from tests.e2e.harness import PASSWORD, Gateway, Site, route, until
from tests.e2e.test_drain import ONE_AND_TWO, REFUSED, RELOADED, hang_up, said
from tests.e2e.test_keys import SECONDS, published
from tests.e2e.test_reload import https, shown
from tests.e2e.wire import ask, request
from tests.mounts import Mount
from tests.redis_server import RedisServer

pytestmark = pytest.mark.timeout(120)
TOKEN = "admin-token-in-a-file"


class Volumes(Site):
    """A site whose files are mounted, as in the manifests: a ConfigMap for each gateway, and two Secrets."""

    def __init__(self, redis_url: str) -> None:
        super().__init__(redis_url)
        keys = {path.name: path.read_bytes() for path in (self.directory / "keys").iterdir()}
        users = (self.directory / "users.toml").read_bytes()
        self.keys = Mount(self.directory / "mounted-keys", keys)
        self.secrets = Mount(self.directory / "secrets", {"users.toml": users, "admin-token": TOKEN.encode()})
        self.configs: dict[Path, Mount] = {}

    def configure(self, port: int, management: int, options: Mapping[str, Any]) -> Path:
        mount = Mount(self.directory / f"config-{port}", {"gateway.toml": self.text(port, management, options)})
        self.configs[mount.path / "gateway.toml"] = mount
        return mount.path / "gateway.toml"

    def text(self, port: int, management: int, options: Mapping[str, Any]) -> bytes:
        given = {
            "tokens": {"signing_keys": str(self.keys.path), "publish_before": "0s"},
            "identity": {"users_file": str(self.secrets.path / "users.toml")},
            "redis": {"timeout": "5s"},
        }
        lines = super().configure(port, management, {**given, **options}).read_text().splitlines(keepends=True)
        in_a_file = any(line.startswith('"admin_token_file"') for line in lines)
        return "".join(line for line in lines if not (in_a_file and line.startswith('"admin_token" ='))).encode()

    def swap(self, gateway: Gateway, text: bytes) -> None:
        self.configs[gateway.config].swap({"gateway.toml": text})

    def reconfigure(self, gateway: Gateway, **options: Any) -> None:
        self.swap(gateway, self.text(gateway.port, gateway.management, options))

    def change(self, name: str, content: bytes) -> None:
        """Put another version of a secret into its mount."""
        self.secrets.swap({**self.secrets.files, name: content})

    def rename_bob(self) -> None:
        self.change("users.toml", self.secrets.files["users.toml"].replace(b"bob", b"rob"))

    def add_key(self) -> None:
        key = generate("ES256", time.time())
        self.keys.swap({**self.keys.files, key.name: key.data})


@pytest.fixture
def volumes(shared_redis: RedisServer) -> Iterator[Volumes]:
    with Volumes(shared_redis.url) as made:
        yield made


def taken_up(gateway: Gateway, number: int = 1) -> None:
    """Wait for the first reload, of so many workers."""
    until(lambda: len(said(gateway, RELOADED)) >= number, "a reload", SECONDS)


@ONE_AND_TWO
def test_a_swap_of_configuration_keys_users_and_certificate_is_picked_up(
    volumes: Volumes, backend: Backend, words: list[str], tmp_path: Path
) -> None:
    number = len(words) or 1
    authority = Authority(tmp_path)
    first, second = ([path.read_bytes() for path in authority.issue(name)] for name in ("front", "renewed"))
    names = ("tls.crt", "tls.key")
    tls = Mount(volumes.directory / "tls", dict(zip(names, first, strict=True)))
    server = {"tls_cert": str(tls.path / "tls.crt"), "tls_key": str(tls.path / "tls.key"), "workers": number}
    spot = backend.spot()
    old, new = (route(prefix, backend.url, auth="none") for prefix in ("/raw/", "/new/"))
    with volumes.serve(words, server=server, routes=[old]) as gateway, https(gateway, authority) as before:
        assert shown(before) == "front"
        volumes.reconfigure(gateway, server=server, routes=[new])
        taken_up(gateway, number)
        tls.swap(dict(zip(names, second, strict=True)))
        volumes.add_key()
        volumes.rename_bob()
        until(lambda: _shows(gateway, authority, "renewed", 2 * number), "the certificate", SECONDS)
        until(lambda: len(_keys(gateway, authority)) == 2, "the key", SECONDS)
        until(lambda: _login(gateway, authority, "rob") == 200, "the users", SECONDS)
        before.request("GET", spot.path("/new"))  # the connection stands
        assert before.getresponse().status == 200
        assert said(gateway, REFUSED) == []


def _shows(gateway: Gateway, authority: Authority, name: str, times: int) -> bool:
    for _ in range(times):  # whichever worker it is
        try:
            with https(gateway, authority) as connection:
                if shown(connection) != name:
                    return False
        except ssl.SSLError:
            return False
    return True


def _keys(gateway: Gateway, authority: Authority) -> list[Any]:
    with https(gateway, authority) as connection:
        connection.request("GET", "/.well-known/jwks.json")
        return list(json.loads(connection.getresponse().read())["keys"])


def _login(gateway: Gateway, authority: Authority, user: str) -> int:
    body = json.dumps({"username": user, "password": PASSWORD})
    with https(gateway, authority) as connection:
        connection.request("POST", "/auth/login", body, {"Content-Type": "application/json"})
        return connection.getresponse().status


@ONE_AND_TWO
def test_a_swap_to_what_cannot_be_used_changes_nothing_and_is_told_once(
    volumes: Volumes, backend: Backend, words: list[str]
) -> None:
    spot = backend.spot()
    with volumes.serve(words, routes=[route("/raw/", backend.url, auth="none")]) as gateway:
        good = gateway.config.read_bytes()
        bad = good.replace(b'["server"]', b'["server"]\nwrokers = 2')
        volumes.swap(gateway, bad)
        (line,) = until(lambda: said(gateway, REFUSED), "it is told", SECONDS)
        assert "server.wrokers" in line["reason"]
        volumes.swap(gateway, bad)  # no news
        volumes.swap(gateway, b"no TOML")
        until(lambda: len(said(gateway, REFUSED)) == 2, "the other reason is told", SECONDS)
        assert ask(gateway.port, request("GET", spot.path())).status == 200
        users = volumes.secrets.files["users.toml"]
        volumes.change("users.toml", b"[users.alice]\npassword = 'plain'\n")
        volumes.swap(gateway, good)
        volumes.add_key()  # good by itself, and taken up
        until(lambda: "users.alice" in said(gateway, REFUSED)[-1]["reason"], "the users are told", SECONDS)
        gateway.login()
        until(lambda: all(len(published(gateway)) == 2 for _ in range(6)), "the key", SECONDS)
        assert said(gateway, RELOADED) == []
        volumes.change("users.toml", users.replace(b"bob", b"rob"))
        taken_up(gateway, len(words) or 1)
        gateway.login("rob")
        assert len(said(gateway, REFUSED)) <= 4  # no TOML and the users, seen one after the other


@ONE_AND_TWO
def test_the_admin_token_is_rotated_while_serving(volumes: Volumes, words: list[str]) -> None:
    number = len(words) or 1

    def statuses(gateway: Gateway, token: str) -> set[int]:
        data = request("GET", "/admin/users/u-alice/sessions", {"Connection": "close"}, token=token)
        return {ask(gateway.management, data).status for _ in range(4 * number)}

    file = str(volumes.secrets.path / "admin-token")
    with volumes.serve(words, management={"admin_token_file": file}, routes=[]) as gateway:
        assert statuses(gateway, TOKEN) == {200}
        volumes.change("admin-token", b"another-admin-token\n")
        until(lambda: statuses(gateway, "another-admin-token") == {200}, "the new one opens", SECONDS)
        assert statuses(gateway, TOKEN) == {403}
        assert said(gateway, "settings that a restart is needed for have changed") == []


def test_the_admin_api_comes_and_goes_with_its_token(volumes: Volumes) -> None:
    data = request("GET", "/admin/users/u-alice/sessions", {"Connection": "close"}, token=TOKEN)
    with volumes.serve(management={"admin_token": ""}, routes=[]) as gateway:
        for token, status in ((TOKEN, 200), ("", 404)):
            volumes.reconfigure(gateway, management={"admin_token": token}, routes=[])
            until(lambda s=status: ask(gateway.management, data).status == s, f"{status}", SECONDS)  # type: ignore[misc]


def test_a_file_that_comes_after_the_configuration_that_names_it_is_waited_for(volumes: Volumes) -> None:
    """A ConfigMap and a Secret reach a pod one after the other."""
    clients = volumes.directory / "clients.toml"
    with volumes.serve(routes=[]) as gateway:
        volumes.reconfigure(gateway, introspection={"clients_file": str(clients)}, routes=[])
        (line,) = until(lambda: said(gateway, REFUSED), "it is missed", SECONDS)
        assert "introspection.clients_file" in line["reason"]
        clients.touch(mode=0o600)
        clients.write_text("# nobody yet\n")
        taken_up(gateway)


def test_a_users_file_that_is_written_in_two_halves_never_breaks_serving(volumes: Volumes) -> None:
    plain = volumes.directory / "plain-users.toml"
    whole = volumes.secrets.files["users.toml"]
    plain.touch(mode=0o600)
    plain.write_bytes(whole)
    with volumes.serve(identity={"users_file": str(plain)}, routes=[]) as gateway:
        changed = whole.replace(b"bob", b"rob")
        plain.write_bytes(changed[: changed.index(b"argon2id")])
        until(lambda: said(gateway, REFUSED), "half of it is refused", SECONDS)
        gateway.login("bob")
        plain.write_bytes(changed)
        taken_up(gateway)
        gateway.login("rob")


def test_with_watch_files_off_only_a_signal_has_files_read_again(volumes: Volumes) -> None:
    """Another replica that does watch says when there was something to be seen."""
    with volumes.serve(server={"watch_files": False}, routes=[]) as deaf, volumes.serve(routes=[]) as watching:
        volumes.add_key()
        volumes.rename_bob()
        taken_up(watching)
        until(lambda: said(watching, "keys_reloaded"), "keys are taken up", SECONDS)
        assert said(deaf, RELOADED) + said(deaf, "keys_reloaded") == []
        deaf.login("bob")
        hang_up(deaf, RELOADED)
        deaf.login("rob")


def test_clients_of_the_introspection_whose_hash_is_none_leave_the_users_as_they_were(volumes: Volumes) -> None:
    """Once, the provider of users that the refused reload had opened was in use, and closed."""
    with volumes.serve(routes=[]) as gateway:
        volumes.reconfigure(gateway, introspection={"clients": {"orders": "$argon2id$short"}}, routes=[])
        (line,) = until(lambda: said(gateway, REFUSED), "it is told", SECONDS)
        assert "introspection.clients.orders" in line["reason"]
        gateway.login("bob")
