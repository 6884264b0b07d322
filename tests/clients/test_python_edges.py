"""The Python client at the edges: stores that fail, answers that come late or from elsewhere, callers that go away."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
from tokengate_client import (
    FileStore,
    HttpxAuth,
    MemoryStore,
    NotSignedIn,
    RequestsAuth,
    Session,
    SignedOut,
    StorageFailed,
    TooManyAttempts,
    Unavailable,
)
from tokengate_client.api import Answer, Api
from tokengate_client.clock import Moment, moment

from tests.clients.backend import EchoBackend
from tests.clients.test_python import by_httpx, by_requests, expired, signed_in, stopped, url, ways
from tests.e2e.harness import PASSWORD, Gateway, Site, route
from tests.served import served

__all__ = ["expired"]  # the fixture

Send = Callable[[Session, str, str, bytes | None], int]


class Failing(MemoryStore):
    """A store that raises where it is told to."""

    def __init__(self, *failing: str) -> None:
        super().__init__()
        self.failing = set(failing)

    def load(self) -> str | None:
        self._check("load")
        return super().load()

    def save(self, refresh_token: str) -> None:
        self._check("save")
        super().save(refresh_token)

    def clear(self) -> None:
        self._check("clear")
        super().clear()

    def lock(self) -> AbstractContextManager[None]:
        self._check("lock")
        return super().lock()

    def _check(self, name: str) -> None:
        if name in self.failing:
            raise OSError(28, os.strerror(28))


class Elsewhere(ThreadingHTTPServer):
    """Another server: every answer has this status and these headers."""

    daemon_threads = True

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Fixed)
        self.status, self.headers = status, headers
        self.seen: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Fixed(BaseHTTPRequestHandler):
    server: Elsewhere

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.server.seen.append(dict(self.headers))
        self.send_response(self.server.status)
        for name, value in {"Content-Length": "0", **self.server.headers}.items():
            self.send_header(name, value)
        self.end_headers()

    do_POST = do_GET  # noqa: N815  # http.server's name

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        """Say nothing."""


@contextmanager
def elsewhere(status: int, **headers: str) -> Iterator[Elsewhere]:
    with served(Elsewhere(status, {name.replace("_", "-"): value for name, value in headers.items()})) as server:
        yield server


class Watched(Api):
    """An API that tells each call to `watch(path)`, which may give another answer, None for a lost one."""

    def __init__(self, base_url: str, watch: Callable[[str], Any]) -> None:
        super().__init__(base_url, 5.0, 10.0, sleep=lambda seconds: None)
        self.watch = watch

    def _once(self, method: str, path: str, content: object, token: str) -> Answer | None:
        found: Answer | None = super()._once(method, path, content, token)
        instead = self.watch(path)
        return found if instead is ... else instead


def by_httpx_following(session: Session, target: str) -> int:
    with httpx.Client(auth=HttpxAuth(session), follow_redirects=True) as client:
        return client.post(target, content=b"order").status_code


def by_requests_following(session: Session, target: str) -> int:
    return requests.post(target, data=b"order", auth=RequestsAuth(session), timeout=10).status_code


@pytest.mark.parametrize("send", [by_httpx_following, by_requests_following], ids=["httpx", "requests"])
@pytest.mark.parametrize("code", ["expired_token", "revoked_token"])
def test_a_redirect_to_another_server_takes_no_token_there_and_its_word_counts_for_nothing(
    gateway: Gateway, clients_site: Site, send: Callable[[Session, str], int], code: str
) -> None:
    with (
        elsewhere(401, X_Gateway_Error=code) as thief,
        elsewhere(307, Location=f"{thief.url}/taken") as backend,
        clients_site.serve(routes=[route("/api/", backend.url)]) as redirecting,
    ):
        session = signed_in(redirecting)
        assert send(session, f"{session.base_url}/api/order") == 401
        assert len(backend.seen) == 1
        assert len(thief.seen) == 1
        assert "Authorization" not in thief.seen[0]
        assert session.signed_in


def test_a_refresh_token_does_not_follow_a_redirect() -> None:
    with elsewhere(200) as thief, elsewhere(307, Location=f"{thief.url}/auth/token") as portal:
        store = MemoryStore()
        store.save("rt1.secret")
        session = Session(portal.url, store=store, patience=0.2)
        with pytest.raises(Exception, match="refused"):
            session.refresh()
        assert portal.seen
        assert thief.seen == []
        assert store.load() == "rt1.secret"


def test_a_sign_in_that_cannot_be_kept_is_an_error_with_a_text_and_leaves_no_session_behind(gateway: Gateway) -> None:
    calls: list[str] = []

    def watch(path: str) -> Any:
        calls.append(path)
        return ...

    session = Session(url(gateway), store=Failing("save"))
    session.api = Watched(session.base_url, watch)
    with pytest.raises(StorageFailed, match="cannot be kept") as caught:
        session.login("alice", PASSWORD)
    assert isinstance(caught.value.__cause__, OSError)
    assert calls == ["/auth/login", "/auth/logout"]
    assert not session.signed_in


@pytest.mark.parametrize("failing", [("save",), ("save", "load"), ("save", "load", "lock", "clear")], ids=" ".join)
def test_a_store_that_fails_later_costs_no_request(
    gateway: Gateway, failing: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    store = Failing()
    session = signed_in(gateway, store=store)
    store.failing |= set(failing)
    for _ in range(3):
        session.refresh()
        assert by_httpx(session, "GET", "/api/x", None) == 200
    assert any(record.name == "tokengate_client" for record in caplog.records)
    assert session.token().value not in caplog.text
    assert session.token().refresh_token not in caplog.text
    session.logout()
    assert not session.signed_in


def test_a_store_that_cannot_be_read_is_one_without_a_session(gateway: Gateway) -> None:
    with pytest.raises(NotSignedIn):
        Session(url(gateway), store=Failing("load")).token()


def test_a_file_that_was_overwritten_holds_no_session(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "session").write_bytes(b"\xff\xfe\x00garbage")
    with pytest.raises(NotSignedIn):
        Session(url(gateway), store=FileStore(tmp_path / "session")).token()


def test_a_sign_out_that_comes_while_a_refresh_is_under_way_holds(gateway: Gateway) -> None:
    reasons: list[str] = []
    session = signed_in(gateway, on_signed_out=reasons.append)

    def watch(path: str) -> Any:
        if path == "/auth/token":
            session.logout()
        return ...

    session.api = Watched(session.base_url, watch)
    with pytest.raises(SignedOut):
        session.refresh()
    assert not session.signed_in
    assert session.store.load() is None
    assert reasons == ["logout"]


def test_a_sessions_end_takes_nothing_away_that_another_process_has_put_into_the_store(
    gateway: Gateway, tmp_path: Path
) -> None:
    reasons: list[str] = []
    first = signed_in(gateway, store=FileStore(tmp_path / "session"), on_signed_out=reasons.append)
    ended = first.id
    second = signed_in(gateway, "carol", store=FileStore(tmp_path / "session"))
    gateway.operate("DELETE", f"/admin/sessions/{ended}")
    assert by_httpx(first, "GET", "/api/x", None) == 401
    assert by_httpx(first, "GET", "/api/x", None) == 200, "it goes on with the session that is kept"
    assert first.id == second.id
    assert reasons == []


def test_sessions_that_share_a_store_go_on_from_each_others_refresh(gateway: Gateway, tmp_path: Path) -> None:
    one = signed_in(gateway, store=FileStore(tmp_path / "session"))
    other = Session(url(gateway), store=FileStore(tmp_path / "session"))
    for session in (other, one, one, other, one, other, other, one):
        session.refresh()
        assert by_httpx(session, "GET", "/api/x", None) == 200


@pytest.mark.parametrize(
    "content", [None, {}, [], {"access_token": "x"}, {"session_id": 1, "access_token": "x", "expires_in": 3}], ids=str
)
def test_an_answer_that_is_not_the_gateways_is_asked_for_again(gateway: Gateway, content: object) -> None:
    wrong = [Answer(200, "", 0.0, content), None]

    def watch(path: str) -> Any:
        return wrong.pop() if wrong and path == "/auth/token" else ...

    session = signed_in(gateway)
    session.api = Watched(session.base_url, watch)
    assert session.refresh().value
    assert wrong == []


def test_a_sign_in_whose_answer_is_lost_is_not_repeated_and_its_error_does_not_claim_a_session(
    gateway: Gateway,
) -> None:
    calls: list[str] = []
    session = Session(url(gateway))
    session.api = Watched(session.base_url, calls.append)
    with pytest.raises(Unavailable) as caught:
        session.login("alice", PASSWORD)
    assert "signed in" not in str(caught.value)
    assert calls == ["/auth/login"]


def test_too_many_attempts_say_when_the_next_one_may_be() -> None:
    with elsewhere(429, X_Gateway_Error="too_many_attempts", Retry_After="55") as server:
        with pytest.raises(TooManyAttempts) as caught:
            Session(server.url).login("alice", PASSWORD)
        assert caught.value.retry_after == 55


def test_a_refusal_of_a_refresh_by_something_else_keeps_a_token_that_is_still_good(gateway: Gateway) -> None:
    pushed = 0.0
    session = signed_in(gateway, now=lambda: Moment(moment().steady + pushed, moment().wall))
    session.api = Watched(session.base_url, lambda path: Answer(403, "", 0.0, None) if path == "/auth/token" else ...)
    pushed = 590.0
    assert by_httpx(session, "GET", "/api/x", None) == 200
    assert asyncio.run(session.token_async()) is session.token()


@ways
def test_a_session_that_ended_while_its_token_expired_gives_the_gateways_answer(
    expired: Callable[..., Session], brief: Gateway, send: Send
) -> None:
    session = expired()
    brief.operate("DELETE", f"/admin/sessions/{session.id}")
    assert send(session, "GET", "/api/x", None) == 401
    assert not session.signed_in


@ways
def test_a_sign_out_in_the_middle_of_a_request_gives_the_gateways_answer(
    expired: Callable[..., Session], send: Send
) -> None:
    session = expired()
    refresh = session.refresh

    def ending(*words: Any) -> Any:
        session.logout()
        return refresh(*words)

    session.refresh = ending  # type: ignore[method-assign,assignment]
    assert send(session, "GET", "/api/x", None) == 401


def test_a_callback_that_raises_is_logged_and_costs_no_request(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    def bad(*words: str) -> None:
        raise RuntimeError("the application's own")

    session = signed_in(gateway, on_refreshed=bad, on_signed_out=bad)
    session.refresh()
    assert by_httpx(session, "GET", "/api/x", None) == 200
    gateway.operate("DELETE", f"/admin/sessions/{session.id}")
    assert by_requests(session, "GET", "/api/x", None) == 401
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 2


def test_a_refresh_whose_callers_have_all_gone_fails_without_a_word(gateway: Gateway) -> None:
    complaints: list[dict[str, Any]] = []
    arrived, go = threading.Event(), threading.Event()

    def watch(path: str) -> Any:
        arrived.set()
        go.wait(10)
        return Answer(403, "", 0.0, None)

    session = signed_in(gateway)
    session.api = Watched(session.base_url, watch)

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        waiting = asyncio.create_task(session.refresh_async())
        await asyncio.to_thread(arrived.wait, 10)
        waiting.cancel()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        flights = list(session._flights.values())
        await asyncio.wait(flights)

    asyncio.run(run())
    assert complaints == []


def test_a_form_with_files_is_sent_again_by_httpx(expired: Callable[..., Session], echo: EchoBackend) -> None:
    session = expired()
    with httpx.Client(base_url=session.base_url, auth=HttpxAuth(session)) as client:
        answer = client.post("/api/form", files={"file": ("a.txt", io.BytesIO(b"the whole file"))}, data={"a": "1"})
    assert answer.status_code == 200
    assert "the whole file" in answer.json()["body"]


def test_requests_follows_a_redirect_of_its_own_origin_over_an_expiry(clients_site: Site, echo: EchoBackend) -> None:
    with elsewhere(303, Location="/api/there") as backend:
        routes = [route("/api/", echo.url), route("/go/", backend.url, auth="none")]
        tokens = {"access_ttl": "1s", "leeway": "0s"}
        with clients_site.serve(routes=routes, tokens=tokens) as gateway:
            session = signed_in(gateway, now=stopped())
            threading.Event().wait(1.2)  # for the gateway's own clock
            answer = requests.post(
                f"{session.base_url}/go/x", data=io.BytesIO(b"file"), auth=RequestsAuth(session), timeout=10
            )
    assert answer.status_code == 200
    assert answer.json()["path"] == "/api/there"
    assert len(backend.seen) == 1


def test_a_lock_that_nobody_lets_go_is_waited_for_a_bounded_time(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokengate_client.stores._PATIENCE", 0.2)
    session = signed_in(gateway, store=FileStore(tmp_path / "session"))
    with FileStore(tmp_path / "session").lock():
        assert session.refresh().value


@pytest.mark.parametrize("base_url", ["api.example.com", "ftp://x", "https://", ""])
def test_an_address_that_is_none_is_refused_at_once(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        Session(base_url)
