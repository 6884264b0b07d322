"""Passwords and certificates that are rotated while the gateway runs, and clients that have none."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.sessions.connect import Credentials, open_client, parse_url
from gateway.sessions.liveness import Liveness, Verdict
from tests.redis_certificates import certificates
from tests.redis_server import redis_has_tls, redis_server
from tests.redis_topologies import PASSWORD, USER, Guarded, guarded_redis
from tests.sessions.world import World, checking, eventually, in_loop, login, opened

SESSION, TOKEN = "0" * 23, "0" + "t" * 22


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    if not redis_has_tls():
        pytest.skip("needs a redis-server with TLS")
    with guarded_redis() as server:
        yield server


async def cut(guarded: Guarded) -> None:
    """Close all connections of the user, and let that be noticed: what comes next has to sign in."""
    with guarded.server.client() as admin:
        admin.execute_command("CLIENT", "KILL", "USER", USER)
    await asyncio.sleep(0.1)


async def serves(world: World, live: Liveness) -> None:
    """Wait until the live check stands; then both must answer."""
    await eventually(lambda: live.up, 10)
    session = await world.store.create(login())
    assert await live.alive(session.id, session.id[0] + "t" * 22) is Verdict.ALIVE


@in_loop
async def test_a_password_that_is_rotated_in_its_file_holds_from_the_next_connection(
    guarded: Guarded, prefix: str
) -> None:
    endpoint = guarded.endpoint()
    async with opened(endpoint, prefix) as world, checking(endpoint, prefix) as live:
        await serves(world, live)
        guarded.set_password("another one")
        await serves(world, live)  # what is connected stays so
        await cut(guarded)
        await serves(world, live)


@in_loop
async def test_a_password_that_is_rotated_in_the_server_first_is_taken_up_once_the_file_has_it(
    guarded: Guarded, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    endpoint = guarded.endpoint()
    async with opened(endpoint, prefix) as world, checking(endpoint, prefix) as live:
        await serves(world, live)
        guarded.set_password("n3w-w0rd", file=False)
        await cut(guarded)
        assert await live.alive(SESSION, TOKEN) is Verdict.UNAVAILABLE
        with pytest.raises(StoreUnavailable) as caught:
            await world.store.ping()
        guarded.password_file.unlink()
        with pytest.raises(StoreUnavailable):
            await world.store.ping()
        guarded.password_file.write_text("n3w-w0rd")
        await serves(world, live)
    told = caplog.text + str(caught.value)
    assert "w0rd" not in told
    assert PASSWORD not in told


@in_loop
async def test_a_password_in_a_file_with_the_url_is_rotated_like_one_of_its_own(tmp_path: Path, prefix: str) -> None:
    file = tmp_path / "redis-url"
    with redis_server(["--requirepass", "first"]) as server:
        at = server.url.removeprefix("redis://")
        file.write_text(f"redis://:first@{at}\n")
        endpoint = parse_url(file.read_text().strip(), url_file=str(file))
        async with opened(endpoint, prefix) as world, checking(endpoint, prefix) as live:
            await serves(world, live)
            with server.client() as admin:
                admin.execute_command("AUTH", "first")
                admin.execute_command("CONFIG", "SET", "requirepass", "s3cond")
                admin.execute_command("CLIENT", "KILL", "TYPE", "normal")
            assert await unavailable(live)
            file.write_text("half of a U")
            with pytest.raises(StoreUnavailable):
                await world.store.ping()
            file.write_text(f"redis://:s3cond@{at}\n")
            await serves(world, live)


async def unavailable(live: Liveness) -> bool:
    await eventually(lambda: not live.up, 10)
    return await live.alive(SESSION, TOKEN) is Verdict.UNAVAILABLE


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("redis://bob:new@h:1/2", ("bob", "new")),
        ("redis://:n%40w@h:1/2", ("", "n@w")),
        ("redis://h:1/2", ("", "")),
        ("redis://bob:new@elsewhere:1/2", ("eve", "old")),
        ("redis://bob:new@h:2/2", ("eve", "old")),
        ("redis://bob:new@h:1/3", ("eve", "old")),
        ("rediss://bob:new@h:1/2", ("eve", "old")),
        ("http://bob:new@h:1/2", ("eve", "old")),
        ("", ("eve", "old")),
    ],
)
def test_user_and_password_of_a_file_with_the_url_count_as_long_as_it_leads_to_the_same_server(
    tmp_path: Path, text: str, read: tuple[str, str]
) -> None:
    file = tmp_path / "redis-url"
    file.write_text(text)
    endpoint = parse_url("redis://eve:old@h:1/2", url_file=str(file))
    assert endpoint.auth.read() == read
    assert "old" not in repr(endpoint)
    given = parse_url("redis://eve:old@h:1/2", username="mine", password="own", url_file=str(file))
    assert given.auth.read() == ("mine", "own")
    (tmp_path / "password").write_text("in a file\n")
    beside = parse_url("redis://eve:old@h:1/2", password_file=str(tmp_path / "password"), url_file=str(file))
    assert beside.auth.read() == (read[0], "in a file")


@in_loop
async def test_a_wrong_password_does_not_storm_the_server(guarded: Guarded, prefix: str) -> None:
    guarded.set_password("other", file=False)
    async with checking(guarded.endpoint(), prefix, ready=False):
        await asyncio.sleep(1)
    with guarded.server.client() as admin:
        assert int(admin.info("stats")["total_connections_received"]) < 15


@in_loop
async def test_certificates_that_are_rotated_hold_from_the_next_connection(guarded: Guarded, prefix: str) -> None:
    """An authority, a server and a client certificate, all made anew."""
    endpoint = guarded.endpoint()
    async with opened(endpoint, prefix) as world, checking(endpoint, prefix) as live:
        await serves(world, live)
        certificates(guarded.directory)
        with guarded.server.client() as admin:
            for option in ("tls-cert-file", "tls-key-file", "tls-ca-cert-file"):
                file = {"tls-cert-file": "node.pem", "tls-key-file": "node.key", "tls-ca-cert-file": "ca.pem"}[option]
                admin.execute_command("CONFIG", "SET", option, str(guarded.directory / file))
        await cut(guarded)
        await serves(world, live)


def test_certificates_that_cannot_be_read_leave_those_that_were(tmp_path: Path) -> None:
    certificates(tmp_path)
    endpoint = parse_url("rediss://h", tls_ca=str(tmp_path / "ca.pem"))
    first = endpoint.tls()
    assert isinstance(first, ssl.SSLContext)
    assert endpoint.tls() is first
    (tmp_path / "ca.pem").write_text("half a fi")
    assert endpoint.tls() is first
    (tmp_path / "ca.pem").unlink()
    assert endpoint.tls() is first
    shutil.copy(tmp_path / "other-ca.pem", tmp_path / "ca.pem")
    assert endpoint.tls() is not first


@in_loop
async def test_without_a_client_certificate_nobody_is_served(guarded: Guarded, prefix: str) -> None:
    bare = guarded.endpoint(tls_cert="", tls_key="")
    async with (
        opened(bare, prefix, timeout=0.5) as world,
        checking(bare, prefix, timeout=0.5, ready=False) as live,
    ):
        with pytest.raises(StoreUnavailable):
            await world.store.ping()
        assert await live.alive(SESSION, TOKEN) is Verdict.UNAVAILABLE


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * 70_000])
def test_a_file_that_holds_no_password_is_told_without_what_is_in_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="password file") as caught:
        Credentials(password_file=str(path)).read()
    assert "xxx" not in str(caught.value)


def test_no_secret_stands_in_the_repr_of_a_client(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("s3cret\n")
    endpoint = parse_url("redis://h", username="bob", password_file=str(path))
    assert endpoint.auth.read() == ("bob", "s3cret")
    assert "s3cret" not in repr(endpoint) + repr(open_client(endpoint, 1))
