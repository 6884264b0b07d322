"""The pages whose commands talk to `make demo`: README.md, docs/demo.md, docs/http-api.md, docs/rotation.md.

`make` is the real one, with the real Makefile, in an environment that it takes for installed.
"""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from gateway.settings import sample
from tests.docs.pages import ROOT, Block, commands
from tests.docs.shell import Shell, shell
from tests.e2e.harness import until
from tests.e2e.wire import ask, request
from tests.redis_server import free_port

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not shutil.which("make") or not shutil.which("curl"), reason="needs make and curl"),
]
ERRORS = re.compile(r'"error":"(\w+)"')


@contextmanager
def demo(*ports: str, **variables: str) -> Iterator[Shell]:
    """Run a shell in which `make demo` serves elsewhere and comes back to the prompt."""
    routes = tomllib.loads(sample("demo.toml").read_text())["routes"]
    backend = [f"http://127.0.0.1:{free_port()}"]
    moved = {"TOKENGATE_ROUTES": json.dumps([{**route, "upstream": backend} for route in routes])}
    with shell(("8080", "9090", *ports), {"make demo": "make demo >demo.log 2>&1 &"}, {**moved, **variables}) as made:
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, made.directory)
        (made.directory / ".venv" / ".installed-demo").touch()
        made.type("unset MAKEFLAGS MAKELEVEL; export VENV=.venv")  # what `make test` was called with is not meant here
        made.type("export TOKENGATE_SERVER__BIND=127.0.0.1:8080 TOKENGATE_MANAGEMENT__BIND=127.0.0.1:9090")
        yield made


def ready(made: Shell) -> None:
    until(lambda: _status(int(made.here("9090")), "/readyz") == 200, "the demo is ready", 40)


def _status(port: int, target: str) -> int:
    try:
        return ask(port, request("GET", target, {"Connection": "close"})).status
    except OSError:
        return 0


def test_the_first_of_the_two_commands_of_the_readme_serves_the_page_and_ci_runs_the_second() -> None:
    (block,) = commands("README.md", "Two commands")
    first, second = (line.partition("#")[0].strip() for line in block.commands.splitlines())
    with demo() as made:
        made.type(first)
        ready(made)
        assert _status(int(made.here("8080")), "/") == 200
    assert f"{second} " in (ROOT / ".ci" / "run").read_text()


def test_the_demo_is_where_its_page_says_and_where_the_environment_moves_it() -> None:
    plain, elsewhere = commands("docs/demo.md")
    for block, port in ((plain, "8080"), (elsewhere, "8090")):
        with demo("8090") as made:
            made.run(block)
            ready(made)
            assert _status(int(made.here(port)), "/") == 200


# What each part of the page prints, as far as it is no token: statuses and error codes, in this order.
HTTP_API: Mapping[str, list[str]] = {
    "HTTP API": [],
    "Sign in": [],
    "Call a backend": ["200"],
    "Refresh": ["csrf_rejected"],
    "Sessions": ["204"],
    "Introspect": [],
    "Forward-auth": ["200", "403", "insufficient_scope"],
    "Revoke, sign out": ["200", "revoked_token", "204", "invalid_grant"],
    "Keys and metadata": [],
    "Management": ["204"],
}
_TOLD = re.compile(r'^HTTP/1\.1 (\d{3})|^(\d{3})$|"error":"(\w+)"', re.MULTILINE)


def test_the_commands_of_the_http_api_do_what_stands_above_them() -> None:
    printed: dict[str, str] = {}
    with demo() as made:
        for block in commands("docs/http-api.md"):
            printed[block.heading] = printed.get(block.heading, "") + made.run(block)
            if block.heading == "HTTP API":
                ready(made)
    told = {part: ["".join(found) for found in _TOLD.findall(said)] for part, said in printed.items()}
    assert told == HTTP_API
    assert printed["Refresh"].count('"access_token":') == 1  # by the cookie; the other one is from another origin
    assert '"device":"laptop"' in printed["Sessions"]
    assert [json.loads(line)["active"] for line in printed["Introspect"].splitlines()] == [True, False]
    assert "x-auth-request-user: u-demo" in printed["Forward-auth"].lower()
    assert '"keys":[' in printed["Keys and metadata"]
    assert "tokengate_refreshes_total{" in printed["Management"]
    assert '"signing":' in printed["Management"] or '"kid' in printed["Management"]


def test_the_commands_of_the_rotation_show_what_their_comments_say() -> None:
    (block,) = commands("docs/rotation.md", "To see it")
    brief = Block(block.page, block.line, block.heading, block.commands.replace("sleep 11", "sleep 6"))
    with demo(TOKENGATE_TOKENS__REFRESH_GRACE="5s", TOKENGATE_TOKENS__ACCESS_TTL="5m") as made:
        made.type("make demo")
        ready(made)
        rotated, replayed, used, still, reuse, ended = made.run(brief).splitlines()
        assert rotated == replayed == still != ""
        assert used == "200"
        assert ERRORS.findall(reuse + ended) == ["invalid_grant", "revoked_token"]
