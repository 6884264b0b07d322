"""Keys are rotated while two replicas serve: nobody is signed out, no request fails."""

from __future__ import annotations

import json
import os
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.tokens.keyring import KeyFile, generate, generate_refresh
from tests.e2e.backends import Backend, Spot
from tests.e2e.harness import Gateway, Site, route, until
from tests.e2e.test_drain import ONE_AND_TWO, RELOADED, hang_up, said
from tests.e2e.wire import Answer, Client, ask, json_request, request
from tests.redis_server import RedisServer

PUBLISHED = 2.0  # seconds, tokens.publish_before
AHEAD = 6.0  # seconds that a key's name lies ahead: a slow machine is to have read it well before it signs
TOO_LATE = "a key came too late to be published before it signs: it signs at once"
SECONDS = 40.0  # for a rotation, on such a machine
# What a slow machine would add of its own is not what is asked here.
PATIENT: dict[str, Any] = {"redis": {"timeout": "5s"}, "server": {"overload_after": "0s"}}


def drop(site: Site, file: KeyFile) -> str:
    """Put a key into the directory at once; return its kid."""
    keys = site.directory / "keys"
    part = keys / f".{file.name}"
    part.write_bytes(file.data)
    part.chmod(0o600)
    part.rename(keys / file.name)
    return file.name.removesuffix(".refresh.jwk").removesuffix(".pem")


