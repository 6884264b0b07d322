"""Tokens of other issuers: whose keys they meet, what is asked of them, and what is read from them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import HMACAlgorithm

from gateway.errors import ExpiredToken, InvalidToken, IssuerUnavailable, UnknownKey
from gateway.tokens.foreign import Issuers
from gateway.tokens.keyfile import FOREIGN_ALGORITHMS
from gateway.tokens.keyset import KeySet
from gateway.tokens.strict import decode_base64url
from gateway.tokens.verifier import MAX_FOREIGN_BYTES, Verifier
from tests.tokens.foreign_support import (
    IDP,
    LIFE,
    OTHER,
    RULES,
    checker,
    foreign_claims,
    issuers,
    jwk,
    keys,
    private_key,
    token,
)
from tests.tokens.support import ABSENT, ISSUER, LEEWAY, NOW, SESSION, as_json, b64, claims, keyring, mint, signed

ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def refused(data: bytes, why: str | None, verifier: Verifier | None = None, now: float = NOW) -> None:
    with pytest.raises(InvalidToken, match=why) as caught:
        (verifier or checker()).verify(data, now)
    assert not isinstance(caught.value, UnknownKey)


def test_a_good_token_is_told_in_the_gateways_own_terms() -> None:
    found = checker().verify(token(), NOW)
    assert (found.iss, found.sub, found.aud, found.exp, found.iat) == (IDP, "f-1", ("api",), NOW + LIFE, NOW)
    assert (found.sid, found.n, found.jti, found.client_id) == ("", -1, "onrtac:1e7a", "shop")
    assert (found.roles, found.scope) == (("user",), ("openid", "orders:read"))
    assert found.foreign is not None
    assert found.foreign.subject == "f-1"


@pytest.mark.parametrize("algorithm", FOREIGN_ALGORITHMS)
def test_every_asymmetric_algorithm_is_verified(algorithm: str) -> None:
    known = issuers(loaded={IDP: keys(jwk(algorithm))})
    good = token(algorithm=algorithm)
    assert checker(known).verify(good, NOW).sub == "f-1"
    with pytest.raises(InvalidToken):
        checker(known).verify(good[:-6] + (b"AAAAAA" if good[-6:] != b"AAAAAA" else b"BBBBBB"), NOW)


# --- whose keys ---


def test_a_token_of_one_issuer_never_meets_a_key_of_another_with_the_same_kid() -> None:
    rules = replace(RULES, issuer=OTHER)
    loaded = {IDP: keys(jwk("RS256", number=0)), OTHER: keys(jwk("RS256", number=1))}
    both = checker(issuers(RULES, rules, loaded=loaded))
    assert both.verify(token(number=0), NOW).iss == IDP
    assert both.verify(token(foreign_claims(iss=OTHER), number=1), NOW).iss == OTHER
    refused(token(number=1), "signature", both)
    refused(token(foreign_claims(iss=OTHER), number=0), "signature", both)


def test_a_token_of_another_issuer_never_meets_our_key_whatever_kid_it_names() -> None:
    ours = keyring()
    for typ in ("at+jwt", "JWT"):
        forged = signed(foreign_claims(), ours, typ=typ)
        with pytest.raises(UnknownKey):  # RS256 and ES256: that issuer has no such kid
            checker().verify(forged, NOW)
    known = issuers(loaded={IDP: keys(jwk("ES256", kid=ours.signing.kid))})
    refused(signed(foreign_claims(), ours), "signature", checker(known))


def test_a_key_of_another_issuer_never_makes_a_token_of_ours() -> None:
    ours = keyring().signing.kid
    known = issuers(loaded={IDP: keys(jwk("ES256", kid=ours))})
    refused(token(claims(), "ES256", kid=ours, typ="at+jwt"), "signature", checker(known))
    refused(token(claims(), "ES256", kid="k1", typ="at+jwt"), "no key", checker())


def test_our_own_tokens_are_verified_as_ever() -> None:
    assert checker().verify(mint(), NOW).sid == SESSION
    assert checker().verify(mint(), NOW).foreign is None


@pytest.mark.parametrize(
    "issuer",
    [
        IDP + "/",
        IDP.upper(),
        IDP.replace("https", "http"),
        "https://evil.example",
        "",
        None,
        1,
        [IDP],
        {IDP: 1},
        ABSENT,
    ],
)
def test_a_token_of_no_known_issuer_is_invalid(issuer: Any) -> None:
    refused(token(foreign_claims(iss=issuer)), None)


def test_an_issuer_that_is_named_twice_is_read_in_no_way() -> None:
    payload = as_json(foreign_claims())[:-1] + b',"iss":"%b"}' % ISSUER.encode()
    refused(token(payload), "twice")
    refused(signed(as_json(claims())[:-1] + b',"iss":"%b"}' % IDP.encode()), "twice")


# --- keys and headers ---


def test_the_public_key_is_no_secret() -> None:
    """CVE-2016-10555: HS256 with the RSA public key as the secret."""
    public = private_key("RS256").public_key()
    secrets = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).strip(),
        public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(jwk("RS256")).encode(),
        b"",
    ]
    for secret in secrets:
        for algorithm in ("HS256", "hs256", "HS512"):
            message = (
                b64(as_json({"alg": algorithm, "kid": "k1", "typ": "JWT"})) + b"." + b64(as_json(foreign_claims()))
            )
            signature = HMACAlgorithm(HMACAlgorithm.SHA256).sign(message, secret)
            refused(message + b"." + b64(signature), "alg")


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", "HS256", "ES256K", None, ["RS256"], {}, 1, ABSENT])
def test_an_algorithm_that_is_not_allowed_is_refused(alg: Any) -> None:
    good = token(alg=alg)
    refused(good, "alg")
    refused(good[: good.rindex(b".") + 1], None)


def test_a_token_is_not_verified_with_another_algorithm_than_its_keys() -> None:
    refused(token(algorithm="PS256"), "kid and alg")
    refused(token(algorithm="RS512"), "kid and alg")
    refused(token(algorithm="PS256", alg="RS256"), "signature")


@pytest.mark.parametrize(
    "more",
    [
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"jwk": jwk("RS256", number=1)},
        {"x5c": ["AAAA"]},
        {"x5t": "AAAA"},
    ],
)
def test_what_a_header_says_about_keys_is_not_looked_at(more: dict[str, Any]) -> None:
    assert checker().verify(token(**more), NOW).sub == "f-1"
    refused(token(number=1, **more), "signature")


@pytest.mark.parametrize("more", [{"crit": ["exp"]}, {"crit": []}, {"b64": False}, {"b64": True}])
def test_an_extension_of_the_header_is_refused(more: dict[str, Any]) -> None:
    refused(token(**more), "crit or b64")


def test_a_signature_that_is_missing_doubled_or_of_something_else_is_refused() -> None:
    good = token()
    message, _, signature = good.rpartition(b".")
    for forged in (message, message + b".", good + b"." + signature, good + signature, message + b"." + signature[:-4]):
        refused(forged, None)
    other = token(foreign_claims(sub="f-2"))
    refused(b".".join((*good.split(b".")[:1], other.split(b".")[1], signature)), "signature")


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "JWT", "jwt", "application/jwt", ABSENT])
def test_the_types_of_access_tokens_are_accepted(typ: Any) -> None:
    assert checker().verify(token(typ=typ), NOW).sub == "f-1"


@pytest.mark.parametrize("typ", ["rt+jwt", "logout+jwt", "dpop+jwt", "at+jwt ", "jws", None, 1, ["JWT"]])
def test_another_type_is_refused(typ: Any) -> None:
    refused(token(typ=typ), "typ")


def test_types_can_be_narrowed() -> None:
    strict = frozenset({"at+jwt"})
    assert checker(types=strict).verify(token(typ="at+jwt"), NOW).sub == "f-1"
    refused(token(), "typ", checker(types=strict))
    refused(token(typ=ABSENT), "typ", checker(types=strict))


@pytest.mark.parametrize("kid", [1, ["k1"], {}, True, "k" * 256])
def test_a_kid_that_is_none_is_refused_and_asks_for_no_keys(kid: Any) -> None:
    refused(token(kid=kid), "kid")


def test_a_token_without_a_kid_is_verified_with_the_only_key_or_refused() -> None:
    assert checker().verify(token(kid=ABSENT), NOW).sub == "f-1"
    refused(token(kid=ABSENT), "kid", checker(issuers(loaded={IDP: keys(jwk("RS256"), jwk("RS256", "k2", 1))})))


def test_an_unknown_kid_says_which_issuer_may_have_new_keys() -> None:
    with pytest.raises(UnknownKey) as caught:
        checker().verify(token(kid="new"), NOW)
    assert (caught.value.issuer, caught.value.token) == (IDP, token(kid="new"))
    assert (caught.value.status, caught.value.code) == (401, "invalid_token")


@pytest.mark.parametrize(
    "data",
    [
        token(foreign_claims(exp=NOW - LEEWAY), kid="new"),
        token(foreign_claims(aud="other"), kid="new"),
        token(foreign_claims(exp=NOW + 90_000), kid="new"),
        token(foreign_claims(iat=ABSENT), kid="new"),
        token(kid="new", typ="rt+jwt"),
        token(kid="new", alg="HS256"),
    ],
)
def test_a_token_that_no_key_could_make_good_asks_for_no_keys(data: bytes) -> None:
    refused(data, None)


def test_before_any_keys_were_loaded_nobody_can_say_whether_a_token_is_good() -> None:
    with pytest.raises(IssuerUnavailable) as caught:
        checker(issuers(loaded={})).verify(token(), NOW)
    assert (caught.value.status, caught.value.code, caught.value.issuer) == (503, "identity_unavailable", IDP)
    refused(token(), "kid", checker(issuers(loaded={IDP: keys()})), NOW + LIFE + LEEWAY)


def test_an_issuer_without_a_key_that_can_be_used_has_no_good_token() -> None:
    with pytest.raises(UnknownKey):
        checker(issuers(loaded={IDP: keys()})).verify(token(), NOW)


def test_no_error_shows_the_token() -> None:
    for error in (UnknownKey(IDP, token()), IssuerUnavailable(IDP, token())):
        assert "eyJ" not in f"{error} {error!r} {error.description} {error.reason}"


# --- claims ---

NOT_WHOLE = [ABSENT, None, True, "1700000000", 1700000000.0, -1, [], 2**63]
BAD: list[tuple[str, list[Any]]] = [
    ("exp", [*NOT_WHOLE, 253402300800]),
    ("iat", [*NOT_WHOLE, NOW + LEEWAY + 1, 253402300799]),
    ("nbf", [*NOT_WHOLE[1:], NOW + LEEWAY + 1]),
    ("aud", [ABSENT, None, "", "API", "apis", [], ["other"], ["api", 1], {"api": 1}, 1]),
    ("sub", [ABSENT, None, "", 1, [], "u" * 256, "a\nb", "a\x00"]),
    ("jti", [None, "", 1, [], "j" * 256, "a\nb"]),
    ("cnf", [{"jkt": "x"}, {}, None]),
]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD for value in values])
def test_a_claim_of_another_type_form_or_value_makes_the_token_invalid(name: str, value: Any) -> None:
    refused(token(foreign_claims(**{name: value})), f"{name} |future|not valid yet|too long|bound to a key")


@pytest.mark.parametrize("aud", ["api", ["api"], ["account", "api", "https://idp.example.com/userinfo"]])
def test_the_audience_may_be_one_of_several(aud: Any) -> None:
    assert checker().verify(token(foreign_claims(aud=aud)), NOW).sub == "f-1"


def test_a_token_must_not_live_longer_than_is_allowed() -> None:
    assert checker().verify(token(foreign_claims(exp=NOW + 86400)), NOW).sub == "f-1"
    refused(token(foreign_claims(exp=NOW + 86401)), "too long")
    refused(token(foreign_claims(iat=0)), "too long")
    refused(token(foreign_claims(exp=NOW + 61)), "too long", checker(max_ttl=60.0))


def test_expiry_counts_with_the_leeway_and_the_claims_are_told() -> None:
    assert checker().verify(token(), NOW + LIFE + LEEWAY - 1).sub == "f-1"
    with pytest.raises(ExpiredToken) as caught:
        checker().verify(token(), NOW + LIFE + LEEWAY)
    assert caught.value.claims.sub == "f-1"


def test_an_expired_token_with_a_wrong_signature_is_invalid() -> None:
    refused(token(number=1), "signature", now=NOW + LIFE + LEEWAY)


def test_a_session_of_ours_is_never_read_from_another_issuers_token() -> None:
    found = checker().verify(token(foreign_claims(sid=SESSION, n=3)), NOW)
    assert (found.sid, found.n) == ("", -1)
    assert {"sid", "n"} & found.raw.keys() == set()


@pytest.mark.parametrize(
    ("claim", "value", "roles"),
    [
        ("roles", ["user", "admin"], ("user", "admin")),
        ("roles", "user admin", ("user", "admin")),
        ("roles", "user  admin ", ("user", "admin")),
        ("roles", [], ()),
        ("roles", ABSENT, ()),
        ("roles", None, ()),
        ("roles", {"admin": True}, ()),
        ("roles", ["user", 1], ()),
        ("roles", [["admin"]], ()),
        ("roles", True, ()),
        ("realm_access.roles", ["user"], ("user",)),
        ("https://example.com/roles", ["user"], ("user",)),
        ("resource_access.shop.roles", ["user"], ("user",)),
    ],
)
def test_roles_are_a_list_or_the_words_of_a_string_or_none_at_all(
    claim: str, value: Any, roles: tuple[str, ...]
) -> None:
    content = foreign_claims(roles=ABSENT)
    if claim.startswith("https:") or "." not in claim:
        content |= {} if value is ABSENT else {claim: value}
    else:
        nested = value
        for step in reversed(claim.split(".")[1:]):
            nested = {step: nested}
        content[claim.split(".", 1)[0]] = nested
    found = checker(roles_claim=claim).verify(token(content), NOW)
    assert found.roles == roles
    assert found.raw["roles"] == list(roles)


def test_roles_that_stand_elsewhere_than_configured_do_not_count() -> None:
    found = checker(roles_claim="realm_access.roles").verify(token(foreign_claims(roles=["admin"])), NOW)
    assert (found.roles, found.raw["roles"]) == ((), [])


@pytest.mark.parametrize(
    ("value", "scope"),
    [
        ("a b", ("a", "b")),
        (["a", "b"], ("a", "b")),
        (ABSENT, ()),
        (1, ()),
        (["a", 'b"'], ()),
        (["a b"], ()),
        ("a\u00e9", ()),
    ],
)
def test_the_scope_is_read_alike(value: Any, scope: tuple[str, ...]) -> None:
    found = checker(scope_claim="scp").verify(token(foreign_claims(scp=value, scope="never")), NOW)
    assert (found.scope, found.raw["scope"]) == (scope, " ".join(scope))


def test_another_claim_can_name_the_user_and_a_prefix_can_stand_before_it() -> None:
    found = checker(subject_claim="oid", subject_prefix="entra|").verify(token(foreign_claims(oid="o-1")), NOW)
    assert (found.sub, found.raw["sub"]) == ("entra|o-1", "entra|o-1")
    assert found.foreign is not None
    assert found.foreign.subject == "o-1"
    refused(token(), "oid", checker(subject_claim="oid"))


# --- what the store knows them by ---


def test_the_ids_in_the_store_name_the_issuer_and_are_none_of_our_own() -> None:
    rules = replace(RULES, issuer=OTHER)
    loaded = {IDP: keys(jwk("RS256")), OTHER: keys(jwk("RS256"))}
    both = checker(issuers(RULES, rules, loaded=loaded))
    one, other = (both.verify(token(foreign_claims(iss=iss)), NOW).foreign for iss in (IDP, OTHER))
    assert one is not None
    assert other is not None
    digest = b64(hashlib.sha256(IDP.encode()).digest()).decode()[:11]
    assert (one.subject_id, one.token_id) == (f"~{digest}:f-1", f"~{digest}:onrtac:1e7a")
    assert not {one.subject_id, one.token_id} & {other.subject_id, other.token_id}


def test_a_long_jti_has_an_id_that_the_store_takes() -> None:
    ids = set()
    for jti in ("j" * 200, "j" * 201, "j" * 202, "\u00e9" * 255):
        other = checker().verify(token(foreign_claims(jti=jti)), NOW).foreign
        assert other is not None
        assert len(other.token_id) <= 255
        ids.add(other.token_id)
    assert len(ids) == 4


def test_a_token_without_a_jti_is_known_by_what_was_signed_whatever_its_signature_looks_like() -> None:
    """ECDSA: (r, s) and (r, n - s) are both good; a revocation must hold for both."""
    known = issuers(loaded={IDP: keys(jwk("ES256"))})
    good = token(foreign_claims(jti=ABSENT), "ES256")
    message, _, text = good.rpartition(b".")
    raw = decode_base64url(text)
    twin = raw[:32] + (ORDER_P256 - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    ids = {checker(known).verify(each, NOW).jti for each in (good, message + b"." + b64(twin))}
    assert ids == {"h." + b64(hashlib.sha256(message).digest()).decode()}
    other = token(foreign_claims(jti=ABSENT, sub="f-2"), "ES256")
    assert checker(known).verify(other, NOW).jti not in ids


# --- memory ---


def test_a_token_is_verified_once() -> None:
    verifier = checker()
    first = verifier.verify(token(), NOW)
    with patch("gateway.tokens.jws.split", side_effect=AssertionError("verified again")):
        assert verifier.verify(bytes(bytearray(token())), NOW + 1) is first


def test_what_a_removed_key_verified_is_forgotten_at_once_and_the_rest_is_not() -> None:
    others = issuers(loaded={IDP: keys(jwk("RS256"), jwk("ES256", "k2"))})
    verifier = checker(others)
    going, staying, own = token(), token(algorithm="ES256", kid="k2"), mint()
    seen = [verifier.verify(each, NOW) for each in (going, staying, own)]
    after = KeySet.parse(b'{"keys":[%b]}' % as_json(jwk("ES256", "k2")), FOREIGN_ALGORITHMS, others.keys(IDP))
    verifier.forget_keys(others.take_keys(IDP, after))
    with pytest.raises(UnknownKey):
        verifier.verify(going, NOW)
    assert [verifier.verify(each, NOW) for each in (staying, own)] == seen[1:]


def test_an_expired_token_of_a_removed_key_is_not_called_expired_any_more() -> None:
    others = issuers()
    verifier = checker(others)
    with pytest.raises(ExpiredToken):
        verifier.verify(token(), NOW + 10**5)
    verifier.forget_keys(others.take_keys(IDP, keys(jwk("RS256", "k2", 1))))
    refused(token(), "kid", verifier, NOW + 10**5)


SAME = replace(RULES, issuer=OTHER)


@pytest.mark.parametrize(
    ("rules", "fresh", "error"),
    [
        ([SAME], [], InvalidToken),
        ([SAME, RULES], [IDP], IssuerUnavailable),
        ([SAME, replace(RULES, audience="others")], [], InvalidToken),
        ([SAME, replace(RULES, roles_claim="groups")], [], None),
        ([SAME, RULES], [], None),
    ],
)
def test_issuers_that_are_taken_up_make_forget_what_others_rules_read_and_nothing_else(
    rules: list[Any], fresh: list[str], error: type[Exception] | None
) -> None:
    others = issuers(RULES, SAME, loaded={IDP: keys(jwk("RS256")), OTHER: keys(jwk("ES256", "k2"))})
    verifier = checker(others)
    good = token(foreign_claims(groups=["admin"]))
    elsewhere = token(foreign_claims(iss=OTHER), algorithm="ES256", kid="k2")
    own = mint()
    seen = [verifier.verify(each, NOW) for each in (good, elsewhere, own)]
    verifier.forget_keys(others.take_up(rules, fresh))
    assert verifier.verify(elsewhere, NOW) is seen[1]
    assert verifier.verify(own, NOW) is seen[2]
    if error is not None:
        with pytest.raises(error):
            verifier.verify(good, NOW)
    else:
        expected = ("admin",) if rules[1].roles_claim == "groups" else ("user",)
        assert verifier.verify(good, NOW).roles == expected
        assert (verifier.verify(good, NOW) is seen[0]) is (rules[1] == RULES)


def test_without_other_issuers_their_tokens_are_anybodys() -> None:
    others = issuers()
    verifier = checker(others)
    assert verifier.verify(token(), NOW).sub == "f-1"
    verifier.forget_keys(others.take_up([], []))
    verifier.accept(None)
    refused(token(), None, verifier)
    verifier.accept(others)
    others.take_up([RULES], [IDP])
    with pytest.raises(IssuerUnavailable):
        verifier.verify(token(), NOW)


def test_keys_that_come_back_alike_keep_what_they_verified() -> None:
    others = issuers()
    verifier = checker(others)
    first = verifier.verify(token(), NOW)
    again = KeySet.parse(b'{"keys":[%b]}' % as_json(jwk("RS256")), FOREIGN_ALGORITHMS, others.keys(IDP))
    assert others.take_keys(IDP, again) == frozenset()
    assert verifier.verify(token(), NOW) is first


def test_tokens_of_other_issuers_may_be_longer_than_our_own_and_are_bounded() -> None:
    groups = ["g" * 40] * 200
    long = token(foreign_claims(groups=groups))
    assert 8192 < len(long) <= MAX_FOREIGN_BYTES
    assert checker().verify(long, NOW).sub == "f-1"
    refused(token(foreign_claims(groups=groups * 2)), "too long")
    refused(signed(claims(pad="x" * 7000)), "too long")


def test_issuers_that_are_not_configured_have_no_rules() -> None:
    known = Issuers([RULES], LEEWAY)
    assert known.rules(IDP) is RULES
    assert known.rules(OTHER) is None
