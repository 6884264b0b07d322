"""Password hashes: real ones, of all three forms, and what must not pass for a match."""

from __future__ import annotations

import asyncio
import threading
from base64 import b64encode
from collections.abc import Callable
from hashlib import scrypt

import argon2
import bcrypt
import pytest

from gateway.errors import IdentityUnavailable
from gateway.identity import passwords
from gateway.identity.passwords import PasswordPool, check_hash, decoy, hash_password, verify

# The example of passlib's documentation: "password".
PASSLIB = "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E"
# A test vector of crypt_blowfish (Openwall): "U*U".
OPENWALL = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"


def argon2_hash(password: str) -> str:
    return argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(password)


def bcrypt_hash(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def scrypt_hash(password: str, ln: int = 4) -> str:
    def text(data: bytes) -> str:
        return b64encode(data).decode().rstrip("=")

    made = scrypt(password.encode(), salt=b"0123456789abcdef", n=1 << ln, r=8, p=1, dklen=32)
    return f"$scrypt$ln={ln},r=8,p=1${text(b'0123456789abcdef')}${text(made)}"


FORMS = [argon2_hash, bcrypt_hash, scrypt_hash]
each_form = pytest.mark.parametrize("make", FORMS)


@each_form
def test_the_password_matches_its_hash_and_another_does_not(make: Callable[[str], str]) -> None:
    hashed = make("correct horse ✓")
    check_hash(hashed)
    assert verify(hashed, "correct horse ✓")
    for wrong in ("correct horse", "correct horse ✓ ", "CORRECT HORSE ✓", "", "\ud800"):
        assert not verify(hashed, wrong)


@pytest.mark.parametrize(("hashed", "password"), [(PASSLIB, "password"), (OPENWALL, "U*U")])
def test_hashes_that_other_tools_made_are_read(hashed: str, password: str) -> None:
    check_hash(hashed)
    assert verify(hashed, password)
    assert not verify(hashed, password + "x")


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
def test_bcrypt_is_read_under_all_its_sound_names(prefix: str) -> None:
    assert verify(prefix + bcrypt_hash("secret")[4:], "secret")


def test_a_hash_made_here_is_argon2id_with_the_parameters_of_rfc_9106() -> None:
    hashed = hash_password("secret")
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert verify(hashed, "secret")
    assert hash_password("secret") != hashed, "salted"


@pytest.mark.parametrize("password", ["", "x" * 1025, "é" * 513])
def test_an_empty_or_overlong_password_is_not_hashed(password: str) -> None:
    with pytest.raises(ValueError, match="1 to 1024 bytes"):
        hash_password(password)


@each_form
def test_an_overlong_password_never_matches_not_even_its_own_hash(make: Callable[[str], str]) -> None:
    assert not verify(make("x" * 72), "x" * 2000)
    assert not verify(argon2_hash("x" * 1024), "x" * 1025)
    assert verify(argon2_hash("x" * 1024), "x" * 1024)


def test_a_bcrypt_hash_does_not_match_a_password_that_only_begins_alike() -> None:
    hashed = bcrypt_hash("x" * 72)
    assert verify(hashed, "x" * 72)
    assert not verify(hashed, "x" * 73)


def test_a_bcrypt_hash_does_not_match_a_password_with_a_nul() -> None:
    assert not verify(bcrypt_hash("abc"), "abc\0def")
    assert not verify(bcrypt_hash("abc def"), "abc\0def")


@each_form
def test_an_empty_password_never_matches_even_a_hash_of_it(make: Callable[[str], str]) -> None:
    assert not verify(make(""), "")


BAD_HASHES = [
    "",
    "secret",
    "$1$abcdefgh$abcdefghijklmnopqrstuv",
    "$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ",
    "$argon2id$v=16$m=64,t=1,p=1$c29tZXNhbHQ$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ",
    "$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    "$2a$05$CCCCCCCCCCCCCCCCCCCCCzE5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    OPENWALL + "x",
    OPENWALL + "\n",
    OPENWALL[:-1],
    PASSLIB[:-2] + "==",
    "$scrypt$ln=16,r=8,p=1$A$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E",
    "$scrypt$ln=4,r=8,p=1$AAAAA$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E",
    "$scrypt$ln=0,r=8,p=1$AAAA$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E",
    "$argon2id$v=19$m=64,t=0,p=1$c29tZXNhbHQ$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ",
    "$argon2id$v=19$m=7,t=1,p=1$c29tZXNhbHQ$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ",
]
COSTLY_HASHES = [
    "$argon2id$v=19$m=9999999,t=1,p=1$c29tZXNhbHQ$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ",
    "$argon2id$v=19$m=65536,t=999,p=1$c29tZXNhbHQ$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ",
    OPENWALL.replace("$05$", "$31$"),
    PASSLIB.replace("ln=16", "ln=31"),
    PASSLIB.replace("r=8", "r=99").replace("p=1", "p=99"),
]


@pytest.mark.parametrize("hashed", BAD_HASHES + COSTLY_HASHES)
def test_a_hash_of_another_form_or_of_a_ruinous_cost_is_refused_without_being_quoted(hashed: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a") as refusal:
        check_hash(hashed)
    if hashed:
        assert hashed not in str(refusal.value)


@pytest.mark.parametrize("hashed", BAD_HASHES)
def test_a_hash_of_no_known_form_matches_nothing_and_raises_nothing(hashed: str) -> None:
    assert not verify(hashed, "secret")


@each_form
def test_a_decoy_has_the_form_and_cost_of_the_hash_and_no_password_fits(make: Callable[[str], str]) -> None:
    hashed = make("secret")
    made = decoy(hashed)
    check_hash(made)
    assert made != hashed
    assert len(made) == len(hashed)
    assert made[:20].split("$")[1:3] == hashed[:20].split("$")[1:3]
    assert not verify(made, "secret")


def test_the_event_loop_runs_on_while_a_password_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(passwords, "verify", lambda hashed, password: release.wait(10))

    async def main() -> None:
        pool = PasswordPool(workers=1)
        check = asyncio.create_task(pool.verify("x", "y"))
        await asyncio.sleep(0)
        assert not check.done()
        release.set()
        assert await check
        pool.close()

    asyncio.run(main())


def test_whoever_comes_after_a_full_queue_is_turned_away_and_places_come_free_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = threading.Event()
    monkeypatch.setattr(passwords, "verify", lambda hashed, password: release.wait(10))

    async def main() -> None:
        pool = PasswordPool(workers=1, waiting=2)
        checks = [asyncio.create_task(pool.verify("x", "y")) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(IdentityUnavailable):
            await pool.verify("x", "y")
        release.set()
        assert await asyncio.gather(*checks) == [True] * 3
        assert await pool.verify("x", "y")
        pool.close()

    asyncio.run(main())


def test_a_caller_that_gives_up_does_not_make_room_while_its_check_still_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release, running = threading.Event(), threading.Event()

    def slow(hashed: str, password: str) -> bool:
        running.set()
        return release.wait(10)

    monkeypatch.setattr(passwords, "verify", slow)

    async def main() -> None:
        pool = PasswordPool(workers=1, waiting=0)
        check = asyncio.create_task(pool.verify("x", "y"))
        await asyncio.to_thread(running.wait, 10)
        check.cancel()
        with pytest.raises(asyncio.CancelledError):
            await check
        with pytest.raises(IdentityUnavailable):
            await pool.verify("x", "y")
        release.set()
        pool.close()

    asyncio.run(main())


def test_a_closed_pool_is_unavailable() -> None:
    async def main() -> None:
        pool = PasswordPool()
        pool.close()
        with pytest.raises(IdentityUnavailable):
            await pool.verify(bcrypt_hash("x"), "x")

    asyncio.run(main())
