"""Every key ends with what it stands for, whatever was done; nothing but the epochs is left."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from gateway.sessions.connect import Endpoint
from gateway.sessions.keyspace import Keyspace
from gateway.sessions.record import Session
from tests.sessions.world import Clock, World, in_loop, login, opened

NEARLY = 0.05  # seconds, of Redis' rounding


@dataclass
class Crowd:
    """Users who sign in, refresh, sign out and try, at random; and when each of their keys should end."""

    world: World
    clock: Clock
    chance: random.Random
    alive: dict[str, Session] = field(default_factory=dict)
    revoked: dict[str, float] = field(default_factory=dict)
    voided: dict[str, float] = field(default_factory=dict)

    async def act(self) -> None:
        store, chance = self.world.store, self.chance
        session = chance.choice(list(self.alive.values()) or [None])
        kind = chance.choice(["login", "login", "login", "refresh", "refresh", "mark", "end", "all", "token", "void"])
        self.clock.push(chance.choice([0, 0.3, 7]))
        if kind == "login" or session is None:
            new = await store.create(login(f"u-{chance.randrange(40)}", chance.choice(["", "laptop", "phone"])))
            self.alive = {s.id: s for s in self.alive.values() if s.subject != new.subject}
            self.alive |= {s.id: s for s in await store.list(new.subject)}
        elif kind == "refresh":
            rotation = await store.rotate(session.id, session.counter)
            assert rotation.session is not None
            self.alive[session.id] = rotation.session
        elif kind == "mark":
            await store.mark_used(session.id, session.counter)
        elif kind == "end":
            assert await store.end(session.id)
            del self.alive[session.id]
        elif kind == "all":
            for ended in await store.end_all(session.subject):
                del self.alive[ended]
        elif kind == "token":
            token, end = f"{session.id[0]}{chance.randrange(10**20)}", int(self.clock()) + chance.randrange(60, 600)
            await store.revoke_token(token, end)
            self.revoked[token] = end + 10
        else:
            subject, life = f"~issuer:{chance.randrange(20)}", chance.randrange(60, 600)
            await store.set_not_before(subject, int(self.clock()), life)
            self.voided[subject] = max(self.voided.get(subject, 0), time.time() + life)
        await store.attempt("login", f"u-{chance.randrange(40)}", 10)

    def ends(self) -> dict[bytes, float]:
        """Return what is to be there, bar attempts and epochs, and when each ends in Unix seconds."""
        keys = Keyspace(self.world.prefix)
        found = {keys.session(s.id): float(s.expires_at) for s in self.alive.values()}
        for session in self.alive.values():
            user = keys.user(session.subject)
            found[user] = max(found.get(user, 0.0), session.expires_at)
        found |= {keys.revoked(token): end for token, end in self.revoked.items()}
        return found | {keys.not_before(subject): end for subject, end in self.voided.items()}


@in_loop
async def test_after_a_crowd_every_key_but_the_epochs_ends_with_what_it_stands_for(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock, refresh_ttl=7200, session_ttl=9000, timeout=10) as world:
        crowd = Crowd(world, clock, random.Random(4))
        for _ in range(500):
            await crowd.act()
        expected = crowd.ends()
        assert len(crowd.alive) > 20
        assert len(crowd.revoked) > 10
        assert len(crowd.voided) > 10
        for key, end in expected.items():
            found = await world.ends_at(key)
            assert found is not None, key
            assert abs(found - end) < (NEARLY if b":not-before:" not in key else 5), key
        rest = {name for name in await world.names() if name.encode() not in expected}
        assert rest
        for name in rest:
            assert ":attempt:" in name
            last = await world.ends_at(name)
            assert last is not None
            assert last - time.time() <= 60 + NEARLY


@in_loop
async def test_when_all_has_ended_nothing_but_the_epochs_is_left(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock, refresh_ttl=7200, session_ttl=9000, timeout=10) as world:
        crowd = Crowd(world, clock, random.Random(5))
        for _ in range(200):
            await crowd.act()
        for name in await world.names():  # as if that much time had passed: Redis' own clock cannot be pushed
            left = await world.raw.pttl(name)
            assert left > 0, name
            await world.raw.pexpire(name, left - 10**8)
        assert await world.names() == set()
        left_over = await world.raw.keys(f"{prefix}:*")
        assert left_over
        assert all(key.endswith(b":epoch") for key in left_over)
        for key in left_over:
            assert await world.raw.pttl(key) == -1


@in_loop
async def test_a_not_before_is_never_lowered_nor_cut_short(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        key = Keyspace(prefix).not_before("~issuer:u-1")
        for moment, life, holds, lasts in ((1000, 60, 1000, 60), (900, 600, 1000, 600), (2000, 5, 2000, 600)):
            await world.store.set_not_before("~issuer:u-1", moment, life)
            assert await world.raw.get(key) == b"%d" % holds
            end = await world.ends_at(key)
            assert end is not None
            assert abs(end - time.time() - lasts) < 5
