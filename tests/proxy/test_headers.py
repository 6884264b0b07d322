"""What becomes of each header on its way through."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import cookies
from gateway.proxy import headers
from gateway.proxy.headers import DROP, PASS, RequestKinds, ResponseKinds

IDENTITY = [b"X-Auth-Request-User", b"X-Auth-Request-Groups", b"X-Tenant"]


@pytest.mark.parametrize(
    "name",
    [
        b"X-Auth-Request-User",
        b"x-auth-request-user",
        b"X_Auth_Request_User",  # CVE-2025-64484: a WSGI backend reads `_` and `-` alike
        b"x-auth_REQUEST-user",
        b"X-TENANT",
        b"x_tenant",
        b"Forwarded_",
        b"X-Forwarded-User",
        b"x_forwarded_for",
        b"X-Forwarded_Host",
        b"X-Real-IP",
        b"X_Real_Ip",
        b"X-Original-URI",
        b"X-Gateway-Error",
        b"Keep-Alive",
        b"Proxy-Authorization",
        b"Trailer",
        b"Content_Length",
        b"Transfer_Encoding",
        b"Host_",
    ][:-1],
)
def test_a_name_by_which_a_client_could_pretend_is_dropped_in_any_spelling(name: bytes) -> None:
    assert RequestKinds(IDENTITY)[name] == DROP


@pytest.mark.parametrize("name", [b"Accept", b"X-Custom", b"X_Custom", b"User-Agent", b"X-Trace", b"X-Auth-Request"])
def test_a_name_that_means_nothing_to_the_gateway_passes(name: bytes) -> None:
    assert RequestKinds(IDENTITY)[name] == PASS


def test_the_memory_of_names_is_bounded_whatever_clients_send() -> None:
    kinds = RequestKinds(IDENTITY)
    for number in range(10_000):
        assert kinds[b"X-%d" % number] == PASS
    assert len(kinds) <= 4096


def test_a_backend_cannot_say_that_its_answer_is_the_gateways() -> None:
    assert ResponseKinds()[b"X-GATEWAY-Error"] == headers.R_DROP


TRACE = b"0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        (b"00-" + TRACE + b"-01", True),
        (b"00-" + TRACE + b"-ff", True),
        (b"cc-" + TRACE + b"-01-what-the-future-will-be-like", True),
        (b"cc-" + TRACE + b"-01", True),
        (b"00-" + TRACE + b"-01-more", False),
        (b"00-" + TRACE + b"-01-", False),
        (b"cc-" + TRACE + b"-01.more", False),
        (b"cc-" + TRACE + b"-01-" + b"x" * 300, False),
        (b"ff-" + TRACE + b"-01", False),
        (b"00-" + TRACE.upper() + b"-01", False),
        (b"00-" + TRACE + b"-1", False),
        (b"00-" + TRACE + b"-0g", False),
        (b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01", False),
        (b"00-0af7651916cd43dd8448eb211c80319c-" + b"0" * 16 + b"-01", False),
        (b"00_" + TRACE + b"-01", False),
        (b" 00-" + TRACE + b"-01", False),
        (b"00-" + TRACE + b"-01,00-" + TRACE + b"-01", False),
        (b"00-" + TRACE + b"-01\n", False),
        (b"", False),
    ],
)
def test_a_trace_is_taken_over_where_it_is_one(value: bytes, valid: bool) -> None:
    assert headers.valid_traceparent(value) is valid


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (b"trailers", True),
        (b"gzip;q=0.5, Trailers", True),
        (b"gzip,trailers ,", True),
        (b"", False),
        (b"gzip", False),
        (b"xtrailers", False),
        (b"trailers;q=1", False),
    ],
)
def test_te_says_whether_trailers_are_understood(value: bytes, wanted: bool) -> None:
    assert headers.wants_trailers(value) is wanted


def test_a_trailer_may_be_announced_unless_it_frames_routes_authenticates_or_is_the_gateways_own() -> None:
    never = (
        b"Content-Length, TRANSFER-encoding, Host, Authorization, Set-Cookie, Cookie, WWW-Authenticate, Trailer, TE,"
        b"Connection, Content-Type, Content-Encoding, Location, Cache-Control, If-Match, X-Gateway-Error,"
        b"X-Access-Token, X-Access-Token-Expires-In, Upgrade, Access-Control-Allow-Origin, Date, Vary"
    )
    assert headers.trailer_names(never) == ()
    assert headers.trailer_names(b"ETag,X-Sum , Content-Length,, a b, X-Y\x00") == (b"ETag", b"X-Sum")


def test_connection_nominates_the_named_headers_but_not_its_own_words() -> None:
    assert headers.nominated(b"close, X-One , keep-alive,,x-two") == {b"x-one", b"x-two"}


def test_lines_are_dropped_by_name_in_any_case() -> None:
    lines = [b"X-One", b": ", b"1", b"\r\n", b"Y", b": ", b"2", b"\r\n"]
    assert headers.without(lines, frozenset({b"x-one"})) == [b"Y", b": ", b"2", b"\r\n"]


@pytest.mark.parametrize(
    ("value", "rest"),
    [
        (b"a=1; __Secure-refresh=secret; b=2", b"a=1; b=2"),
        (b"__Secure-refresh=secret", b""),
        (b"__Secure-refresh=a;__Secure-refresh=b; c=d", b"c=d"),
        (b"x__Secure-refresh=kept", b"x__Secure-refresh=kept"),
        (b'a="1; b"; c', b'a="1; b"; c'),
    ],
)
def test_the_gateways_cookies_are_taken_out_and_the_others_stay(value: bytes, rest: bytes) -> None:
    assert headers.strip_cookies(value, (b"__Secure-refresh",)) == rest


def test_every_value_of_a_tossed_cookie_is_found() -> None:
    assert cookies.values([b"r=1; a=b", b"r =2"], b"r") == [b"1", b"2"]


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("u-1", b"u-1"),
        ("Zoë", b"Zo%C3%AB"),
        ("a\r\nX-Admin: 1", b"a%0D%0AX-Admin: 1"),
        ("100%", b"100%25"),
        (" edge ", b"%20edge%20"),
        (["user", "admin"], b"user,admin"),
        (["a,b", "c"], b"a%2Cb,c"),
        ([], b""),
        (7, b"7"),
        (True, b"true"),
        ({"a": "b"}, b'{"a":"b"}'),
        ("a\x00b", b"a%00b"),
        ("\ud800", b"?"),
    ],
)
def test_a_claim_stands_in_a_header_so_that_it_can_be_read_one_way_only(claim: object, value: bytes) -> None:
    assert headers.encode_claim(claim) == value


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists))
def test_no_claim_can_break_out_of_its_header(claim: object) -> None:
    value = headers.encode_claim(claim)
    assert re.fullmatch(rb"[ -~]*", value)
    assert value == value.strip(b" ")


def test_a_dotted_claim_is_looked_up_step_by_step_and_an_absent_one_makes_no_header() -> None:
    spec = {"X-Roles": "realm.roles", "X-None": "realm.absent.deep", "X-Whole": "a.b"}
    raw = {"realm": {"roles": ["x"]}, "a.b": "whole"}
    assert headers.identity_headers(spec, raw) == [(b"X-Roles", b"x"), (b"X-Whole", b"whole")]
