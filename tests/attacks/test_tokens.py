"""Tokens that are more than one thing, and what a copy of the store is worth (RFC 8725 2, RFC 6819 4.1, 4.3.2).

The signed form itself: tests/tokens/test_attacks.py, test_strict.py, test_fuzz.py; its claims: test_verifier.py.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import b64encode
from typing import Any

import pytest
import redis
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.errors import InvalidToken
from gateway.tokens.keyring import Key, Keyring
from gateway.tokens.strict import decode_base64url, encode_base64url
from tests.attacks.support import REFRESH, sign_in
from tests.e2e.backends import Backend
from tests.e2e.harness import PASSWORD, Gateway
from tests.e2e.wire import Answer, ask, request
from tests.tokens.support import NOW, as_json, b64, claims, forge, header, key_file, keyring, mint, signed, verifier

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def refused(token: bytes, ring: Keyring | None = None) -> None:
    with pytest.raises(InvalidToken):
        verifier(ring).verify(token, NOW)


@pytest.mark.parametrize("media", ["JWT", "jwt", "application/jwt", "at+jwt"])
def test_a_token_in_a_token_is_not_opened(media: str) -> None:
    """RFC 7519 5.2, 7.2: nested JWTs; an inner token that is good does not make the outer one good."""
    inner = mint()
    refused(signed(inner, cty=media))
    refused(signed(b'"' + inner + b'"', cty=media))
    refused(signed({"jwt": inner.decode()}, cty=media))
    assert verifier().verify(signed(claims(), cty="json"), NOW).sub == "u-1"


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_ring_with_shared_and_public_keys_mistakes_none_for_another(algorithm: str) -> None:
    """CVE-2022-29217, CVE-2024-54150: confusion where both kinds may verify, whatever the key is written as."""
    files = [key_file("HS256"), key_file(algorithm)]
    ring = Keyring.load(files, "HS256")
    shared, other = (ring.get(file.name.rpartition(".")[0]) for file in files)
    assert shared is not None
    assert other is not None
    spki = [other.public.public_bytes(form, PublicFormat.SubjectPublicKeyInfo) for form in (Encoding.PEM, Encoding.DER)]
    jwk = as_json(other.jwk())
    written = [*spki, spki[0].strip(), spki[0] + b"\n", spki[0].replace(b"\n", b"\r\n"), b64encode(spki[1]), jwk]
    written += [
        b64(spki[1]),
        json.dumps(other.jwk(), sort_keys=True, separators=(",", ":")).encode(),
        other.kid.encode(),
    ]
    for kid in (shared.kid, other.kid):
        for secret in written:
            message = b64(as_json({"alg": "HS256", "kid": kid, "typ": "at+jwt"})) + b"." + b64(as_json(claims()))
            refused(message + b"." + b64(hmac.digest(secret, message, hashlib.sha256)), ring)
    refused(forge(header(other, kid=shared.kid), claims(), other), ring)
    refused(forge(header(shared, kid=other.kid), claims(), shared), ring)
    assert verifier(ring).verify(forge(header(other), claims(), other), NOW).sub == "u-1"


@pytest.mark.parametrize(
    "changes",
    [
        {"typ": "JWT", "nonce": True},  # an ID token of OpenID Connect
        {"typ": "logout+jwt"},
        {"typ": "secevent+jwt"},
        {"typ": "token-introspection+jwt"},
        {"typ": "oauth-authz-req+jwt"},
        {"typ": "client-authentication+jwt"},
        {"typ": "vc+jwt"},
    ],
)
def test_a_token_that_another_service_signs_for_another_use_is_refused(changes: dict[str, Any]) -> None:
    """Cross-JWT confusion (RFC 8725 2.8, 3.11, 3.12): the type alone decides, before any claim."""
    more = {"nonce": "n", "at_hash": "x"} if changes.pop("nonce", False) else {}
    refused(signed(claims(**more), **changes))


def other_text(token: str) -> str:
    """Return the same token with the second signature that ECDSA has for every message: (r, n - s)."""
    head, _, signature = token.rpartition(".")
    raw = decode_base64url(signature.encode())
    s = P256_ORDER - int.from_bytes(raw[32:], "big")
    return f"{head}.{encode_base64url(raw[:32] + s.to_bytes(32, 'big')).decode()}"


def test_a_revoked_token_is_revoked_in_each_of_its_texts(fortress: Gateway, backend: Backend) -> None:
    """The blacklist is of ids, not of texts, and is asked for each text."""
    spot = backend.spot()
    token = fortress.login("bob")["access_token"]
    texts = [token, other_text(token)]
    asked = [request("GET", spot.path("/guarded"), token=text) for text in texts]
    assert [ask(fortress.port, question).status for question in asked] == [200, 200]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert ask(fortress.port, request("POST", "/auth/revoke", form, f"token={texts[1]}".encode())).status == 200
    assert [ask(fortress.port, question).error for question in asked] == [(401, "revoked_token")] * 2


def held(client: Any, key: bytes) -> list[bytes]:
    """Return all that Redis holds under a key, of whatever type."""
    readers = {
        b"string": client.get,
        b"hash": lambda key: client.hgetall(key).items(),
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"set": client.smembers,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"stream": client.xrange,
    }
    kind = client.type(key)
    value = readers[kind](key) if kind != b"none" else b""  # it has expired meanwhile
    return [value or b""] if kind == b"string" else [repr(item).encode() for item in value]


def test_a_copy_of_the_store_holds_nothing_that_opens_anything(fortress: Gateway) -> None:
    """RFC 6819 4.3.2, 4.5.2: neither tokens nor passwords nor what they could be computed from."""
    mine, cookies = fortress.login("bob", device="copied"), sign_in(fortress, user="bob")
    again = fortress.refresh(mine["refresh_token"]).json()
    with redis.Redis.from_url(fortress.site.redis_url) as client:
        copy = b"\n".join(piece for key in client.scan_iter("*", count=1000) for piece in (key, *held(client, key)))
    assert b"copied" in copy  # it is read as it stands
    for token in (mine["access_token"], mine["refresh_token"], again["refresh_token"], *cookies.values()):
        assert token.encode() not in copy
        assert token.rpartition(".")[2].encode() not in copy
    keys_of_gateway = [json.loads(p.read_text())["k"] for p in (fortress.site.directory / "keys").glob("*.jwk")]
    for secret in (PASSWORD, "$argon2", *keys_of_gateway):
        assert secret.encode() not in copy
    assert REFRESH.encode() not in copy


def test_an_id_of_a_session_is_no_credential(fortress: Gateway, backend: Backend) -> None:
    """It stands in logs, lists and headers, so it must open nothing."""
    session = fortress.login("bob")["session_id"]
    spot = backend.spot()
    for token in (session, f"{session}.{session}.{session}", f"rt1.{session}.0", b64(session.encode()).decode()):
        assert ask(fortress.port, request("GET", spot.path("/guarded"), token=token)).error == (401, "invalid_token")
        assert fortress.refresh(token).error == (400, "invalid_grant")
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert ask(fortress.port, request("POST", "/auth/revoke", form, f"token={token}".encode())).status == 200
    with_id = {"Cookie": f"session={session}; sid={session}", "X-Session-Id": session}
    assert ask(fortress.port, request("GET", spot.path("/guarded"), with_id)).error == (401, "missing_token")
    assert ask(fortress.port, request("DELETE", f"/auth/sessions/{session}", with_id)).error == (401, "missing_token")
    assert spot.calls() == []


def test_a_stolen_signing_key_makes_no_token_for_another_user_of_a_session_at_hand(
    fortress: Gateway, backend: Backend
) -> None:
    """The ids of sessions stand in logs; whose they are is in the store."""
    session, spot = fortress.login("bob")["session_id"], backend.spot()
    words: dict[str, Any] = {"roles": ["admin"], "scope": "", "claims": {}, "counter": 0, "now": time.time()}
    signer = fortress.site.signer()

    def get(subject: str) -> Answer:
        token = signer.mint(subject=subject, session_id=session, **words).token
        return ask(fortress.port, request("GET", spot.path("/guarded"), token=token))

    assert get("u-bob").status == 200
    for other in ("u-alice", "u-bo", "bob", "u-bob ", "U-BOB"):
        assert get(other).error == (401, "revoked_token")
    assert len(spot.calls()) == 1


def test_a_key_shows_nothing_of_itself_in_an_exception() -> None:
    ring = keyring("HS256")
    public = Key(ring.signing.kid, "HS256", NOW, None, ring.signing.public)
    with pytest.raises(ValueError, match="cannot sign") as caught:
        public.sign(b"x")
    assert ring.signing.private.hex() not in repr(caught.value)
    assert b64(ring.signing.private).decode() not in repr((public, ring))
