"""What docs/operations/monitoring.md says to type works: its commands, and its prometheus.yml."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import _no_exception_is_logged, site
from tests.e2e.harness import Gateway, Site, until
from tests.monitoring.sources import PAGE, ROOT, RULES, need

__all__ = ["_no_exception_is_logged", "site"]

CONFIGURATION = ROOT / "docs" / "configuration.md"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def block(page: Path, language: str, word: str) -> str:
    (found,) = [text for text in blocks(page, language) if word in text]
    return found


def run(directory: Path, script: str) -> str:
    """Run lines of a page in a directory, with a `tokengate` that is this one; what they print."""
    program = directory / "bin" / "tokengate"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m gateway "$@"\n')
    program.chmod(0o755)
    environ = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    command = ["bash", "-euo", "pipefail", "-c", script]
    ran = subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def wrote(directory: Path, gateway: Gateway) -> None:
    (directory / "gateway.toml").symlink_to(gateway.config)


def test_the_rules_pass_promtool_as_the_page_says() -> None:
    need("promtool")
    assert "SUCCESS" in run_in_checkout(block(PAGE, "sh", "promtool"))


def run_in_checkout(script: str) -> str:
    ran = subprocess.run(["bash", "-euc", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_configuration_of_prometheus_is_one(tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text(block(PAGE, "yaml", "scrape_configs"))
    (tmp_path / "rules.yaml").write_bytes(RULES.read_bytes())
    command = [need("promtool"), "check", "config", "prometheus.yml"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "18 rules found" in ran.stdout


@pytest.mark.timeout(120)
def test_the_commands_about_sessions_and_the_trail_do_what_they_say(site: Site, tmp_path: Path) -> None:
    with Site(site.redis_url, users={"jane": {"sub": "u-1"}}) as own, own.serve(audit={"stream": True}) as gateway:
        wrote(tmp_path, gateway)
        gateway.login("jane")
        listed, ended = run(tmp_path, block(PAGE, "sh", "sessions revoke")).splitlines()
        assert json.loads(listed)["subject"] == "u-1"
        assert ended == "1 ended"
        until(lambda: len(trail(tmp_path)) == 3, "the sign-in is written")
        follow = block(PAGE, "sh", "--follow")
        assert "--follow" in follow  # tests/e2e/test_audit_stream.py follows one; here it is to end
        run(tmp_path, follow.replace("--follow ", ""))
    kept = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    kept.sort(key=lambda entry: str(entry["ts"]))  # the gateway's own entry waits a tenth of a second for others
    assert [entry["event"] for entry in kept] == ["login", "sessions_listed", "sessions_revoked"]
    assert [entry.get("reason") for entry in kept] == [None, "ticket 4711", "laptop stolen"]
    assert kept[2]["who"] == "jane"


def trail(directory: Path) -> list[str]:
    return run(directory, block(PAGE, "sh", "refresh_reuse")).splitlines()


def test_the_token_of_an_admin_is_made_as_the_page_says(site: Site, tmp_path: Path) -> None:
    run(tmp_path, "umask 077\n" + block(CONFIGURATION, "sh", "hash-token"))
    token = (tmp_path / "alice.token").read_text().strip()
    tokens = {"admin_tokens_file": str(tmp_path / "admin-tokens.toml")}
    with site.serve(management=tokens) as gateway:
        url = f"http://127.0.0.1:{gateway.management}/admin/users/nobody/sessions"
        asked = f"curl -sf {url} -H 'Authorization: Bearer {token}' -H 'X-Admin-Reason: a test'"
        assert json.loads(run_in_checkout(asked)) == {"sessions": []}
        line = next(line for line in gateway.log_lines() if line.get("event") == "sessions_listed")
        assert (line["by"], line["reason"]) == ("admin:alice", "a test")
