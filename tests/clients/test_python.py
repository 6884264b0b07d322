"""The Python client against a real gateway: nothing that uses it notices an expired token."""

from __future__ import annotations

import asyncio
import multiprocessing
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
from tokengate_client import (
    BodyNotReplayable,
    FileStore,
    HttpxAuth,
    InvalidCredentials,
    MemoryStore,
    NotSignedIn,
    Refused,
    RequestsAuth,
    Session,
    SignedOut,
    TooManyAttempts,
    Unavailable,
)
from tokengate_client.api import Answer, Api
from tokengate_client.clock import Moment, moment

from tests.clients.backend import EchoBackend
from tests.clients.conftest import BRIEF
from tests.e2e.harness import PASSWORD, Gateway, Site, route
from tests.redis_server import RedisServer

Send = Callable[[Session, str, str, bytes | None], int]


def url(gateway: Gateway) -> str:
    return f"http://127.0.0.1:{gateway.port}"


def signed_in(gateway: Gateway, user: str = "alice", **options: Any) -> Session:
    session = Session(url(gateway), **options)
    session.login(user, PASSWORD)
    return session


def stopped() -> Callable[[], Moment]:
    """Return a clock that stands still, so that the client learns of an expiry from the gateway alone."""
    at = moment()
    return lambda: at


@pytest.fixture(scope="module")
def expired(brief: Gateway) -> Callable[..., Session]:
    """Make sessions whose token has expired without their knowing."""

    waiting: list[Session] = []

    def make() -> Session:
        if not waiting:
            waiting.extend(signed_in(brief, now=stopped()) for _ in range(8))
            time.sleep(BRIEF + 0.2)  # for the gateway's own clock, once for all of them
        return waiting.pop()

    return make


def by_httpx(session: Session, method: str, path: str, body: bytes | None) -> int:
    with httpx.Client(base_url=session.base_url, auth=HttpxAuth(session)) as client:
        return client.request(method, path, content=body).status_code


def by_httpx_async(session: Session, method: str, path: str, body: bytes | None) -> int:
    async def send() -> int:
        async with httpx.AsyncClient(base_url=session.base_url, auth=HttpxAuth(session)) as client:
            return (await client.request(method, path, content=body)).status_code

    return asyncio.run(send())


def by_requests(session: Session, method: str, path: str, body: bytes | None) -> int:
    with requests.Session() as client:
        return client.request(method, session.base_url + path, data=body, auth=RequestsAuth(session)).status_code


ways = pytest.mark.parametrize(
    "send", [by_httpx, by_httpx_async, by_requests], ids=["httpx", "httpx async", "requests"]
)


def rotated(gateway: Gateway) -> float:
    return gateway.metric("tokengate_refreshes_total", outcome="rotated")


@ways
def test_a_request_carries_the_token_of_the_session(gateway: Gateway, send: Send) -> None:
    assert send(signed_in(gateway), "GET", "/api/hello", None) == 200


@ways
def test_a_request_that_meets_an_expired_token_is_sent_again_with_its_body(
    expired: Callable[..., Session], echo: EchoBackend, send: Send
) -> None:
    path = f"/api/kept/{send.__name__}"
    assert send(expired(), "POST", path, b"kept") == 200
    assert echo.counts[f"POST {path}"] == 1


@pytest.fixture
def robbed(shared_redis: RedisServer, echo: EchoBackend) -> Iterator[Callable[[], Gateway]]:
    """A gateway of its own, by a function that replaces its signing key."""
    with Site(shared_redis.url) as site, site.serve(routes=[route("/api/", echo.url)]) as gateway:

        def replace() -> Gateway:
            site.replace_signing_key()
            assert gateway.operate("POST", "/admin/keys/reload").status == 200
            return gateway

        replace()
        yield replace


@ways
def test_a_request_whose_signing_key_was_removed_is_sent_again_with_a_new_token(
    robbed: Callable[[], Gateway], echo: EchoBackend, send: Send
) -> None:
    clock = [moment()]
    session = signed_in(robbed(), now=lambda: clock[0])
    before = rotated(robbed())
    clock[0] = Moment(clock[0].steady + 40, clock[0].wall + 40)
    path = f"/api/robbed/{send.__name__}"
    assert [send(session, "POST", path, b"kept") for _ in range(2)] == [200, 200]
    assert echo.counts[f"POST {path}"] == 2
    assert rotated(robbed()) == before + 1
    clock[0] = Moment(clock[0].steady + 40, clock[0].wall + 40)
    assert session.sessions()[0].current


@ways
def test_where_a_new_token_is_called_invalid_too_requests_do_not_ask_for_more_of_them(
    robbed: Callable[[], Gateway], send: Send
) -> None:
    session = signed_in(robbed(), now=stopped())
    before = rotated(robbed())
    assert [send(session, "GET", "/api/x", None) for _ in range(3)] == [401, 401, 401]
    assert rotated(robbed()) == before
    assert session.signed_in