def kid_of(token: str) -> str:
    """Return the key that made a token of either kind."""
    if token.startswith("rt1."):
        return token.split(".")[1]
    head = token.partition(".")[0]
    return str(json.loads(urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"])


def published(gateway: Gateway) -> list[str]:
    return [key["kid"] for key in ask(gateway.port, request("GET", "/.well-known/jwks.json")).json()["keys"]]


def refresh_at_both(pair: list[Gateway], token: str) -> list[Answer]:
    """Send one refresh to both replicas before either has answered."""
    data = json_request("POST", "/auth/token", {"grant_type": "refresh_token", "refresh_token": token})
    with Client(pair[0].port) as one, Client(pair[1].port) as other:
        for client in (one, other):
            client.send(data)
        return [client.answer("POST") for client in (one, other)]


class User(threading.Thread):
    """A signed-in device that calls, and refreshes at both replicas at once, until it is told to stop."""

    def __init__(self, pair: list[Gateway], spot: Spot, device: str) -> None:
        super().__init__(daemon=True)
        self.tokens = pair[0].login("alice", device=device)
        self.failures: list[str] = []
        self.calls = self.refreshes = 0
        self._pair = pair
        self._spot = spot
        self._over = threading.Event()

    def run(self) -> None:
        try:
            while not self._over.wait(0.05):
                self._turn()
        except Exception as error:
            self.failures.append(repr(error))

    def stop(self) -> None:
        self._over.set()
        self.join(30)

    def kids(self) -> tuple[str, str]:
        tokens = self.tokens
        return kid_of(tokens["access_token"]), kid_of(tokens["refresh_token"])

    def _turn(self) -> None:
        for gateway in self._pair:
            answer = ask(gateway.port, request("GET", self._spot.path("/guarded"), token=self.tokens["access_token"]))
            self.calls += 1
            if answer.status != 200:
                self.failures.append(f"{gateway!r}: {answer!r} with a token of {self.kids()}")
        answers = refresh_at_both(self._pair, self.tokens["refresh_token"])
        self.refreshes += 1
        if [answer.status for answer in answers] != [200, 200]:
            self.failures.append(f"{answers!r} with a token of {self.kids()}")
            return
        one, other = (answer.json() for answer in answers)
        if one["refresh_token"] != other["refresh_token"]:
            self.failures.append(f"two successors: of {kid_of(one['refresh_token'])}, {kid_of(other['refresh_token'])}")
        self.tokens = one if self.refreshes % 2 else other


class Watcher(threading.Thread):
    """Looks again and again at what each replica publishes, so that it is known which key was where and when."""

    def __init__(self, pair: list[Gateway]) -> None:
        super().__init__(daemon=True)
        self._pair = pair
        self._over = threading.Event()
        self.seen: dict[str, float] = {}  # kid -> when both had it

    def run(self) -> None:
        while not self._over.wait(0.05):
            one, other = (set(published(gateway)) for gateway in self._pair)
            for kid in one & other:
                self.seen.setdefault(kid, time.time())

    def stop(self) -> None:
        self._over.set()
        self.join(30)


@contextmanager
def replicas(site: Site, backend: Backend, words: list[str] | None = None, **tokens: Any) -> Iterator[list[Gateway]]:
    options: dict[str, Any] = {
        **PATIENT,
        "routes": [route("/guarded/", backend.url)],
        "tokens": {"publish_before": f"{PUBLISHED:g}s", "max_sessions_per_user": 0, **tokens},
    }
    with site.serve(words or [], **options) as one, site.serve(words or [], **options) as other:
        yield [one, other]


@pytest.fixture
def own_site(shared_redis: RedisServer) -> Iterator[Site]:
    with Site(shared_redis.url) as made:
        yield made


@pytest.mark.timeout(240)
@ONE_AND_TWO
def test_keys_are_rotated_twice_under_load_and_removed_with_no_failed_request_and_no_one_signed_out(
    own_site: Site, backend: Backend, words: list[str]
) -> None:
    with replicas(own_site, backend, words) as pair:
        users = [User(pair, backend.spot(), f"device-{number}") for number in range(3)]
        watcher = Watcher(pair)
        threads: list[User | Watcher] = [*users, watcher]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                born = time.time() + AHEAD
                new = drop(own_site, generate("ES256", born)), drop(own_site, generate_refresh(born))
                until(lambda new=new: new[0] in watcher.seen, "both publish the new key", SECONDS)  # type: ignore[misc]
                assert watcher.seen[new[0]] < born + PUBLISHED
                assert not any(kid in new for user in users for kid in user.kids()) or time.time() >= born + PUBLISHED
                until(lambda new=new: all(user.kids() == new for user in users), f"{new} signs", SECONDS)  # type: ignore[misc]
                assert time.time() >= int(born) + PUBLISHED
            keys = own_site.directory / "keys"
            for path in keys.iterdir():
                if not path.name.startswith(new):
                    path.unlink()
            assert len(list(keys.iterdir())) == 2
            until(lambda: [published(gateway) for gateway in pair] == [[new[0]]] * 2, "the old ones are gone", SECONDS)
            since = [user.refreshes for user in users]
            until(lambda: all(u.refreshes > s + 5 for u, s in zip(users, since, strict=True)), "load after it", SECONDS)
        finally:
            for thread in threads:
                thread.stop()
        assert [user.failures for user in users] == [[]] * 3
        assert min(user.calls for user in users) > 20
        for gateway in pair:
            told = [line.get("reason", "") for line in said(gateway, "keys_reloaded") if line.get("by") == "schedule"]
            wanted = {f"{new[0]} signs access tokens from now on", f"{new[1]} signs refresh tokens from now on"}
            assert wanted <= set(told)
            assert said(gateway, TOO_LATE) == []


@pytest.mark.timeout(120)
def test_a_key_of_the_far_future_never_signs_and_holds_up_no_other(own_site: Site, backend: Backend) -> None:
    with replicas(own_site, backend) as pair:
        (old,) = published(pair[0])
        future = drop(own_site, KeyFile("99991231T235959Z-f.pem", generate("ES256", 0).data, 0))
        drop(own_site, KeyFile("99991231T235959Z-f.refresh.jwk", generate_refresh(0).data, 0))
        born = time.time() + AHEAD
        new = drop(own_site, generate("ES256", born)), drop(own_site, generate_refresh(born))
        until(lambda: set(published(pair[0])) == {old, future, new[0]}, "all are published", SECONDS)
        answer = pair[0].operate("POST", "/admin/keys/reload").json()
        assert {row["kid"] for row in answer["next"]} >= {future, *new}
        assert [row["signs_from"] for row in answer["next"] if row["kid"] == new[0]] == [int(born) + PUBLISHED]
        until(lambda: kid_of(pair[0].login()["access_token"]) == new[0], "the new key signs", SECONDS)
        tokens = pair[0].login()
        assert (kid_of(tokens["access_token"]), kid_of(tokens["refresh_token"])) == new
        answer = pair[0].operate("POST", "/admin/keys/reload").json()
        assert (answer["signing"], answer["refresh"]) == new
        assert {row["kid"] for row in answer["next"]} == {future}


@pytest.mark.timeout(120)
def test_a_stolen_key_is_removed_and_the_new_one_signs_at_once(own_site: Site, backend: Backend) -> None:
    """What it signed is refused from then on; sessions go on, for their refresh tokens are of another key."""
    with replicas(own_site, backend, publish_before="1h") as pair:
        spot = backend.spot()
        tokens = pair[0].login()
        (stolen,) = published(pair[0])
        new = drop(own_site, generate("ES256", time.time()))
        until(lambda: all(len(published(gateway)) == 2 for gateway in pair), "both have it", SECONDS)
        assert kid_of(pair[0].login()["access_token"]) == stolen
        os.unlink(own_site.directory / "keys" / f"{stolen}.pem")
        until(lambda: all(published(gateway) == [new] for gateway in pair), "the stolen one is gone", SECONDS)
        for gateway in pair:
            answer = ask(gateway.port, request("GET", spot.path("/guarded"), token=tokens["access_token"]))
            assert answer.error == (401, "invalid_token")
        fresh = pair[1].refresh(tokens["refresh_token"]).json()
        assert kid_of(fresh["access_token"]) == new
        for gateway in pair:
            data = request("GET", spot.path("/guarded"), token=fresh["access_token"])
            assert ask(gateway.port, data).status == 200


@pytest.mark.timeout(120)
def test_a_stolen_refresh_key_is_removed_and_its_tokens_are_refused(own_site: Site, backend: Backend) -> None:
    with replicas(own_site, backend, publish_before="1h") as pair:
        spot = backend.spot()
        tokens = pair[0].login()
        stolen = kid_of(tokens["refresh_token"])
        new = drop(own_site, generate_refresh(time.time()))
        os.unlink(own_site.directory / "keys" / f"{stolen}.refresh.jwk")
        for gateway in pair:
            until(lambda g=gateway: kid_of(g.login()["refresh_token"]) == new, "the new one", SECONDS)  # type: ignore[misc]
            assert gateway.refresh(tokens["refresh_token"]).error == (400, "invalid_grant")
            data = request("GET", spot.path("/guarded"), token=tokens["access_token"])
            assert ask(gateway.port, data).status == 200  # until it expires: it is of the other kind of key


@pytest.mark.timeout(120)
def test_a_key_that_comes_after_its_time_signs_at_once_with_a_warning(own_site: Site, backend: Backend) -> None:
    with replicas(own_site, backend, publish_before="5m") as pair:
        late = drop(own_site, KeyFile(_name(time.time() - 600) + "-z.pem", generate("ES256", 0).data, 0))
        for gateway in pair:
            until(lambda g=gateway: kid_of(g.login()["access_token"]) == late, "it signs", SECONDS)  # type: ignore[misc]
            (line,) = until(lambda g=gateway: said(g, TOO_LATE), "it is told", SECONDS)  # type: ignore[misc]
            assert (line["level"], line["kid"], line["kind"]) == ("warning", late, "access")


def _name(born: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(born))


@pytest.mark.timeout(120)
@ONE_AND_TWO
def test_a_half_written_key_changes_nothing_is_told_once_and_is_taken_up_when_it_is_whole(
    own_site: Site, backend: Backend, words: list[str]
) -> None:
    refused = "the keys were not reloaded"
    with own_site.serve(words, routes=[route("/guarded/", backend.url)], **PATIENT) as gateway:
        hang_up(gateway, RELOADED, len(words) or 1)  # every worker serves by now
        before = published(gateway)
        file = generate("ES256", time.time())
        path: Path = own_site.directory / "keys" / file.name
        path.touch(mode=0o600)
        path.write_bytes(file.data[:60])
        until(lambda: len(said(gateway, refused)) == (len(words) or 1), "every worker tells it", SECONDS)
        assert published(gateway) == before
        assert gateway.operate("POST", "/admin/keys/reload").error == (409, "bad_keys")
        gateway.login()
        with path.open("ab") as half:
            half.write(file.data[60:])
        until(lambda: all(len(published(gateway)) == 2 for _ in range(6)), "it is taken up", SECONDS)
        by_watch = [line for line in said(gateway, refused) if line["logger"] == "gateway.app"]
        assert len(by_watch) <= (len(words) or 1)


@pytest.mark.timeout(120)
def test_a_key_that_was_open_to_everyone_is_taken_up_once_it_is_not(own_site: Site, backend: Backend) -> None:
    with own_site.serve(routes=[route("/guarded/", backend.url)], **PATIENT) as gateway:
        file = generate("ES256", time.time())
        path = own_site.directory / "keys" / file.name
        path.write_bytes(file.data)
        path.chmod(0o644)
        (line,) = until(lambda: said(gateway, "the keys were not reloaded"), "it is told", SECONDS)
        assert file.name in line["reason"]
        assert gateway.operate("POST", "/admin/keys/reload").error == (409, "bad_keys")
        path.chmod(0o600)
        until(lambda: len(published(gateway)) == 2, "it is taken up", SECONDS)
