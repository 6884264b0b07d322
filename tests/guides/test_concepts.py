"""docs/concepts.md: what it shows is so, and its numbers are the defaults."""

from __future__ import annotations

import re

import pytest

from gateway.settings import Settings
from tests.guides.terminal import ROOT, commands, need, ports, terminal

pytestmark = pytest.mark.timeout(240)  # pages start several servers, on a machine that may be busy

PAGE = "docs/concepts.md"


def test_a_session_is_in_redis_from_sign_in_to_sign_out() -> None:
    need("redis-cli")
    with terminal(ports("8080", "9090", "6380")) as running:
        running.run("redis-server --port 6380 --save '' --bind 127.0.0.1 >redis.log 2>&1 &")
        running.play(commands("docs/concepts.md"))


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("access_ttl", "10 min"),
        ("refresh_ttl", "30 d"),
        ("session_ttl", "180 d"),
        ("refresh_grace", "10 s"),
        ("max_sessions_per_user", "50"),
    ],
)
def test_the_numbers_of_the_page_are_the_defaults(key: str, shown: str) -> None:
    number, _, unit = shown.partition(" ")
    seconds = int(number) * {"": 1, "s": 1, "min": 60, "d": 86400}[unit]
    settings = Settings.model_validate(
        {"tokens": {"issuer": "http://127.0.0.1", "audience": "x"}, "identity": {"webhook_url": "http://127.0.0.1/"}}
    )
    assert getattr(settings.tokens, key) == seconds
    assert re.search(rf"`{key}`[^`|]*\(?{shown}", (ROOT / PAGE).read_text())
