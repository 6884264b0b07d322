"""The keys of a worker: readings that overtake each other, and what operators are told."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from gateway.keys import Keys
from gateway.settings import Settings, load
from gateway.tokens.keyring import BadKey, KeyFile, generate, generate_refresh
from gateway.tokens.refresh import RefreshTokens
from gateway.tokens.signer import Signer
from gateway.tokens.verifier import Verifier
from tests.tokens.support import NOW, SESSION

PUBLISHED = 300


class Place:
    """A key directory and a worker's keys of it, at a clock that stands."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "keys"
        self.directory.mkdir()
        self.first = self.add(generate("ES256", NOW))
        self.first_refresh = self.add(generate_refresh(NOW))
        self.keys = Keys(self.settings(directory), NOW)
        self.signer = Signer(self.keys.keyring, "https://a", "api", 600)
        self.verifier = Verifier(self.keys.keyring, "https://a", "api", 10)
        self.refresh = RefreshTokens(self.keys.refresh, "opaque", "https://a")

    def settings(self, directory: Path) -> Settings:
        path = directory / "gateway.toml"
        path.write_text(
            f'[tokens]\nissuer = "https://a"\naudience = "api"\nsigning_keys = "{self.directory}"\n'
            '[identity]\nwebhook_url = "http://a"\n'
        )
        return load(path, {})

    def add(self, file: KeyFile) -> str:
        path = self.directory / file.name
        path.touch(mode=0o600)
        path.write_bytes(file.data)
        return file.name.removesuffix(".refresh.jwk").removesuffix(".pem")

    def take(self, now: float) -> None:
        self.keys.take(self.keys.read(), self.signer, self.verifier, self.refresh, now)

    def signs(self, now: float) -> str:
        minted = self.signer.mint(
            subject="u", session_id=SESSION, counter=0, roles=[], scope="", claims={}, now=now
        ).token.encode()
        self.verifier.verify(minted, now)
        return self.keys.keyring.signing_at(now).kid


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    found = []
    for record in caplog.records:
        extra = getattr(record, "audit", {})
        found.append((record.getMessage(), extra.get("reason", "") or getattr(record, "kid", "")))
    return found


def test_a_key_that_is_added_waits_and_its_time_is_told_when_it_comes(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    second = place.add(generate("ES256", NOW + 10))
    place.take(NOW + 11)
    assert place.keys.report(NOW + 11) == {
        "signing": place.first,
        "refresh": place.first_refresh,
        "next": [{"kid": second, "kind": "access", "signs_from": NOW + 10 + PUBLISHED}],
    }
    for now in (NOW + 12, NOW + 309.9):
        place.keys.tell(now)
        assert place.signs(now) == place.first
    assert told(caplog) == []
    for now in (NOW + 310, NOW + 311):
        place.keys.tell(now)
        assert place.signs(now) == second
    assert told(caplog) == [("keys_reloaded", f"{second} signs access tokens from now on")]
    assert place.keys.report(NOW + 311)["next"] == []


def test_a_key_that_comes_after_its_time_is_warned_of(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    late, late_refresh = place.add(generate("ES256", NOW + 10)), place.add(generate_refresh(NOW + 10))
    place.take(NOW + 310)
    warning = "a key came too late to be published before it signs: it signs at once"
    assert told(caplog)[:2] == [(warning, late), (warning, late_refresh)]
    assert told(caplog)[2:] == [
        ("keys_reloaded", f"{late} signs access tokens from now on"),
        ("keys_reloaded", f"{late_refresh} signs refresh tokens from now on"),
    ]
    caplog.clear()
    place.take(NOW + 311)
    assert told(caplog) == []


def test_a_key_that_comes_late_and_does_not_sign_is_no_worry(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.add(generate("ES256", NOW - 10_000))
    place.take(NOW + 310)
    assert told(caplog) == []


def test_a_reading_that_a_later_one_has_overtaken_is_dropped(place: Place) -> None:
    old = place.keys.read()
    second = place.add(generate("ES256", NOW + 10))
    place.take(NOW + 11)
    place.keys.take(old, place.signer, place.verifier, place.refresh, NOW + 12)
    assert place.keys.keyring.get(second) is not None
    assert place.signs(NOW + 310) == second


def test_keys_that_were_read_with_users_of_no_use_are_read_again(place: Place) -> None:
    place.add(generate("ES256", NOW + 10))
    read = place.keys.read()
    watch = place.keys.watch
    assert not watch.changed()
    place.keys.drop(read)
    assert watch.changed()
    place.take(NOW + 11)
    place.keys.drop(read)  # overtaken: there is nothing to be made good
    assert not watch.changed()


def test_whatever_is_wrong_with_the_directory_is_a_bad_key_and_changes_nothing(place: Place) -> None:
    bad = place.directory / "bad.pem"
    bad.write_text("no key")
    for mode, reason in ((0o600, "one PEM block"), (0o606, "may be written by everyone")):
        bad.chmod(mode)
        with pytest.raises(BadKey, match=reason):
            place.keys.read()
    os.rename(place.directory, place.directory.with_name("gone"))
    with pytest.raises(BadKey, match=r"tokens\.signing_keys"):
        place.keys.read()
    assert place.signs(NOW + 1) == place.first
