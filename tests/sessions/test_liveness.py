"""The live check, on fakeredis and on a real Redis: what it says, and how it travels."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import uvloop

from gateway.sessions.connect import Endpoint, open_client
from gateway.sessions.epochs import Epochs
from gateway.sessions.liveness import Liveness, Verdict
from tests.redis_server import RedisServer, free_port
from tests.sessions.world import Tally, checking, eventually, in_loop, login, opened

TOKEN = "0" + "t" * 22


@in_loop
async def test_a_token_is_alive_while_its_session_is_and_it_is_not_revoked(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world, checking(url, prefix) as live:
        session = await world.store.create(login())
        token, other = session.id[0] + "t" * 22, session.id[0] + "o" * 22
        assert await live.alive(session.id, token) is Verdict.ALIVE
        await world.store.revoke_token(token, int(time.time()) + 60)
        assert await live.alive(session.id, token) is Verdict.ENDED
        assert await live.alive(session.id, other) is Verdict.ALIVE
        await world.store.end(session.id)
        assert await live.alive(session.id, other) is Verdict.ENDED


@in_loop
async def test_every_way_of_ending_a_session_is_seen_by_the_very_next_check(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix, max_sessions=1) as world, checking(url, prefix) as live:
        replaced = await world.store.create(login(device="laptop"))
        by_reuse = await world.store.create(login(device="laptop"))
        assert await live.alive(replaced.id, TOKEN) is Verdict.ENDED
        await world.store.rotate(by_reuse.id, 7)
        assert await live.alive(by_reuse.id, TOKEN) is Verdict.ENDED
        over_the_cap = await world.store.create(login())
        signed_out = await world.store.create(login())
        assert await live.alive(over_the_cap.id, TOKEN) is Verdict.ENDED
        assert await live.alive(signed_out.id, TOKEN) is Verdict.ALIVE
        await world.store.end_all("u-1")
        assert await live.alive(signed_out.id, TOKEN) is Verdict.ENDED


@pytest.mark.parametrize(
    ("session_id", "token_id"),
    [("", ""), ("0" * 23, ""), ("\ud800", "é"), ("x\r\n$1\r\n1", "\0" * 300), ("0", "*1\r\n")],
)
@in_loop
async def test_ids_of_any_form_are_just_unknown_sessions(
    url: Endpoint, prefix: str, session_id: str, token_id: str
) -> None:
    async with checking(url, prefix) as live:
        assert await live.alive(session_id, token_id) is Verdict.ENDED
        assert await live.alive("0" * 23, TOKEN) is Verdict.ENDED


@in_loop
async def test_a_mixed_batch_gives_each_ask_its_own_verdict(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world, checking(url, prefix) as live:
        sessions = [await world.store.create(login(f"u-{number}")) for number in range(30)]
        for session in sessions[::3]:
            await world.store.end(session.id)
        for session in sessions[1::3]:
            await world.store.revoke_token(session.id[::-1], int(time.time()) + 60)
        found = await asyncio.gather(*(live.alive(session.id, session.id[::-1]) for session in sessions))
        assert found == [Verdict.ENDED, Verdict.ENDED, Verdict.ALIVE] * 10


@in_loop
async def test_an_answer_never_comes_inside_the_ask(url: Endpoint, prefix: str) -> None:
    async with checking(url, prefix) as live:
        tally = Tally()
        tally.ask(live, live.keys("0" * 23, TOKEN))
        assert tally.answers == [[]]
        await tally.all_answered()
        assert tally.verdicts() == [Verdict.ENDED]


@in_loop
async def test_an_answer_may_ask_again(url: Endpoint, prefix: str) -> None:
    async with checking(url, prefix) as live:
        keys, tally = live.keys("0" * 23, TOKEN), Tally()
        live.ask(keys, lambda _: tally.ask(live, keys))
        await eventually(lambda: bool(tally.answers))
        await tally.all_answered()
        assert tally.verdicts() == [Verdict.ENDED]


@in_loop
async def test_an_answer_that_fails_does_not_take_the_others_with_it(url: Endpoint, prefix: str) -> None:
    async with checking(url, prefix) as live:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        keys, tally = live.keys("0" * 23, TOKEN), Tally()

        def fail(_: int) -> None:
            raise RuntimeError("a request went wrong")

        tally.ask(live, keys)
        live.ask(keys, fail)
        tally.ask(live, keys)
        await tally.all_answered()
        assert tally.verdicts() == [Verdict.ENDED] * 2
        assert [str(context["exception"]) for context in told] == ["a request went wrong"]
        assert await live.alive("0" * 23, TOKEN) is Verdict.ENDED


@in_loop
async def test_a_caller_that_gave_up_is_no_error(url: Endpoint, prefix: str) -> None:
    async with checking(url, prefix) as live:
        waiting = asyncio.ensure_future(live.alive("0" * 23, TOKEN))
        await asyncio.sleep(0)
        waiting.cancel()
        assert await live.alive("0" * 23, TOKEN) is Verdict.ENDED
        assert waiting.cancelled()


@in_loop
async def test_closing_answers_what_is_waiting(url: Endpoint, prefix: str) -> None:
    live = Liveness(url, prefix, 5, Epochs(open_client(url, 5), prefix, 5))
    live.start()
    tally = Tally()
    for _ in range(10):
        tally.ask(live, live.keys("0" * 23, TOKEN))
    await asyncio.sleep(0)
    await live.close()
    tally.ask(live, live.keys("0" * 23, TOKEN))
    await tally.all_answered()
    assert tally.verdicts()[-1] == Verdict.UNAVAILABLE
    assert Verdict.ALIVE not in tally.verdicts()
    assert not live.up


@in_loop
async def test_the_observer_is_told_of_each_batch(url: Endpoint, prefix: str) -> None:
    seen: list[tuple[int, float]] = []
    async with checking(url, prefix, observe=lambda size, seconds: seen.append((size, seconds))) as live:
        await asyncio.gather(*(live.alive("0" * 23, TOKEN) for _ in range(7)))
        await live.alive("0" * 23, TOKEN)
    assert [size for size, _ in seen] == [7, 1]
    assert all(0 < seconds < 5 for _, seconds in seen)


def mget_calls(server: RedisServer) -> int:
    with server.client() as client:
        stats: Any = client.info("commandstats")
        return int(stats.get("cmdstat_mget", {}).get("calls", 0))


@in_loop
async def test_all_asks_of_one_tick_are_one_command(shared_redis: RedisServer, prefix: str) -> None:
    async with checking(shared_redis.url, prefix) as live:
        before = mget_calls(shared_redis)
        await asyncio.gather(*(live.alive("0" * 23, TOKEN) for _ in range(200)))
        assert mget_calls(shared_redis) - before == 1
        await live.alive("0" * 23, TOKEN)
        assert mget_calls(shared_redis) - before == 2


@in_loop
async def test_answers_belong_to_their_asks_however_the_asks_fall_into_batches(
    shared_redis: RedisServer, prefix: str
) -> None:
    async with opened(shared_redis.url, prefix) as world, checking(shared_redis.url, prefix, timeout=5) as live:
        session = await world.store.create(login())
        alive, ended = live.keys(session.id, TOKEN), live.keys("0" * 23, TOKEN)
        tally, expected = Tally(), []
        for tick in range(100):
            for number in range(tick % 40 + 1):
                tally.ask(live, alive if (tick + number) % 3 else ended)
                expected.append(Verdict.ALIVE if (tick + number) % 3 else Verdict.ENDED)
            await asyncio.sleep(0)
        await tally.all_answered()
        assert tally.verdicts() == expected


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_it_works_on_uvloop(shared_redis: RedisServer, prefix: str, kind: str) -> None:
    """uvloop's transports are no subclasses of asyncio's."""
    url = shared_redis.url if kind == "tcp" else shared_redis.unix_url

    async def main() -> None:
        async with opened(url, prefix) as world, checking(url, prefix) as live:
            session = await world.store.create(login())
            found = await live.alive(session.id, TOKEN), await live.alive("0" * 23, TOKEN)
            assert found == (Verdict.ALIVE, Verdict.ENDED)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@in_loop
async def test_what_finds_no_room_is_refused_at_once_and_the_rest_answered(
    shared_redis: RedisServer, prefix: str
) -> None:
    async with checking(shared_redis.url, prefix, max_waiting=5) as live:
        tally = Tally()
        for _ in range(8):
            tally.ask(live, live.keys("0" * 23, TOKEN))
        await tally.all_answered()
        assert tally.verdicts() == [Verdict.ENDED] * 5 + [Verdict.UNAVAILABLE] * 3
        assert await live.alive("0" * 23, TOKEN) is Verdict.ENDED


def test_a_malformed_prefix_or_url_is_refused() -> None:
    epochs = Epochs(open_client("memory://", 1), "gw", 1)
    for prefix in ("", "a{b}", "a b", "é", "x" * 65, "a\n"):
        with pytest.raises(ValueError, match="prefix"):
            Liveness("memory://", prefix, 1, epochs)
    with pytest.raises(ValueError, match="URL"):
        Liveness("http://127.0.0.1", "gw", 1, epochs)


@in_loop
async def test_asks_made_while_a_batch_is_under_way_share_the_next(own_redis: RedisServer, prefix: str) -> None:
    seen: list[int] = []
    async with checking(own_redis.url, prefix, timeout=5, observe=lambda size, _: seen.append(size)) as live:
        keys, tally = live.keys("0" * 23, TOKEN), Tally()
        own_redis.pause()
        for _ in range(20):
            tally.ask(live, keys)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        own_redis.resume()
        await tally.all_answered()
    assert tally.verdicts() == [Verdict.ENDED] * 20
    assert seen == [1, 19]


@in_loop
async def test_a_refusal_that_asks_again_while_redis_is_down_is_answered_too(prefix: str) -> None:
    async with checking(f"redis://127.0.0.1:{free_port()}", prefix, timeout=0.25, ready=False, max_waiting=1) as live:
        keys, tally, sizes = live.keys("0" * 23, TOKEN), Tally(), []
        assert await live.alive("0" * 23, TOKEN) is Verdict.UNAVAILABLE
        live._observe = lambda size, _: sizes.append(size)
        tally.ask(live, keys)
        live.ask(keys, lambda _: tally.ask(live, keys))
        await eventually(lambda: len(tally.answers) == 2)
        await tally.all_answered()
        assert tally.verdicts() == [Verdict.UNAVAILABLE] * 2
        assert 0 not in sizes
