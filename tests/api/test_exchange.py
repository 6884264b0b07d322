"""Token exchange against a revocation of the subject token at the same time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from gateway.errors import GatewayError, InvalidRequest, StoreUnavailable
from gateway.grants import Place
from gateway.identity import Identity
from gateway.tokens.foreign import Issuers
from tests.api.support import Stack, code, stack
from tests.tokens.foreign_support import IDP, RULES, foreign_claims, issuers, token

PLACE = Place("", "192.0.2.7", "")
EXCHANGED = replace(RULES, exchange_prefix="idp|")
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"


def subject_token(**claims: object) -> str:
    now = int(time.time())
    return token(foreign_claims(**({"iat": now, "exp": now + 600} | claims))).decode()


@pytest.mark.parametrize("error", [InvalidRequest("subject_token was revoked"), StoreUnavailable("live check")])
def test_a_token_that_is_revoked_while_it_is_exchanged_leaves_no_session(error: GatewayError) -> None:
    """Contract 6.3: whoever revoked it was answered before, so the session must not come of it."""

    async def run() -> None:
        async with stack(issuers=others()) as s:
            claims = s.verifier.verify(subject_token().encode(), time.time())
            before: list[int] = []

            async def revoked() -> None:
                before.append(len(await s.store.list("idp|f-1")))
                raise error

            with pytest.raises(type(error)):
                await s.services.grants.exchange(claims, PLACE, revoked)
            assert before == [1]
            assert await s.store.list("idp|f-1") == []

    asyncio.run(run())


def test_a_revocation_of_the_user_is_seen_by_an_exchange_that_had_checked_before() -> None:
    async def run() -> None:
        async with stack(issuers=others(), store_clock=False) as s:
            await _store_is_older(s)
            claims = s.verifier.verify(subject_token().encode(), time.time())
            assert await s.services.gate.check(claims) == 0

            async def still_alive() -> None:
                await s.services.grants.void_foreign(IDP, "f-1", issued_at=claims.iat, by="user")
                if await s.services.gate.check(claims):
                    raise InvalidRequest("revoked")

            with pytest.raises(InvalidRequest):
                await s.services.grants.exchange(claims, PLACE, still_alive)
            assert await s.store.list("idp|f-1") == []

    asyncio.run(run())


def others() -> Issuers:
    return issuers(EXCHANGED)


async def _store_is_older(s: Stack) -> None:
    """Wait until the second has passed in which the store was born."""
    for _ in range(300):
        claims = s.verifier.verify(subject_token().encode(), time.time())
        if await s.services.gate.check(claims) == 0:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the store is not older")


def test_an_exchange_through_the_api_makes_a_session() -> None:
    async def run() -> None:
        async with stack(issuers=others(), store_clock=False) as s:
            await _store_is_older(s)
            given = {
                "grant_type": GRANT,
                "subject_token": subject_token(),
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            }
            response = await s.client.post("/auth/token", data=given)
            assert response.status_code == 200, response.text
            assert (await s.me(response.json()["access_token"])).json()["sub"] == "idp|f-1"
            twice = "grant_type=x&grant_type=y"
            form = {"content-type": "application/x-www-form-urlencoded"}
            assert code(await s.client.post("/auth/token", content=twice, headers=form)) == (400, "invalid_request")

    asyncio.run(run())


def test_a_refresh_of_such_a_session_asks_no_provider() -> None:
    async def run() -> None:
        async with stack(issuers=others(), provider=Unasked) as s:
            claims = s.verifier.verify(subject_token().encode(), time.time())

            async def alive() -> None: ...

            tokens = await s.services.grants.exchange(claims, PLACE, alive)
            assert (await s.refresh(tokens.refresh_token)).status_code == 200

    asyncio.run(run())


class Unasked:
    """A provider that nobody may ask."""

    def __init__(self, users: object) -> None:
        pass

    async def authenticate(self, username: str, password: str, device: str, ip: str) -> Identity:
        raise AssertionError("asked")

    async def recheck(self, subject: str, session_id: str) -> Identity:
        raise AssertionError("asked")

    async def close(self) -> None: ...
