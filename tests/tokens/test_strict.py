"""base64url and JSON have one spelling each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tokens.strict import Malformed, decode_base64url, encode_base64url, encode_object, parse_object


@given(st.binary(max_size=200))
def test_what_was_encoded_decodes_to_itself(data: bytes) -> None:
    assert decode_base64url(encode_base64url(data)) == data


@given(st.binary(max_size=40))
def test_no_two_texts_decode_to_the_same_bytes(text: bytes) -> None:
    try:
        data = decode_base64url(text)
    except Malformed:
        return
    assert encode_base64url(data) == text


@pytest.mark.parametrize(
    "text",
    [
        b"QQ==",  # padded
        b"QQ=",
        b"QR",  # the last four bits are beyond the last byte
        b"QUJ",  # the last two
        b"Q",  # six bits are no byte
        b"QUJD\n",
        b" QUJD",
        b"QU JD",
        b"+/+/",  # the other alphabet
        b"QUJD!",
        b"QUJD\x00",
        "QÜJD".encode(),
        b"=",
    ],
)
def test_a_second_spelling_of_base64url_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed):
        decode_base64url(text)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"a":1,"a":1}', "twice"),
        (b'{"a":1,"\\u0061":2}', "twice"),  # the same name in another spelling
        (b'{"a":{"b":1,"b":2}}', "twice"),
        (b'[{"b":1,"b":2}]', "twice"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":Infinity}', "Infinity"),
        (b'{"a":-Infinity}', "-Infinity"),
        (b'{"a":1e999}', "too large"),
        (b'{"a":18446744073709551616}', "too large"),
        (b'{"a":-9223372036854775809}', "too large"),
        (b'{"a":' + b"9" * 5000 + b"}", "too large"),  # past Python's own limit for int(str)
        (b'{"a":"\\ud800"}', "not JSON"),
        (b'{"\\udfff":1}', "not JSON"),
        (b'{"a":["\\ud800"]}', "not JSON"),
        (b'{"a":"\xff"}', "not JSON"),
        (b'{"a":"\xed\xa0\x80"}', "not JSON"),  # a surrogate in UTF-8
        (b'{"a":"\xc0\x80"}', "not JSON"),  # an overlong NUL
        (b'\xef\xbb\xbf{"a":1}', "not JSON"),  # a byte order mark
        ('{"a":1}'.encode("utf-16"), "not JSON"),
        ('{"a":1}'.encode("utf-32-le"), "not JSON"),
        (b'{"a":"\n"}', "not JSON"),
        (b'{"a":1,}', "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b'{"a":01}', "not JSON"),
        (b'{"a":1}{"a":1}', "not JSON"),
        (b'{"a":1}\x00', "not JSON"),
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'"a"', "not a JSON object"),
        (b"1", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"a":' + b"[" * 16 + b"]" * 16 + b"}", "too deep"),
        (b"[" * 8000 + b"]" * 8000, "not JSON"),
        (b'{"a":' * 1300 + b"1" + b"}" * 1300, "not JSON"),
        (b"[" * 8000, "not JSON"),
    ],
)
def test_json_that_two_readers_could_read_differently_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        parse_object(data)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"{}", {}),
        (b'{"a":18446744073709551615,"b":-9223372036854775808}', {"a": 2**64 - 1, "b": -(2**63)}),
        (b'{"a":{"c":1},"b":{"c":1}}', {"a": {"c": 1}, "b": {"c": 1}}),
        (b'{"a":"\\ud83d\\ude00","b":"\xf0\x9f\x98\x80"}', {"a": "😀", "b": "😀"}),
        (b'{"a":' + b"[" * 15 + b"]" * 15 + b"}", {"a": [[[[[[[[[[[[[[[]]]]]]]]]]]]]]]}),
        (b' { "a" : 1.5 }\n', {"a": 1.5}),
    ],
)
def test_json_of_one_reading_is_read(data: bytes, value: object) -> None:
    assert parse_object(data) == value


def test_what_is_not_json_is_not_written() -> None:
    for value in ({"a": float("nan")}, {"a": "\ud800"}, {"a": object()}, {"a": {1, 2}}):
        with pytest.raises((ValueError, TypeError)):
            encode_object(value)


def test_a_malformed_message_does_not_quote_what_was_read() -> None:
    with pytest.raises(Malformed) as caught:
        parse_object(b'{"s3cret":1,"s3cret":2}')
    assert "s3cret" not in str(caught.value)
