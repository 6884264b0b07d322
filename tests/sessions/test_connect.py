"""Where Redis is: URLs, credentials, databases, TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.sessions.connect import Address, Credentials, Endpoint, open_client, parse_url
from gateway.sessions.epochs import Epochs
from gateway.sessions.liveness import Liveness, Verdict
from tests.redis_certificates import certificates
from tests.redis_server import RedisServer, find_redis_server, free_port, redis_has_tls, redis_server
from tests.sessions.world import checking, in_loop, login, opened

SESSION, TOKEN = "0" * 23, "0" + "t" * 22


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("redis://h", Endpoint("redis", "h")),
        ("redis://h/", Endpoint("redis", "h")),
        ("redis://h:7000/5", Endpoint("redis", "h", 7000, db=5)),
        ("redis://[::1]:7000", Endpoint("redis", "::1", 7000)),
        ("redis://:p%40%2F@h", Endpoint("redis", "h", auth=Credentials(password="p@/"))),
        ("redis://bob:p@h", Endpoint("redis", "h", auth=Credentials("bob", "p"))),
        ("rediss://h", Endpoint("rediss", "h")),
        ("unix:///run/redis.sock", Endpoint("unix", port=0, path="/run/redis.sock")),
        (
            "unix://bob:p@/run/r.sock?db=2",
            Endpoint("unix", port=0, path="/run/r.sock", db=2, auth=Credentials("bob", "p")),
        ),
        (
            "redis+sentinel://bob:p@h,i:7000/my%2Fname/2",
            Endpoint(
                "redis+sentinel",
                port=0,
                db=2,
                nodes=(Address("h", 26379), Address("i", 7000)),
                service="my/name",
                auth=Credentials("bob", "p"),
            ),
        ),
        ("rediss+sentinel://[::1]:1/s", Endpoint("rediss+sentinel", port=0, nodes=(Address("::1", 1),), service="s")),
        ("redis+cluster://h,i:7000", Endpoint("redis+cluster", port=0, nodes=(Address("h", 6379), Address("i", 7000)))),
        ("rediss+cluster://h/", Endpoint("rediss+cluster", port=0, nodes=(Address("h", 6379),))),
        ("memory://", Endpoint("memory", port=0)),
        ("memory://a", Endpoint("memory", port=0, path="a")),
    ],
)
def test_a_url_names_an_endpoint(url: str, endpoint: Endpoint) -> None:
    assert parse_url(url) == endpoint


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "must begin with"),
        ("h:6379", "must begin with"),
        ("http://h", "must begin with"),
        ("redis+sentinel://h:1,h:2", "must name its service"),
        ("redis+sentinel://h:1,h:2//0", "must name its service|must be a number"),
        ("redis+sentinel://h/name/x", "must be a number"),
        ("redis+sentinel://h/name/0?ssl=1", "must not have options"),
        ("redis+sentinel:///name", "must name hosts"),
        ("redis+sentinel://h,,i/name", "must name hosts"),
        ("redis+sentinel://:s3cret@h:s3cret,i/name", "malformed"),
        ("redis+sentinel://h:0/name", "must name hosts"),
        ("redis+cluster://h:1,h:2/0", "a cluster has no databases"),
        ("redis+cluster://h:1?timeout=1", "must not have options"),
        ("redis+cluster://", "must name hosts"),
        ("redis+cluster://" + ",".join(["h"] * 65), "at most 64"),
        ("redis+other://h", "must begin with"),
        ("redis://:s3cret@h:1,i:2/0", "several hosts"),
        ("redis://", "must name a host"),
        ("redis://h:s3cret", "malformed"),
        ("redis://h:99999", "malformed"),
        ("redis://[::1", "malformed"),
        ("redis://h/x", "must be a number"),
        ("redis://h/-1", "must be a number"),
        ("redis://h/1/2", "must be a number"),
        ("redis://h/\u0663", "must be a number"),
        ("redis://h?ssl_cert_reqs=none", "must not have options"),
        ("rediss://h?ssl_check_hostname=false", "must not have options"),
        ("redis://:s3cret#x@h", "malformed|fragment|host"),
        ("unix://run/redis.sock", "absolute path"),
        ("unix://", "absolute path"),
    ],
)
def test_a_url_that_is_none_is_refused_and_not_repeated(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_url(url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_credentials_given_apart_win_over_those_of_the_url_and_are_never_shown() -> None:
    endpoint = parse_url("redis://bob:inside@h", username="eve", password="outside")
    assert endpoint.auth.read() == ("eve", "outside")
    assert "outside" not in repr(endpoint)
    assert "outside" not in repr(open_client(endpoint, 1))


def test_tls_files_need_a_tls_url(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rediss"):
        parse_url("redis://h", tls_ca="ca.pem")
    with pytest.raises(ValueError, match="certificate"):
        parse_url("rediss://h", tls_key="key.pem")
    (tmp_path / "bad.pem").write_text("no PEM")
    for name in ("missing.pem", "bad.pem"):
        with pytest.raises(OSError):  # noqa: PT011  # FileNotFoundError or SSLError
            open_client(parse_url("rediss://h", tls_ca=str(tmp_path / name)), 1)
        for url in ("rediss://h", "rediss+sentinel://h/s", "rediss+cluster://h"):
            with pytest.raises(OSError):  # noqa: PT011
                Liveness(
                    parse_url(url, tls_ca=str(tmp_path / name)), "gw", 1, Epochs(open_client("memory://", 1), "gw", 1)
                )


@in_loop
async def test_two_clients_of_one_memory_url_share_a_store_and_those_of_another_do_not() -> None:
    async with opened("memory://one", "gw") as a, opened("memory://one", "gw") as b, opened("memory://two", "gw") as c:
        session = await a.store.create(login())
        assert await b.store.get(session.id) == session
        assert await c.store.get(session.id) is None


@in_loop
async def test_the_database_of_the_url_is_that_of_the_store_and_of_the_live_check(
    shared_redis: RedisServer, prefix: str
) -> None:
    third = shared_redis.url.replace("/0", "/3")
    async with opened(third, prefix) as world, checking(third, prefix) as live:
        session = await world.store.create(login())
        assert await live.alive(session.id, TOKEN) is Verdict.ALIVE
        async with checking(shared_redis.url, prefix) as elsewhere:
            assert await elsewhere.alive(session.id, TOKEN) is Verdict.ENDED
        await world.store.end(session.id)


@in_loop
async def test_a_password_is_given_by_both_and_a_wrong_one_is_unavailable(prefix: str) -> None:
    with redis_server(["--requirepass", "s3cret:/@"]) as server:
        endpoint = parse_url(server.url, password="s3cret:/@")
        async with checking(endpoint, prefix) as live:
            assert await live.alive(SESSION, TOKEN) is Verdict.ENDED
        for url in (server.url, server.url.replace("redis://", "redis://:wrong-w0rd@")):
            async with opened(url, prefix) as world, checking(url, prefix, timeout=0.25, ready=False) as refused:
                with pytest.raises(StoreUnavailable) as caught:
                    await world.store.ping()
                assert "w0rd" not in str(caught.value)
                assert await refused.alive(SESSION, TOKEN) is Verdict.UNAVAILABLE


@in_loop
async def test_a_user_that_may_touch_nothing_but_the_prefix_is_enough(prefix: str) -> None:
    """The rights that the documentation asks for, under an ACL."""
    rights = ["on", ">pw", f"~{prefix}:*", "-@all", "+get", "+set", "+del", "+exists", "+mget", "+evalsha", "+eval"]
    rights += [
        "+time",
        "+zadd",
        "+zrem",
        "+zrange",
        "+persist",
        "+pexpireat",
        "+pttl",
        "+ping",
        "+wait",
        "+hello",
        "+select",
    ]
    with redis_server() as server:
        with server.client() as admin:
            admin.execute_command("ACL", "SETUSER", "gate", *rights)
        url = server.url.replace("redis://", "redis://gate:pw@")
        async with opened(url, prefix) as world, checking(url, prefix) as live:
            session = await world.store.create(login(device="d"))
            assert (await world.store.rotate(session.id, 0)).outcome == "rotated"
            await world.store.mark_used(session.id, 1)
            assert await world.store.attempt("login", "a", 10) == 0
            await world.store.revoke_token(TOKEN, 2**40)
            await world.store.set_not_before("~issuer:u-1", 1, 60)
            assert len(await world.store.list("u-1")) == 1
            assert await live.alive(session.id, TOKEN[0] + "x" * 20) is Verdict.ALIVE
            assert await world.store.end_all("u-1") == [session.id]
            await world.store.ping()


@pytest.mark.skipif(find_redis_server() is None or not redis_has_tls(), reason="needs a redis-server with TLS")
@in_loop
async def test_over_tls_the_server_is_verified_and_the_client_can_be(tmp_path: Path, prefix: str) -> None:
    certificates(tmp_path)
    port = free_port()
    files = ["--tls-cert-file", f"{tmp_path}/node.pem", "--tls-key-file", f"{tmp_path}/node.key"]
    with redis_server(["--tls-port", str(port), *files, "--tls-ca-cert-file", f"{tmp_path}/ca.pem"]):
        url, ca = f"rediss://127.0.0.1:{port}", f"{tmp_path}/ca.pem"
        mine = {"tls_cert": f"{tmp_path}/node.pem", "tls_key": f"{tmp_path}/node.key"}
        client = open_client(parse_url(url, tls_ca=ca, **mine), 1)
        assert await client.ping()
        await client.aclose()
        async with checking(parse_url(url, tls_ca=ca, **mine), prefix) as live:
            assert await live.alive(SESSION, TOKEN) is Verdict.ENDED
        others = {"tls_cert": f"{tmp_path}/other-node.pem", "tls_key": f"{tmp_path}/other-node.key"}
        wrong = [
            parse_url(url, tls_ca=f"{tmp_path}/other-ca.pem", **mine),
            parse_url(url, **mine),
            parse_url(url.replace("127.0.0.1", "localhost"), tls_ca=ca, **mine),
            parse_url(url, tls_ca=ca),
            parse_url(url, tls_ca=ca, **others),
        ]
        for endpoint in wrong:
            async with (
                opened(endpoint, prefix, timeout=0.5) as world,
                checking(endpoint, prefix, timeout=0.5, ready=False) as refused,
            ):
                with pytest.raises(StoreUnavailable):
                    await world.store.ping()
                assert await refused.alive(SESSION, TOKEN) is Verdict.UNAVAILABLE
