"""The users file: who is in it, who is not, and what is wrong with it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Iterator
from typing import TypeVar

import pytest

from gateway.errors import IdentityUnavailable, InvalidCredentials
from gateway.identity import Identity, UsersFile, passwords
from tests.identity.test_passwords import argon2_hash, bcrypt_hash, scrypt_hash

T = TypeVar("T")

ALICE = argon2_hash("wonderland")
FILE = f"""
[users.alice]
password = "{ALICE}"
sub = "u-1"
roles = ["user", "admin"]
scope = "orders:read orders:write"
claims = {{ email = "alice@example.com", limits = {{ daily = 5 }} }}

[users.bob]
password = "{bcrypt_hash("builder")}"

[users."dörte@example.com"]
password = "{scrypt_hash("möwe")}"
"""


@pytest.fixture(scope="module")
def users() -> Iterator[UsersFile]:
    loaded = UsersFile.load(FILE)
    yield loaded
    asyncio.run(loaded.close())


def run(awaitable: Awaitable[T]) -> T:
    async def main() -> T:
        return await awaitable

    return asyncio.run(main())


def sign_in(users: UsersFile, username: str, password: str) -> Identity:
    return run(users.authenticate(username, password, "phone", "192.0.2.1"))


def test_a_user_signs_in_as_the_file_says(users: UsersFile) -> None:
    identity = sign_in(users, "alice", "wonderland")
    assert identity.subject == "u-1"
    assert identity.roles == ("user", "admin")
    assert identity.scope == "orders:read orders:write"
    assert identity.claims == {"email": "alice@example.com", "limits": {"daily": 5}}


def test_the_subject_is_the_name_by_default_and_everything_else_nothing(users: UsersFile) -> None:
    identity = sign_in(users, "bob", "builder")
    assert (identity.subject, identity.roles, identity.scope, dict(identity.claims)) == ("bob", (), "", {})
    assert sign_in(users, "dörte@example.com", "möwe").subject == "dörte@example.com"


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("alice", "builder"),
        ("alice", ""),
        ("Alice", "wonderland"),
        ("alice ", "wonderland"),
        ("u-1", "wonderland"),
        ("mallory", "wonderland"),
        ("", ""),
        ("alice\0", "wonderland"),
        ("\ud800", "\ud800"),
        ("alice", "x" * 100_000),
    ],
)
def test_a_wrong_name_or_password_is_refused_in_the_same_words(users: UsersFile, username: str, password: str) -> None:
    with pytest.raises(InvalidCredentials) as refusal:
        sign_in(users, username, password)
    assert refusal.value.description == InvalidCredentials.description


def test_a_name_that_is_not_in_the_file_costs_one_check_of_a_hash_of_the_file_s_kind(
    users: UsersFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []

    def spy(hashed: str, password: str) -> bool:
        checked.append(hashed)
        return True

    monkeypatch.setattr(passwords, "verify", spy)
    for name in [f"nobody-{i}" for i in range(60)]:
        with pytest.raises(InvalidCredentials):
            sign_in(users, name, "x")
    assert len(checked) == 60
    assert {hashed[:4] for hashed in checked} == {"$arg", "$2b$", "$scr"}, "as many kinds as the file has"


def test_an_unknown_name_costs_the_same_kind_of_hash_every_time_and_in_every_replica(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked: list[str] = []

    def spy(hashed: str, password: str) -> bool:
        checked.append(hashed[:12])
        return False

    monkeypatch.setattr(passwords, "verify", spy)
    for _ in range(4):
        replica = UsersFile.load(FILE)
        with pytest.raises(InvalidCredentials):
            sign_in(replica, "nobody", "x")
        run(replica.close())
    assert len(checked) == 4
    assert len(set(checked)) == 1


def test_a_recheck_finds_the_user_by_subject_and_ends_the_session_of_one_who_is_gone(users: UsersFile) -> None:
    assert run(users.recheck("u-1", "sid")) == sign_in(users, "alice", "wonderland")
    assert run(users.recheck("alice", "sid")) is None
    assert run(users.recheck("mallory", "sid")) is None


def test_another_password_is_another_credential_version_and_tells_nothing_of_the_hash(users: UsersFile) -> None:
    before = run(users.recheck("u-1", "sid"))
    changed = UsersFile.load(FILE.replace(ALICE, argon2_hash("wonderland")))
    after = run(changed.recheck("u-1", "sid"))
    run(changed.close())
    assert before is not None
    assert after is not None
    assert before.credential_version != after.credential_version
    assert len(before.credential_version) == 16
    assert before.credential_version not in ALICE


def test_no_hash_shows_in_a_repr(users: UsersFile) -> None:
    assert "argon2id" not in repr(users)
    assert "argon2id" not in repr(users._users)


def test_too_many_sign_ins_at_once_are_unavailable_and_not_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(passwords, "verify", lambda hashed, password: release.wait(10))

    async def main() -> None:
        users = UsersFile.load(FILE)
        crowded = UsersFile(users._users, passwords.PasswordPool(workers=1, waiting=0))
        first = asyncio.create_task(crowded.authenticate("alice", "wonderland", "", ""))
        await asyncio.sleep(0)
        for name in ("alice", "nobody"):
            with pytest.raises(IdentityUnavailable):
                await crowded.authenticate(name, "wonderland", "", "")
        release.set()
        assert (await first).subject == "u-1"
        await crowded.close()
        await users.close()

    asyncio.run(main())


def entry(line: str, password: str = ALICE) -> str:
    return f'[users.alice]\npassword = "{password}"\n{line}\n'


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "users: must be a table"),
        ("users = 1", "users: must be a table"),
        ("[users]", "users: must be a table"),
        ("[users]\nalice = 1", "users.alice: must be a table"),
        ("x = 1\n" + entry(""), "x: unknown key"),
        ("[users.alice", "not TOML"),
        ("a = " + "[" * 5000, "not TOML: nested too deep"),
        (b"\xff", "not UTF-8"),
        ("[users.alice]", "users.alice.password: must be a password hash"),
        (entry("", "hunter2"), "users.alice.password: must be a password hash"),
        (entry("", "$2a$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"), "users.alice.password: must be"),
        (entry('role = ["x"]'), "users.alice.role: unknown key; allowed: password, sub, roles, scope, claims"),
        (entry('roles = "admin"'), "users.alice.roles: must be a list"),
        (entry("roles = [1]"), "users.alice.roles: must be a string"),
        (entry('roles = ["a\\nb"]'), "users.alice.roles: must be a string"),
        (entry('sub = ""'), "users.alice.sub: must be a string"),
        (entry("sub = 1"), "users.alice.sub: must be a string"),
        (entry('sub = "a\\u0000"'), "users.alice.sub: must be a string"),
        (entry(f'sub = "{"x" * 256}"'), "users.alice.sub: must be a string"),
        (entry('scope = ["a"]'), "users.alice.scope: must be a string of scope words"),
        (entry("scope = 'a \"b'"), "users.alice.scope: must be a string of scope words"),
        (entry('scope = "a  b"'), "users.alice.scope: must be a string of scope words"),
        (entry("claims = 1"), "users.alice.claims: must be an object"),
        (entry("claims = { born = 2000-01-01 }"), "users.alice.claims: must be an object of JSON values"),
        (entry("claims = { x = nan }"), "users.alice.claims: must be an object of JSON values"),
        (entry(f'claims = {{ x = "{"x" * 5000}" }}'), "users.alice: roles, scope and claims must not exceed"),
        (entry("") + f'[users.b]\npassword = "{ALICE}"\nsub = "alice"', "users.b.sub: the same as that of users.alice"),
        (f'[users."a\\nb"]\npassword = "{ALICE}"', "users.'a\\nb': must be a string"),
    ],
)
def test_a_bad_file_is_refused_in_one_line_that_names_the_user_and_the_key(text: str | bytes, place: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011  # the text is compared whole below
        UsersFile.load(text)
    assert str(refusal.value).startswith(place)
    assert "\n" not in str(refusal.value)
    assert "hunter2" not in str(refusal.value)
