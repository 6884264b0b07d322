"""The table `[cors]`: which origins of pages can be named, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.settings import load
from gateway.settings.cors import page_origin
from tests.settings.support import loaded, refused

ORIGIN = 'an origin as in "https://app.example.com" is allowed (http:// on a loopback host), without path'


def test_no_page_of_another_origin_may_call_by_default() -> None:
    section = loaded().cors
    assert (section.allow_origins, section.expose_headers, section.max_age) == ((), (), 600)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://App.Example.com", "https://app.example.com"),
        ("https://app.example.com:8443", "https://app.example.com:8443"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("http://[::1]:5173", "http://[::1]:5173"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
    ],
)
def test_an_origin_is_read_as_browsers_write_it(written: str, read: str) -> None:
    assert loaded(cors={"allow_origins": [written]}).cors.allow_origins == (read,)


@pytest.mark.parametrize(
    "written",
    [
        "*",
        "null",
        "",
        "app.example.com",
        "//app.example.com",
        "https://",
        "https://*.example.com",
        "https://app.example.com/",
        "https://app.example.com/app",
        "https://app.example.com?",
        "https://app.example.com?a=b",
        "https://app.example.com#",
        "https://app.example.com:443",
        "https://app.example.com:0443",
        "https://app.example.com:",
        "https://app.example.com:08443",
        "https://app.example.com.",
        "https://user@app.example.com",
        "https://app.example.com https://b.example.com",
        " https://app.example.com",
        "https://app.example.com\r\nSet-Cookie: a=b",
        "https://b\u00fccher.example",
        "https://[2001:db8:0::1]",
        "https://[2001:DB8::0001]",
        "http://localhost:80",
        "http://app.example.com",
        "http://10.0.0.1",
        "http://localhost.example.com",
        "file://",
        "chrome-extension://abcdefgh",
        7,
        None,
        ["https://app.example.com"],
    ],
)
def test_what_no_page_of_a_listed_origin_could_send_is_refused_by_its_key(written: Any) -> None:
    told = refused(cors={"allow_origins": ["https://app.example.com", written]})
    assert len(told) == 1
    assert told[0].startswith("cors.allow_origins.1 (TOKENGATE_CORS): ")
    assert ORIGIN in told[0]
    with pytest.raises(ValueError, match="an origin as in"):
        page_origin(written)


def test_an_origin_is_named_once() -> None:
    told = refused(cors={"allow_origins": ["https://a.example", "https://b.example", "https://A.example"]})
    assert told == [
        'cors.allow_origins.2: found "https://a.example" twice; each once is allowed',
    ]


@pytest.mark.parametrize("name", ["", "*", "X Total", "X-Total:", "X-T\u00f6tal", "X-A\r\nX-B", "X-A,X-B", 7])
def test_a_header_to_expose_is_a_name(name: Any) -> None:
    (told,) = refused(cors={"expose_headers": [name]})
    assert told.startswith("cors.expose_headers.0 (TOKENGATE_CORS): ")


@pytest.mark.parametrize(("written", "seconds"), [("0", 0), ("0s", 0), ("1h", 3600), ("1d", 86400)])
def test_a_preflight_is_remembered_for_a_day_at_most(written: str, seconds: int) -> None:
    assert loaded(cors={"max_age": written}).cors.max_age == seconds
    for wrong in ("25h", "-1s", "soon", -1):
        assert refused(cors={"max_age": wrong})[0].startswith("cors.max_age")


def test_origins_come_from_the_environment_as_words_between_commas(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        '[tokens]\nissuer = "https://a.example"\naudience = "a"\n[identity]\nwebhook_url = "http://a/login"\n'
        '[cors]\nallow_origins = ["https://c.example"]\n'
    )
    variables = {
        "TOKENGATE_CORS__ALLOW_ORIGINS": "https://a.example, http://localhost:3000",
        "TOKENGATE_CORS__EXPOSE_HEADERS": "X-Total,Link",
    }
    section = load(file, variables).cors
    assert section.allow_origins == ("https://a.example", "http://localhost:3000")
    assert section.expose_headers == ("X-Total", "Link")
