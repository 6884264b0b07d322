"""The published examples of RFC 7515, RFC 7520 and RFC 8037, verified, and then bent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from gateway.tokens import jws
from gateway.tokens.keyfile import BadKey, Key, read_key
from gateway.tokens.strict import Malformed, decode_base64url, encode_base64url
from tests.tokens.support import jwk_file

_CLAIMS = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
_BAGGINS = (
    "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwg"
    "YW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9m"
    "ZiB0by4"
)


@dataclass(frozen=True)
class Example:
    where: str
    jwk: dict[str, Any]
    signed: str
    signature: str

    def __str__(self) -> str:
        return self.where


EXAMPLES = [
    Example(
        "RFC 7515 A.1, HS256",
        {"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"},
        f"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{_CLAIMS}",
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    ),
    Example(
        "RFC 7515 A.2, RS256",
        {
            "kty": "RSA",
            "e": "AQAB",
            "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT"
            "-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-"
            "UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2eth"
            "FkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
        },
        f"eyJhbGciOiJSUzI1NiJ9.{_CLAIMS}",
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUA"
        "r7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO"
        "--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igc"
        "N_IoypGlUPQGe77Rw",
    ),
    Example(
        "RFC 7515 A.3, ES256",
        {
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        },
        f"eyJhbGciOiJFUzI1NiJ9.{_CLAIMS}",
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    ),
    Example(
        "RFC 7520 4.4, HS256",
        {"kty": "oct", "k": "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg"},
        "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9." + _BAGGINS,
        "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0",
    ),
    Example(
        "RFC 8037 A.4, EdDSA",
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    ),
]
EACH = pytest.mark.parametrize("example", EXAMPLES, ids=str)


@cache
def key_of(where: str) -> Key:
    (example,) = (example for example in EXAMPLES if example.where == where)
    return read_key(jwk_file(example.jwk), ".jwk")


@EACH
def test_the_published_signature_is_good(example: Example) -> None:
    assert key_of(example.where).verify(example.signed.encode(), decode_base64url(example.signature.encode()))


@EACH
def test_the_published_signature_is_over_no_other_message(example: Example) -> None:
    key, signature = key_of(example.where), decode_base64url(example.signature.encode())
    head, payload = example.signed.split(".")
    for other in ("", head, payload, f"{payload}.{head}", example.signed + ".", example.signed[:-1], f"{head}.."):
        assert not key.verify(other.encode(), signature)


@EACH
def test_the_published_signature_with_any_bit_turned_is_bad(example: Example) -> None:
    key, good = key_of(example.where), decode_base64url(example.signature.encode())
    for bit in range(len(good) * 8):
        bent = bytearray(good)
        bent[bit // 8] ^= 1 << bit % 8
        assert not key.verify(example.signed.encode(), bytes(bent)), bit


@EACH
def test_no_key_of_another_example_takes_its_signature(example: Example) -> None:
    signature = decode_base64url(example.signature.encode())
    for other in EXAMPLES:
        if other is not example:
            assert not key_of(other.where).verify(example.signed.encode(), signature)


@EACH
def test_no_example_is_an_access_token_whichever_key_it_is_read_with(example: Example) -> None:
    """They name no type, and most of them no key."""
    token = f"{example.signed}.{example.signature}".encode()
    with pytest.raises(Malformed):
        jws.read(token, lambda kid: key_of(example.where), "at+jwt")


def test_the_unsecured_example_is_no_token() -> None:
    """RFC 7515 A.5."""
    with pytest.raises(Malformed):
        jws.read(f"eyJhbGciOiJub25lIn0.{_CLAIMS}.".encode(), lambda kid: key_of(EXAMPLES[0].where), "JWT")


def test_the_key_of_the_es512_example_is_refused() -> None:
    """RFC 7515 A.4: P-521 is not among the algorithms."""
    jwk = {
        "kty": "EC",
        "crv": "P-521",
        "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
        "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
    }
    with pytest.raises(BadKey, match="P-256, P-384"):
        read_key(jwk_file(jwk), ".jwk")


def test_the_second_signature_that_ecdsa_has_for_every_message_is_the_same_token_to_the_blacklist() -> None:
    """(r, n - s) verifies wherever (r, s) does, so a token has two texts: what is revoked must be its jti.

    RFC 7515 A.3, turned over.
    """
    example = EXAMPLES[2]
    good = decode_base64url(example.signature.encode())
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    turned = good[:32] + (order - int.from_bytes(good[32:], "big")).to_bytes(32, "big")
    assert encode_base64url(turned).decode() != example.signature
    assert key_of(example.where).verify(example.signed.encode(), turned)
