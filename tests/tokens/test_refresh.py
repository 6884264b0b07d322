"""The refresh token: derived, deterministic, in two formats; forged ones are refused without a store."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any, Literal

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidGrant
from gateway.tokens.keyring import KeyFile, RefreshKeys
from gateway.tokens.refresh import MAX_COUNTER, RefreshToken, RefreshTokens
from tests.tokens.support import (
    ABSENT,
    ISSUER,
    NOW,
    SESSION,
    claims,
    forge,
    header,
    key_file,
    keyring,
    mint,
    refresh_file,
    refresh_keys,
)

Form = Literal["opaque", "jwt"]
FORMS: list[Form] = ["opaque", "jwt"]


def tokens(form: Form = "opaque", keys: RefreshKeys | None = None, issuer: str = ISSUER) -> RefreshTokens:
    return RefreshTokens(keys or refresh_keys(), form, issuer)


def refused(token: str | bytes, reason: str = "malformed", reader: RefreshTokens | None = None) -> None:
    with pytest.raises(InvalidGrant) as caught:
        (reader or tokens()).read(token, NOW)
    assert caught.value.reason == reason


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reads", FORMS)
def test_both_formats_are_read_whichever_is_minted(form: Form, reads: Form) -> None:
    token = tokens(form).mint(SESSION, 7, NOW, NOW + 100)
    assert tokens(reads).read(token, NOW) == RefreshToken(SESSION, 7)
    assert tokens(reads).read(token.encode(), NOW) == RefreshToken(SESSION, 7)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_arguments_give_the_same_token_in_every_replica(form: Form) -> None:
    assert len({tokens(form, refresh_keys()).mint(SESSION, 7, NOW, NOW + 100) for _ in range(5)}) == 1


@pytest.mark.parametrize("form", FORMS)
def test_another_session_or_counter_gives_another_token(form: Form) -> None:
    made = {tokens(form).mint(s, n, NOW, 0) for s in (SESSION, "b" + SESSION[1:]) for n in (0, 1, 2, 10, MAX_COUNTER)}
    assert len(made) == 10


@settings(max_examples=100, deadline=None)
@given(
    session=st.from_regex(r"[0-9a-f][A-Za-z0-9_-]{15,63}", fullmatch=True),
    counter=st.integers(0, MAX_COUNTER),
    kid=st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True).filter(lambda kid: not kid.startswith(".")),
    form=st.sampled_from(FORMS),
)
def test_whatever_is_minted_is_read_back(session: str, counter: int, kid: str, form: Form) -> None:
    keys = RefreshKeys.load([KeyFile(kid + ".refresh.jwk", refresh_file().data, NOW)])
    maker = tokens(form, keys, issuer="https://" + "i" * 247)
    assert maker.read(maker.mint(session, counter, NOW, NOW + 1), NOW) == RefreshToken(session, counter)


def test_the_opaque_form_is_the_documented_hmac() -> None:
    kid = refresh_keys().signing.kid
    secret = refresh_keys().signing.public
    message = f"tokengate refresh v1\0{kid}\0{SESSION}\x007".encode()
    mac = jwt.utils.base64url_encode(hmac.digest(secret, message, hashlib.sha256)).decode()
    assert tokens().mint(SESSION, 7, NOW, 0) == f"rt1.{kid}.{SESSION}.7.{mac}"


def test_the_jwt_form_is_read_by_other_libraries() -> None:
    token = tokens("jwt").mint(SESSION, 7, NOW, NOW + 100)
    said = jwt.decode(token, refresh_keys().signing.public, ["HS256"], options={"verify_exp": False})
    assert said == {"iss": ISSUER, "sid": SESSION, "n": 7, "iat": NOW, "exp": NOW + 100}
    assert jwt.get_unverified_header(token)["typ"] == "rt+jwt"


def test_a_jwt_says_that_it_has_expired_by_the_readers_clock_and_is_read_all_the_same() -> None:
    """The store ends sessions, by its own time: a replica whose clock is ahead must sign nobody out."""
    ending, endless = (tokens("jwt").mint(SESSION, 0, NOW, end) for end in (NOW + 100, 0))
    assert tokens().read(ending, NOW + 99.9) == RefreshToken(SESSION, 0, expired=False)
    for late in (NOW + 100, NOW + 10**9):
        assert tokens().read(ending, late) == RefreshToken(SESSION, 0, expired=True)
        assert tokens().read(endless, late) == RefreshToken(SESSION, 0, expired=False)
    assert "exp" not in jwt.decode(endless, options={"verify_signature": False})


def test_tokens_of_an_old_key_are_read_for_as_long_as_the_key_is_there() -> None:
    for form in FORMS:
        old = tokens(form, refresh_keys(0)).mint(SESSION, 7, NOW, 0)
        both = tokens(form, refresh_keys(0, 1))
        assert both.read(old, NOW) == RefreshToken(SESSION, 7)
        assert both.mint(SESSION, 7, NOW + 1, 0) != old
        both.reload(refresh_keys(1))
        refused(old, reader=both)


@pytest.mark.parametrize(
    ("session", "counter"),
    [
        ("", 0),
        ("x" * 20, 0),
        ("a" * 15, 0),
        ("a" * 65, 0),
        (SESSION + ".", 0),
        (SESSION, -1),
        (SESSION, MAX_COUNTER + 1),
    ],
)
def test_a_token_that_could_not_be_read_back_is_not_minted(session: str, counter: int) -> None:
    for form in FORMS:
        with pytest.raises(ValueError, match="session id"):
            tokens(form).mint(session, counter, NOW, 0)


def forged() -> list[tuple[str, str]]:
    good = tokens().mint(SESSION, 7, NOW, 0)
    _, kid, sid, n, mac = good.split(".")
    other = key_file("ES256").name.removesuffix(".pem")

    def put(kid: str = kid, sid: str = sid, n: str = n, mac: str = mac, first: str = "rt1") -> str:
        return f"{first}.{kid}.{sid}.{n}.{mac}"

    return [
        ("another counter", put(n="8")),
        ("another session", put(sid="b" + sid[1:])),
        ("an unknown key", put(kid=other)),
        ("no key", put(kid="")),
        ("a path for a key", put(kid="../" + kid)),
        ("no MAC", put(mac="")),
        ("half a MAC", put(mac=mac[:21])),
        ("a MAC of zeros", put(mac="A" * 43)),
        ("two MACs", put(mac=mac + mac)),
        ("a padded MAC", put(mac=mac + "=")),
        ("stray bits in the MAC", put(mac=mac[:-1] + chr(ord(mac[-1]) + 1))),
        ("a leading zero", put(n="07")),
        ("a sign", put(n="+7")),
        ("a negative counter", put(n="-7")),
        ("a space", put(n="7 ")),
        ("digits of another script", put(n="\u0667")),
        ("an underscore", put(n="0_7")),
        ("a huge counter", put(n="9" * 300)),
        ("no counter", put(n="")),
        ("an empty session", put(sid="")),
        ("another version", put(first="rt2")),
        ("upper case", put(first="RT1")),
        ("a segment more", good + ".x"),
        ("a line feed", good + "\n"),
        ("a space before", " " + good),
        ("a NUL", good + "\x00"),
        ("not ASCII", good + "é"),
        ("a lone surrogate", good + "\ud800"),
        ("quotes", f'"{good}"'),
        ("nothing", ""),
        ("a dot", "."),
        ("only its name", "rt1."),
        ("dots", "rt1" + "." * 500),
        ("too long", "rt1." + "a" * 5000),
        ("huge", "x" * 10**6),
        ("a lone surrogate in a JWT", "eyJ\ud800.e30.AA"),
    ]


@pytest.mark.parametrize("token", [pytest.param(token, id=name) for name, token in forged()])
def test_a_forged_or_respelled_opaque_token_is_malformed(token: str) -> None:
    assert tokens().read(tokens().mint(SESSION, 7, NOW, 0), NOW).counter == 7  # what it was made from is good
    refused(token)
    refused(token.encode("utf-8", "surrogatepass"))


def said(**changes: Any) -> dict[str, Any]:
    good = {"iss": ISSUER, "sid": SESSION, "n": 7, "iat": NOW, "exp": NOW + 100}
    return {name: value for name, value in (good | changes).items() if value is not ABSENT}


BAD: list[tuple[str, list[Any]]] = [
    ("iss", [ABSENT, None, "https://evil.example", ISSUER + "/", [ISSUER]]),
    ("sid", [ABSENT, None, "", 1, "x" * 22, SESSION + "\n", [SESSION]]),
    ("n", [ABSENT, None, "7", 7.0, True, -1, MAX_COUNTER + 1]),
    ("iat", [ABSENT, None, str(NOW), NOW + 0.5, True, -1]),
    ("exp", [None, str(NOW + 100), NOW + 100.0, True, -1, [NOW]]),
]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD for value in values])
def test_a_signed_jwt_with_a_claim_of_another_type_or_value_is_malformed(name: str, value: object) -> None:
    key = refresh_keys().signing
    head = header(key, typ="rt+jwt")
    assert tokens().read(forge(head, said(), key), NOW) == RefreshToken(SESSION, 7)
    refused(forge(head, said(**{name: value}), key))


@pytest.mark.parametrize(
    "changes",
    [
        {"typ": "at+jwt"},
        {"typ": "JWT"},
        {"typ": ABSENT},
        {"alg": "none"},
        {"alg": "HS512"},
        {"alg": ABSENT},
        {"kid": "other"},
        {"kid": ABSENT},
        {"crit": ["exp"]},
        {"b64": False},
    ],
)
def test_a_refresh_jwt_with_another_header_is_malformed(changes: dict[str, Any]) -> None:
    key = refresh_keys().signing
    refused(forge(header(key, **({"typ": "rt+jwt"} | changes)), said(), key))


def test_a_refresh_jwt_whose_signature_is_missing_or_wrong_is_malformed() -> None:
    key, stranger = refresh_keys().signing, refresh_keys(5).signing
    head = header(key, typ="rt+jwt")
    refused(forge(head, said()))
    refused(forge(head, said(), stranger))
    refused(forge(head, json.dumps(said()).encode()[:-1] + b',"n":8}', key))


def test_a_refresh_jwt_over_2_kib_is_malformed_however_well_signed() -> None:
    key = refresh_keys().signing
    head = header(key, typ="rt+jwt")
    assert tokens().read(forge(head, said(pad="x" * 1200), key), NOW) == RefreshToken(SESSION, 7)
    refused(forge(head, said(pad="x" * 1500), key))


def test_an_access_token_is_no_refresh_token() -> None:
    refused(mint())
    refused(mint(keyring("HS256")))
    key = refresh_keys().signing  # even where one secret was used for both
    refused(forge(header(key), claims(), key))
    refused(forge(header(key), said(), key))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300) | st.text("rt1.ab07AZ_-=", max_size=200).map("rt1.".__add__))
def test_whatever_is_presented_the_answer_is_a_grant_or_an_invalid_one(token: str | bytes) -> None:
    with pytest.raises(InvalidGrant):
        tokens().read(token, NOW)
