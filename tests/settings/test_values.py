"""How single values are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings import values
from gateway.settings.values import Address, Origin


@pytest.mark.parametrize(
    ("parse", "written", "read"),
    [
        (values.duration, "250ms", 0.25),
        (values.duration, "10s", 10.0),
        (values.duration, "1.5s", 1.5),
        (values.duration, "15m", 900.0),
        (values.duration, "2h", 7200.0),
        (values.duration, "30d", 2592000.0),
        (values.duration, "0", 0.0),
        (values.duration, 0, 0.0),
        (values.lifetime, "0", 0.0),
        (values.lifetime, "1s", 1.0),
        (values.size, "0", 0),
        (values.size, 17, 17),
        (values.size, "17B", 17),
        (values.size, "64KiB", 65536),
        (values.size, "1GiB", 1 << 30),
        (values.address, "0.0.0.0:8080", Address("0.0.0.0", 8080)),
        (values.address, "localhost:0", Address("localhost", 0)),
        (values.address, "[::1]:80", Address("::1", 80)),
        (values.address, ":80", Address("0.0.0.0", 80)),
        (values.origin, "http://orders:8080", Origin("http", "orders", 8080)),
        (values.origin, "http://orders/", Origin("http", "orders", 80)),
        (values.origin, "https://[::1]", Origin("https", "::1", 443)),
        (values.issuer_url, "https://a.example/realms/main", "https://a.example/realms/main"),
        (values.issuer_url, "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        (values.route_path, "/", "/"),
        (values.route_path, "/api/orders/", "/api/orders/"),
        (values.strip_prefix, "", ""),
        (values.route_host, "Shop.Example.com.", "shop.example.com"),
        (values.route_host, "", ""),
        (values.ratio, 0, 0.0),
        (values.ratio, 1, 1.0),
        (values.ratio, 0.01, 0.01),
        (values.ratio, "0.25", 0.25),
        (values.collector_url, "", ""),
        (values.collector_url, "http://collector:4318", "http://collector:4318"),
        (values.collector_url, "https://[::1]:4318/otlp/", "https://[::1]:4318/otlp/"),
        (values.header_value, "Bearer a-b.c", "Bearer a-b.c"),
        (values.listed, "a, b,,c", ["a", "b", "c"]),
        (values.listed, '["a,b"]', ["a,b"]),
        (values.listed, "", []),
    ],
)
def test_a_good_value_is_read(parse: Callable[[object], object], written: object, read: object) -> None:
    assert parse(written) == read


@pytest.mark.parametrize(
    ("parse", "written"),
    [
        (values.duration, 10),  # of what?
        (values.duration, True),
        (values.duration, False),
        (values.duration, "10"),
        (values.duration, "-1s"),
        (values.duration, "1 s"),
        (values.duration, "1S"),
        (values.duration, "1e3s"),
        (values.duration, "infs"),
        (values.duration, "nans"),
        (values.duration, "\u0661s"),  # a digit, but not an ASCII one
        (values.duration, "10s\n"),
        (values.duration, "999999999d"),
        (values.lifetime, "999ms"),
        (values.size, -1),
        (values.size, True),
        (values.size, 1.5),
        (values.size, "64KB"),
        (values.size, "64kib"),
        (values.size, "1 KiB"),
        (values.size, "64KiB\n"),
        (values.address, "8080"),
        (values.address, "::1:80"),
        (values.address, "[127.0.0.1]:80"),
        (values.address, "host:65536"),
        (values.address, "host:-1"),
        (values.address, "host:80\n"),
        (values.address, "a b:80"),
        (values.address, 8080),
        (values.origin, "orders:8080"),
        (values.origin, "ftp://orders"),
        (values.origin, "http://user:pw@orders"),
        (values.origin, "http://@orders"),
        (values.origin, "http://orders/path"),
        (values.origin, "http://orders?"),
        (values.origin, "http://orders/#"),
        (values.origin, "http://orders:0"),
        (values.origin, "http://orders:99999"),
        (values.origin, "http://or ders"),
        (values.origin, "http://orders\r\nX: y"),
        (values.origin, "http://[orders]"),
        (values.origin, "http://"),
        (values.issuer_url, "http://api.example.com"),
        (values.issuer_url, "https://api.example.com?x"),
        (values.issuer_url, "https://api.example.com?"),
        (values.issuer_url, "https://api.example.com#x"),
        (values.issuer_url, "https://user@api.example.com"),
        (values.issuer_url, "api.example.com"),
        (values.issuer_url, "http://localhost.evil.example"),
        (values.network, "10.0.0.1/8"),
        (values.network, "0.0.0.0/0"),
        (values.network, "::/0"),
        (values.network, "*"),
        (values.network, 10),
        (values.route_path, ""),
        (values.route_path, "api"),
        (values.route_path, "/a//b"),
        (values.route_path, "/a/../b"),
        (values.route_path, "/a/."),
        (values.route_path, "/a%2fb"),
        (values.route_path, "/a;b"),
        (values.route_path, "/a?b"),
        (values.route_path, "/a\n"),
        (values.route_host, "shop.example.com:80"),
        (values.route_host, "*.example.com"),
        (values.route_host, 1),
        (values.token, ""),
        (values.token, "a b"),
        (values.token, "a:b"),
        (values.token, "a\r\n"),
        (values.method, "get"),
        (values.method, "CONNECT"),
        (values.scope_token, 'a"b'),
        (values.scope_token, "a b"),
        (values.scope_token, ""),
        (values.ratio, -0.1),
        (values.ratio, 1.01),
        (values.ratio, float("nan")),
        (values.ratio, True),
        (values.ratio, "1e-3"),
        (values.ratio, "nan"),
        (values.ratio, "\u0661"),
        (values.collector_url, "collector:4318"),
        (values.collector_url, "http://user:pw@collector:4318"),
        (values.collector_url, "http://collector:4318?x"),
        (values.collector_url, "http://collector:4318#x"),
        (values.collector_url, "grpc://collector:4317"),
        (values.collector_url, None),
        (values.header_value, ""),
        (values.header_value, " a"),
        (values.header_value, "a\r\nX: y"),
        (values.header_value, "caf\u00e9"),
        (values.key_prefix, "{a}"),
        (values.key_prefix, ""),
        (values.key_prefix, "a" * 33),
        (values.text, ""),
        (values.text, "a" * 256),
        (values.text, "a\x1b[0m"),
    ],
)
def test_a_bad_value_is_refused_with_what_is_allowed(parse: Callable[[object], object], written: object) -> None:
    with pytest.raises(ValueError, match=r"allowed"):
        parse(written)


@pytest.mark.parametrize(
    "name",
    [
        "duration",
        "size",
        "address",
        "origin",
        "network",
        "issuer_url",
        "http_url",
        "ratio",
        "collector_url",
        "header_value",
        "redis_url",
        "route_path",
        "route_host",
        "token",
        "text",
    ],
)
@given(written=st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.text())))
def test_a_parser_refuses_whatever_it_is_given_with_what_is_allowed(name: str, written: Any) -> None:
    said = "allowed"
    try:
        getattr(values, name)(written)
    except ValueError as error:
        said = str(error)
    assert "allowed" in said


def test_addresses_and_origins_are_shown_as_they_are_written() -> None:
    assert str(values.address("[::]:8080")) == "[::]:8080"
    assert str(values.origin("http://[::1]:81")) == "http://[::1]:81"
    assert str(values.origin("https://orders")) == "https://orders:443"