@ways
def test_a_session_that_was_ended_elsewhere_is_told_once_and_the_answer_is_the_gateways(
    gateway: Gateway, send: Send
) -> None:
    reasons: list[str] = []
    session = signed_in(gateway, on_signed_out=reasons.append)
    gateway.operate("DELETE", f"/admin/sessions/{session.id}")
    assert [send(session, "GET", "/api/x", None) for _ in range(3)] == [401, 401, 401]
    assert reasons == ["revoked"]
    assert not session.signed_in


@ways
def test_no_token_goes_to_another_origin(gateway: Gateway, echo: EchoBackend, send: Send) -> None:
    session = signed_in(gateway)
    calls: list[str] = []
    session.on_refreshed = lambda: calls.append("refreshed")
    auth = RequestsAuth(session)
    prepared = requests.Request("GET", f"{echo.url}/x", auth=auth).prepare()
    assert "Authorization" not in prepared.headers
    with httpx.Client(auth=HttpxAuth(session)) as client:
        assert "Authorization" not in client.get(f"{echo.url}/x").request.headers
    assert send(session, "GET", "/api/x", None) == 200
    assert calls == []


def test_a_hundred_threads_over_an_expiry_make_one_refresh(brief: Gateway, expired: Callable[..., Session]) -> None:
    session = expired()
    before = rotated(brief)
    with (
        httpx.Client(base_url=session.base_url, auth=HttpxAuth(session), timeout=30) as client,
        ThreadPoolExecutor(100) as pool,
    ):
        answers = list(pool.map(lambda n: client.get(f"/api/thread/{n}").status_code, range(100)))
    assert set(answers) == {200}
    assert rotated(brief) - before == 1


def test_a_hundred_tasks_over_an_expiry_make_one_refresh(brief: Gateway, expired: Callable[..., Session]) -> None:
    session = expired()
    before = rotated(brief)

    async def crowd() -> list[int]:
        async with httpx.AsyncClient(base_url=session.base_url, auth=HttpxAuth(session), timeout=30) as client:
            return [
                answer.status_code for answer in await asyncio.gather(*(client.get("/api/task") for _ in range(100)))
            ]

    assert set(asyncio.run(crowd())) == {200}
    assert rotated(brief) - before == 1


def test_a_token_is_refreshed_ahead_of_its_end(gateway: Gateway) -> None:
    pushed = 0.0

    def now() -> Moment:
        return Moment(time.monotonic() + pushed, time.time() + pushed)

    session = signed_in(gateway, now=now)
    token = session.token()
    pushed = 590.0
    assert session.token() is not token


@pytest.mark.parametrize("jump", [Moment(0.0, 590.0), Moment(590.0, 0.0)], ids=["wall", "steady"])
def test_of_two_clocks_the_one_that_went_further_counts(gateway: Gateway, jump: Moment) -> None:
    pushed = Moment(0.0, 0.0)

    def now() -> Moment:
        return Moment(time.monotonic() + pushed.steady, time.time() + pushed.wall)

    session = signed_in(gateway, now=now)
    token = session.token()
    pushed = jump
    assert session.token() is not token


def test_a_wall_clock_that_is_set_back_makes_no_token_young(gateway: Gateway) -> None:
    pushed = Moment(0.0, 0.0)

    def now() -> Moment:
        return Moment(time.monotonic() + pushed.steady, time.time() + pushed.wall)

    session = signed_in(gateway, now=now)
    token = session.token()
    pushed = Moment(590.0, -3600.0)
    assert session.token() is not token


@ways
def test_a_body_that_can_be_read_once_gets_a_clear_error_and_its_second_try_works(
    expired: Callable[..., Session], send: Send
) -> None:
    session = expired()

    def pieces() -> Iterator[bytes]:
        yield b"streamed"

    async def pieces_async() -> object:
        yield b"streamed"

    body = pieces_async if send is by_httpx_async else pieces
    with pytest.raises(BodyNotReplayable, match="start the upload again"):
        send(session, "PUT", "/api/upload", body())  # type: ignore[arg-type]
    assert send(session, "PUT", "/api/upload", body()) == 200  # type: ignore[arg-type]


def test_requests_rewinds_a_file(expired: Callable[..., Session]) -> None:
    session = expired()
    file = BytesIO(b"skipped rest")
    file.seek(8)
    answer = requests.put(f"{session.base_url}/api/file", data=file, auth=RequestsAuth(session), timeout=30)
    assert answer.json()["body"] == "rest"


class Lossy(Api):
    """An API some of whose answers are lost on their way back."""

    lose = 0

    def _once(self, method: str, path: str, content: object, token: str) -> Answer | None:
        answer = super()._once(method, path, content, token)
        if path == "/auth/token" and self.lose:
            self.lose -= 1
            return None
        return answer


def test_a_lost_refresh_answer_costs_nothing(gateway: Gateway) -> None:
    reasons: list[str] = []
    session = signed_in(gateway, on_signed_out=reasons.append)
    api = Lossy(session.base_url, 30.0, 10.0, sleep=lambda seconds: None)
    api.lose, session.api = 3, api
    session.refresh()
    session.refresh()
    assert api.lose == 0
    assert by_httpx(session, "GET", "/api/x", None) == 200
    assert reasons == []


