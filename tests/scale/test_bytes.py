"""What the model of capacity counts by, held by bounds: docs/operations/capacity.md says what was measured."""

from __future__ import annotations

import gc
import time
import tracemalloc

import redis

from benchmarks.crowd import Crowd
from benchmarks.plan import tables
from benchmarks.store_probe import Probe
from gateway.app import Worker
from gateway.sessions.liveness import LiveKeys
from gateway.sessions.record import NewSession
from gateway.sessions.resp import Batch, parse_values
from gateway.settings import load
from gateway.tokens.keyring import Keyring, generate
from gateway.tokens.signer import Signer
from gateway.tokens.verifier import Verifier
from tests.e2e.harness import Site
from tests.redis_server import RedisServer, free_port
from tests.sessions.world import in_loop, opened

COUNT = 20_000


def test_a_session_its_index_a_blacklist_entry_and_a_limit_take_what_the_model_counts(own_redis: RedisServer) -> None:
    probe = Probe(own_redis.port, 0)
    sizes = probe.sizes(Crowd("gw", int(time.time())), COUNT)
    share = tables(2 * COUNT) / COUNT  # of the hash tables, which the sizes leave out
    assert 200 < sizes["session"] + sizes["index"] < 600 - share
    assert 60 < sizes["revoked"] < 200
    assert 60 < sizes["attempt"] < 200


def test_the_hash_tables_double_when_they_are_full() -> None:
    assert [tables(keys) / 16 for keys in (4, 5, 16_384, 16_385, 2_000_000)] == [4, 8, 16_384, 32_768, 2**21]


@in_loop
async def test_the_crowd_of_the_benchmarks_is_what_logins_would_have_made(own_redis: RedisServer) -> None:
    """The same keys, the same bytes, the same ends."""
    async with opened(own_redis.unix_url, "gw", refresh_ttl=30 * 86_400, session_ttl=0) as world:
        new: NewSession = Crowd("gw", 0).session(7)
        session = await world.store.create(new)
        key = next(name for name in await world.names() if ":session:" in name)
        made = await world.raw.get(key)
        ends = [await world.ends_at(name) for name in sorted(await world.names())]
        await world.store.end(session.id)
        crowd = Crowd("gw", int(made[:10]))
        crowd.fill(own_redis.port, 7, 1)
        assert crowd.record(new, session.created_at) == made
        stored = await world.store.list("u-7")
        assert [(each.device, each.claims, each.roles) for each in stored] == [(new.device, new.claims, new.roles)]
        again = [await world.ends_at(name) for name in sorted(await world.names())]
        assert all(b is not None and a is not None and abs(b - a) < 30 for a, b in zip(ends, again, strict=True))


def test_a_remembered_token_takes_at_most_four_kibibytes_of_a_worker() -> None:
    keyring = Keyring.load([generate("ES256", time.time())], "ES256")
    crowd = Crowd("gw", int(time.time()))
    signer = Signer(keyring, "https://gateway.test", "api", 600)
    who = [(f"u-{n}", f"0{n:022d}") for n in range(500)]
    replies = [b"$116\r\n" + crowd.record(crowd.session(n), 1_700_000_000)[:116] + b"\r\n$-1\r\n" for n in range(500)]
    tokens = [token.encode() for token in crowd.tokens(signer, who)]
    verifier = Verifier(keyring, "https://gateway.test", "api", 10)
    verifier.verify(tokens[0], time.time())
    gc.collect()
    tracemalloc.start()
    try:
        for token, (_, session_id), reply in zip(tokens, who, replies, strict=True):
            claims = verifier.verify(bytes(bytearray(token)), time.time())
            keys = LiveKeys(0, b"gw:{0}:session:" + session_id.encode(), b"gw:{0}:revoked:" + claims.jti.encode())
            claims.memo["live"] = keys
            Batch([keys], [], 0.0, 0.0)
            parse_values(reply, 0, [keys], bytearray(), [b"0000000000"] * 16)
        each = tracemalloc.get_traced_memory()[0] / len(tokens)
    finally:
        tracemalloc.stop()
    assert 1_000 < each < 4_096


def test_an_epoch_is_one_small_key(own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        assert isinstance(client, redis.Redis)
        client.set("gw:{0}:epoch", "1700000000 999999 " + "0" * 160)  # with its 32 tags, which are the most
        taken = client.memory_usage("gw:{0}:epoch")
    assert isinstance(taken, int)
    assert taken < 400


@in_loop
async def test_a_worker_remembers_as_many_tokens_as_it_is_told() -> None:
    with Site("memory://remembered") as site:
        config = site.configure(free_port(), free_port(), {"tokens": {"remembered": 2}, "routes": []})
        worker = Worker(load(config, {}))
        try:
            who = [(f"u-{n}", f"0{n:022d}") for n in range(3)]
            for token in Crowd("gw", 0).tokens(site.signer(), who):
                worker.verifier.verify(token.encode(), time.time())
            assert len(worker.verifier._known) == 2
        finally:
            await worker.stop()
