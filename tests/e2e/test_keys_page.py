"""docs/operations/keys.md: its commands, run on gateways that serve, do what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Gateway, Site, toml, until
from tests.e2e.test_keys import PATIENT, SECONDS, kid_of, published
from tests.e2e.test_mounted import Volumes
from tests.redis_server import RedisServer

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations" / "keys.md").read_text()
BRISK = {"publish_before": "1s", "access_ttl": "1s", "leeway": "0s"}

Run = Callable[..., str]


def blocks(heading: str) -> list[str]:
    """Return the commands under a heading of level two."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def test_every_block_of_commands_is_run_by_a_test_of_this_file() -> None:
    run = [len(blocks(heading)) for heading in ("On one machine", "In Kubernetes", "When a key was stolen")]
    assert run == [3, 2, 2]
    assert PAGE.count("```sh") == 7


@pytest.fixture
def site(shared_redis: RedisServer) -> Iterator[Site]:
    with Site(shared_redis.url) as made:
        yield made


@pytest.fixture
def volumes(shared_redis: RedisServer) -> Iterator[Volumes]:
    with Volumes(shared_redis.url) as made:
        yield made


@pytest.fixture
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Run commands as an operator in the folder of a site, whose gateway.toml has the times of its gateways."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {
        "tokengate": f'PYTHONPATH={ROOT} exec {sys.executable} -m gateway "$@"',
        "kubectl": 'echo "$*" >> kubectl.log; case "$*" in *apply*) cat > applied;; *) echo "kind: Secret";; esac',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)

    def run(made: Site, commands: str, tokens: dict[str, str], **variables: str) -> str:
        known = {"issuer": "https://gateway.test", "audience": "e2e", "signing_keys": "keys", **tokens}
        sections = {"tokens": known, "identity": {"webhook_url": "http://accounts/login"}}
        (made.directory / "gateway.toml").write_text(toml(sections))
        environ = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", **variables}
        words = ["bash", "-euo", "pipefail", "-c", commands]
        ran = subprocess.run(
            words, cwd=made.directory, env=environ, check=False, timeout=60, text=True, capture_output=True
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return run


def kids(gateway: Gateway) -> tuple[str, str]:
    tokens = gateway.login()
    return kid_of(tokens["access_token"]), kid_of(tokens["refresh_token"])


def rows(table: str) -> dict[str, str]:
    """Return the states that `keys list` tells, by kid."""
    head, *lines = table.splitlines()
    at, end = head.index("STATE"), head.index("REMOVABLE")
    return {line.split()[0]: line[at:end].strip() for line in lines}


def test_the_table_of_the_page_has_the_columns_that_are_printed(site: Site, run: Run) -> None:
    head = run(site, "tokengate keys list --config gateway.toml", {}).splitlines()[0]
    assert re.search(rf"^{re.sub(' +', ' +', head)}$", PAGE, re.MULTILINE)


def test_on_one_machine_keys_of_both_kinds_are_added_and_pruned(site: Site, run: Run) -> None:
    add, prune, add_refresh = blocks("On one machine")
    with site.serve(tokens=BRISK, routes=[], **PATIENT) as gateway:
        old, old_refresh = kids(gateway)
        new = Path(run(site, add, BRISK).splitlines()[0]).stem
        until(lambda: kids(gateway)[0] == new, "the new key signs", SECONDS)
        until(lambda: rows(run(site, add.splitlines()[1], BRISK))[old] == "may be removed", "it is retired", SECONDS)
        removed = run(site, prune, BRISK).splitlines()
        assert removed == [f"keys/{old}.pem"] * 2
        assert rows(run(site, add.splitlines()[1], BRISK)) == {new: "signing", old_refresh: "signing"}
        until(lambda: published(gateway) == [new], "it is gone", SECONDS)
        printed = run(site, add_refresh, BRISK).splitlines()
        fresh = Path(printed[0]).name.removesuffix(".refresh.jwk")
        until(lambda: kids(gateway) == (new, fresh), "the new refresh key signs", SECONDS)
        assert rows(run(site, add_refresh.splitlines()[1], BRISK))[old_refresh] == "retired"


def test_in_kubernetes_the_folder_is_applied_and_reaches_the_pods(volumes: Volumes, run: Run) -> None:
    add, prune = blocks("In Kubernetes")
    folder = volumes.directory / "keys"

    def kubelet() -> None:
        """Mount what has been applied."""
        (volumes.directory / "applied").unlink()
        volumes.keys.swap({path.name: path.read_bytes() for path in folder.iterdir()})

    tokens = {**BRISK, "signing_keys": str(volumes.keys.path)}
    with volumes.serve(tokens=tokens, routes=[], **PATIENT) as gateway:
        old, _ = kids(gateway)
        new = Path(run(volumes, add, BRISK).splitlines()[0]).stem
        kubelet()
        until(lambda: kids(gateway)[0] == new, "the new key signs", SECONDS)
        listed = next(line for line in add.splitlines() if "keys list" in line)
        until(lambda: rows(run(volumes, listed, BRISK))[old] == "may be removed", "it is retired", SECONDS)
        run(volumes, prune, BRISK)
        kubelet()
        until(lambda: published(gateway) == [new], "it is gone", SECONDS)
        asked = (volumes.directory / "kubectl.log").read_text().splitlines()
        assert sum("create secret generic tokengate-keys --from-file=keys" in line for line in asked) == 2


def test_a_stolen_signing_key_is_replaced_at_once(site: Site, run: Run) -> None:
    replace, _ = blocks("When a key was stolen")
    with site.serve(routes=[], **PATIENT) as gateway:
        stolen, refresh = kids(gateway)
        new = Path(run(site, replace, {}, STOLEN=stolen).splitlines()[0]).stem
        until(lambda: kids(gateway) == (new, refresh), "the new key signs", SECONDS)
        assert published(gateway) == [new]


def test_a_stolen_refresh_key_is_replaced_at_once(site: Site, run: Run) -> None:
    _, replace = blocks("When a key was stolen")
    with site.serve(routes=[], **PATIENT) as gateway:
        access, stolen = kids(gateway)
        told = gateway.login()["refresh_token"]
        new = Path(run(site, replace, {}, STOLEN=stolen).splitlines()[0]).name.removesuffix(".refresh.jwk")
        until(lambda: kids(gateway) == (access, new), "the new key signs", SECONDS)
        assert gateway.refresh(told).error == (400, "invalid_grant")


def test_a_directory_without_a_key_that_signs_is_not_taken_up(site: Site) -> None:
    with site.serve(routes=[], **PATIENT) as gateway:
        before = kids(gateway)
        for path in (site.directory / "keys").glob("*.pem"):
            path.unlink()
        until(lambda: "can sign with ES256" in gateway.log, "it is told", SECONDS)
        assert kids(gateway) == before