def test_an_outage_of_the_store_is_waited_for_and_signs_nobody_out(own_redis: RedisServer, echo: EchoBackend) -> None:
    reasons: list[str] = []
    with Site(own_redis.url) as site, site.serve(routes=[route("/api/", echo.url)]) as gateway:
        session = signed_in(gateway, patience=60.0, on_signed_out=reasons.append)
        own_redis.pause()
        found: list[int] = []
        threads = [
            threading.Thread(target=lambda: found.append(by_httpx(session, "POST", "/api/x", b"1"))),
            threading.Thread(target=lambda: found.append(by_requests(session, "POST", "/api/x", b"1"))),
            threading.Thread(target=session.refresh),
        ]
        for thread in threads:
            thread.start()
        gateway.wait_ready(503)
        own_redis.resume()
        for thread in threads:
            thread.join(50)
    assert found == [200, 200]
    assert reasons == []


def test_a_gateway_that_stays_away_is_an_error_with_a_text_and_the_session_goes_on(gateway: Gateway) -> None:
    session = signed_in(gateway)
    there, session.api = session.api, Api("http://127.0.0.1:1", 0.5, 1.0)
    with pytest.raises(Unavailable, match="still signed in"):
        session.refresh()
    assert session.signed_in
    session.api = there
    assert session.refresh().value


def test_wrong_passwords_and_too_many_of_them_have_errors_of_their_own(clients_site: Site, echo: EchoBackend) -> None:
    with clients_site.serve(routes=[route("/api/", echo.url)], limits={"login_per_user": 2}) as gateway:
        session = Session(url(gateway))
        for _ in range(2):
            with pytest.raises(InvalidCredentials):
                session.login("bob", "wrong")
        with pytest.raises(TooManyAttempts) as caught:
            session.login("bob", PASSWORD)
        assert caught.value.retry_after > 0


def test_who_never_signed_in_is_told_so(gateway: Gateway) -> None:
    session = Session(url(gateway))
    with pytest.raises(NotSignedIn):
        session.token()
    assert by_httpx(session, "GET", "/api/x", None) == 401
    assert by_requests(session, "GET", "/api/x", None) == 401


def test_a_refresh_of_an_ended_session_signs_out_once_and_the_callback_may_sign_in_again(gateway: Gateway) -> None:
    reasons: list[str] = []

    def again(reason: str) -> None:
        reasons.append(reason)
        session.login("alice", PASSWORD)

    session = signed_in(gateway, on_signed_out=again)
    gateway.operate("DELETE", f"/admin/sessions/{session.id}")
    with pytest.raises(SignedOut):
        session.refresh()
    assert reasons == ["session_ended"]
    assert by_httpx(session, "GET", "/api/x", None) == 200


def test_sessions_are_listed_and_ended(gateway: Gateway) -> None:
    here, there = signed_in(gateway, "carol", device="here"), signed_in(gateway, "carol", device="there")
    assert {session.device for session in here.sessions()} >= {"here", "there"}
    assert [session.id for session in here.sessions() if session.current] == [here.id]
    here.end_all(except_current=True)
    with pytest.raises(SignedOut):
        there.sessions()
    with pytest.raises(Refused) as caught:
        here.end("0" * 23)
    assert caught.value.status == 404
    here.end(here.id)
    assert not here.signed_in


def test_a_sign_out_ends_the_session_at_the_gateway_too(gateway: Gateway) -> None:
    session = signed_in(gateway)
    token = session.token().value
    session.logout()
    assert not session.signed_in
    answer = httpx.get(f"{url(gateway)}/api/x", headers={"Authorization": f"Bearer {token}"})
    assert answer.headers["X-Gateway-Error"] == "revoked_token"


def test_a_file_keeps_the_session_for_its_owner_alone(gateway: Gateway, tmp_path: Path) -> None:
    path = tmp_path / "kept" / "session"
    first = signed_in(gateway, store=FileStore(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert by_httpx(Session(url(gateway), store=FileStore(path)), "GET", "/api/x", None) == 200
    first.logout()
    assert not path.exists()


def _refresh_often(address: str, path: str, times: int) -> None:
    session = Session(address, store=FileStore(path))
    for _ in range(times):
        session.refresh()


def test_processes_that_share_a_file_refresh_one_after_the_other(gateway: Gateway, tmp_path: Path) -> None:
    path = tmp_path / "session"
    session = signed_in(gateway, store=FileStore(path))
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_refresh_often, args=(url(gateway), str(path), 5)) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join(50)
    assert [other.exitcode for other in others] == [0, 0, 0]
    assert session.refresh().value


def test_no_secret_is_in_what_a_program_may_print(gateway: Gateway) -> None:
    session = signed_in(gateway, store=MemoryStore())
    token = session.token()
    assert token.value not in repr(session) + repr(token) + str(session.__dict__)
