"""The commands of pages that need neither a demo nor a shop."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks, commands, every_page
from tests.docs.shell import shell
from tests.e2e.harness import Site, until
from tests.e2e.test_issuers import get
from tests.issuer import issuer
from tests.redis_server import RedisServer

pytestmark = pytest.mark.timeout(120)  # programs of Python, on a machine that may be busy
WRONG = """
[redis]
timeout = "soon"
[tokens]
issuer = "https://api.example.com"
audience = "api"
accessttl = "5m"
[identity]
webhook_url = "http://accounts:8080/login"
"""


def test_a_start_with_a_bad_configuration_says_what_the_page_shows() -> None:
    (block,) = commands("docs/configuration.md", "Configuration")
    with shell() as made:
        (made.directory / "gateway.toml").write_text(WRONG)
        made.run(block)
        assert made.type("tokengate serve --config gateway.toml 2>/dev/null; echo $?") == "1\n"


def test_the_tables_of_the_benchmarks_are_made_again_from_the_run_that_is_kept() -> None:
    (block,) = commands("docs/benchmarks.md", "Benchmarks")
    with shell() as made:
        for name in ("benchmarks.json", "benchmarks.md"):
            (made.directory / "docs").mkdir(exist_ok=True)
            shutil.copy(ROOT / "docs" / name, made.directory / "docs")
        printed = made.run(block)
        page = (made.directory / "docs" / "benchmarks.md").read_text()
    assert page == (ROOT / "docs" / "benchmarks.md").read_text()
    assert printed.strip() in page


def test_a_token_of_another_issuer_is_exchanged_by_the_line_of_the_page(own_redis: RedisServer) -> None:
    (block,) = commands("docs/issuers.md", "Token exchange")
    exact = {"leeway": "0s"}  # else tokens are in doubt for as long as clocks may differ after a store was born
    with (
        issuer() as idp,
        Site(own_redis.url) as site,
        site.serve(issuers=[idp.settings(exchange=True)], tokens=exact) as gateway,
    ):
        until(lambda: get(gateway, idp.token(), "/auth/me").status == 200, "tokens are younger than the store")
        here = {"https://api.example.com": f"http://127.0.0.1:{gateway.port}"}
        with shell(swaps=here, variables={"FOREIGN": idp.token(sub="f-1")}) as made:
            answer = json.loads(made.run(block))
    assert answer["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    assert answer["refresh_token"]


def test_the_javascript_client_is_installed_from_the_checkout() -> None:
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    (block,) = commands("clients/javascript/README.md")
    with shell(variables={"npm_config_audit": "false", "npm_config_fund": "false"}) as made:
        _link(made.directory)
        made.run(block)
        assert (made.directory / "node_modules" / "tokengate" / "package.json").exists()


def test_pip_would_install_the_python_client_from_the_checkout() -> None:
    """Nothing is installed: what it would need is there, and the environment of the tests is not to be changed."""
    (block,) = commands("clients/python/README.md")
    settings = {"PIP_DRY_RUN": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PYTHONWARNINGS": "default"}
    with shell(variables=settings) as made:
        _link(made.directory)
        printed = made.run(block)
    assert re.search(r"Would install tokengate-client-[\d.]+\s*$", printed), printed


def _link(directory: Path) -> None:
    shutil.copytree(ROOT / "clients", directory / "clients", ignore=shutil.ignore_patterns("__pycache__", "test"))


def test_every_goal_of_make_that_is_named_anywhere_is_one_of_the_makefile() -> None:
    goals = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    texts = [(ROOT / page).read_text() for page in every_page()]
    said = [line for page in every_page() for block in blocks(page) for line in block.commands.splitlines()]
    said += [code for text in texts for code in re.findall(r"`([^`\n]+)`", text)]
    named = {goal for text in said for goal in re.findall(r"^(?:[A-Z_]+=\S+ )*make ([a-z][\w-]*)", text)}
    assert {"demo", "test", "docs"} <= named
    assert named <= goals


def test_a_page_without_commands_is_not_looked_at_for_nothing() -> None:
    assert blocks("SECURITY.md") == []
