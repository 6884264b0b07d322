"""The sessions of a run: some stay alive throughout, some have ended and must stay so."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.chaos.servers import until
from tests.e2e.harness import PASSWORD, Gateway, Site
from tests.e2e.wire import Answer, ask, json_request, request

USERS = ("alice", "carol", "bob")  # three partitions


@dataclass(slots=True)
class Held:
    """What a client holds of a session. `refresh` is the newest refresh token that it was given."""

    id: str
    access: str = field(repr=False)
    refresh: str = field(repr=False)

    @property
    def guarded(self) -> bytes:
        return request("GET", "/guarded/x", token=self.access)


@dataclass(slots=True)
class Sessions:
    """`kept` are never ended; `stock` is for being ended while a fault lasts; `ended` grows by what was."""

    kept: list[Held]
    own: list[tuple[Held, Held]]  # for each replica: the one that is refreshed, the one that is renewed
    stock: list[Held]
    ended: list[Held] = field(default_factory=list)
    blacklisted: list[Held] = field(default_factory=list)  # the token is revoked, its session lives

    @classmethod
    def begin(cls, gateways: list[Gateway]) -> Sessions:
        def some(number: int) -> list[Held]:
            return [login(gateways[each % len(gateways)], USERS[each % len(USERS)]) for each in range(number)]

        own = [(login(gateway), login(gateway, "carol")) for gateway in gateways]
        return cls(kept=some(4), own=own, stock=some(4))

    def end_some(self, gateways: list[Gateway]) -> None:
        """End sessions and revoke tokens in every way there is, each at one of the replicas."""
        ways = (_logout, _revoke_refresh, _revoke_by_admin, _blacklist)
        for number, way in enumerate(ways):
            held = login(gateways[number % 2], USERS[number % len(USERS)])
            answer = decided(partial(way, gateways[(number + 1) % 2], held))
            assert answer.status in (200, 204), answer
            (self.blacklisted if way is _blacklist else self.ended).append(held)

    @property
    def void(self) -> list[Held]:
        """Those whose access token nobody may accept."""
        return self.ended + self.blacklisted


def login(gateway: Gateway, user: str = "alice") -> Held:
    data = json_request("POST", "/auth/login", {"username": user, "password": PASSWORD})
    return held(decided(lambda: ask(gateway.port, data)).json())


def decided(call: Callable[[], Answer]) -> Answer:
    """Return the first answer that is no 503: what a noisy machine makes late can be asked for again."""
    answers: list[Answer] = []

    def answered() -> bool:
        answers.append(call())
        return answers[-1].status != 503

    until(answered, "an answer that is no 503")
    return answers[-1]


def held(content: dict[str, Any]) -> Held:
    return Held(content["session_id"], content["access_token"], content["refresh_token"])


def expired_token(site: Site, session: Held) -> str:
    """Return an access token of this session that expired an hour ago."""
    minted = site.signer().mint(
        subject="u-carol", session_id=session.id, counter=0, roles=[], scope="", claims={}, now=time.time() - 4200
    )
    return minted.token


def _logout(gateway: Gateway, session: Held) -> Answer:
    return ask(gateway.port, request("POST", "/auth/logout", body=b"", token=session.access))


def _revoke_refresh(gateway: Gateway, session: Held) -> Answer:
    return _form(gateway, f"token={session.refresh}")


def _blacklist(gateway: Gateway, session: Held) -> Answer:
    return _form(gateway, f"token={session.access}")


def _revoke_by_admin(gateway: Gateway, session: Held) -> Answer:
    return gateway.operate("DELETE", f"/admin/sessions/{session.id}")


def _form(gateway: Gateway, body: str) -> Answer:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return ask(gateway.port, request("POST", "/auth/revoke", headers, body.encode()))
