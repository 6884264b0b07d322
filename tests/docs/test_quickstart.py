"""docs/quickstart.md: from nothing to 401 expired_token, a refresh and a sign-out, as the page says."""

from __future__ import annotations

import shutil

import pytest

from tests.docs.pages import blocks, commands
from tests.docs.shell import shell

PAGE = "docs/quickstart.md"
PORTS = ("8080", "8081", "8082", "9090", "9091", "6380")
BRIEF = {"20s": "5s", "sleep 21": "sleep 6"}  # the life of a token; enough for three requests on a busy machine


@pytest.mark.timeout(180)
def test_the_commands_of_the_quick_start_print_what_it_says() -> None:
    if shutil.which("redis-cli") is None:
        pytest.skip("needs redis-cli")
    assert sum(block.printed is not None for block in blocks(PAGE)) >= 8
    # 9090 stands in no file: it is the default
    with shell(PORTS, BRIEF) as made:
        made.type(f"export TOKENGATE_MANAGEMENT__BIND={made.here('127.0.0.1:9090')}")
        said = {block.heading: made.run(block) for block in commands("docs/quickstart.md")}
        left = [line.rsplit(" ", 1) for line in said["What is left in Redis"].splitlines()]
        assert sum(key.endswith(":epoch") for key, _ in left) == 16
        assert all(int(ttl) > 0 or key.endswith(":epoch") for key, ttl in left)
        assert made.type("ls /tmp/tokengate 2>&1").strip().endswith("No such file or directory")
