"""docs/operations/capacity.md is made from docs/scale.json, and what it tells to type works."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from benchmarks import scale_report
from benchmarks.plan import Constants
from benchmarks.scale_results import SAVED, Results, load, save

ROOT = Path(__file__).parents[2]
PAGE = scale_report.PAGE
_BLOCK = re.compile(r"(<!-- not run: [^\n]*-->\n)?```sh\n(.*?)```", re.DOTALL)
COMMANDS = [
    line
    for not_run, block in _BLOCK.findall(PAGE.read_text())
    if not not_run
    for line in block.splitlines()
    if line.strip()
]


@pytest.fixture(scope="module")
def results() -> Results:
    return load(SAVED)


def test_the_tables_are_those_of_the_run_that_is_kept(results: Results) -> None:
    text = PAGE.read_text()
    assert scale_report.fill(text, results) == text
    assert text.count("<!-- scale: ") == len(scale_report.TABLES)


def test_every_constant_is_told_or_stands_in_the_arithmetic() -> None:
    text = PAGE.read_text()
    unused = {"store_bytes"}  # of an empty server
    missing = [each.name for each in fields(Constants) if each.name not in text and each.name not in unused]
    assert missing == []


def test_the_constants_of_the_run_are_what_a_machine_of_today_can_have(results: Results) -> None:
    """Bounds a decade wide, for a run that went wrong; tests/scale/test_bytes.py holds the bytes themselves."""
    found = results.constants
    assert 5 < found.nginx < 100
    assert 1 < found.request_kept / found.nginx < 5
    assert found.request_full < found.request * 1.2
    assert 2 < found.batch < 50
    assert 0.2 < found.ask < 10
    assert found.session_bytes + found.index_bytes < 600
    assert all(getattr(found, each.name) >= 0 for each in fields(Constants))


def test_the_model_of_memory_was_right_to_two_percent(results: Results) -> None:
    (memory,) = [check for check in results.checks if check.unit == "MiB"]
    assert abs(memory.error) < 0.02


def test_a_run_is_the_same_after_it_was_saved_and_loaded(results: Results, tmp_path: Path) -> None:
    other = replace(results, when="2026-01-01")
    save(other, tmp_path / "run.json")
    assert load(tmp_path / "run.json") == other


def run(command: str) -> str:
    words = command.split()
    assert words[:3] == [".venv/bin/python", "-m", "benchmarks"]
    done = subprocess.run(
        [sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_prints_what_it_says(command: str) -> None:
    printed = run(command)
    if command == COMMANDS[0]:
        assert f"```text\n{printed}```" in PAGE.read_text()
    else:
        assert "pods" in printed or "--sessions N" in printed


def test_the_page_is_printed_from_a_saved_run_too() -> None:
    printed = run(".venv/bin/python -m benchmarks --scale --from docs/scale.json")
    assert "| sessions | requests/s |" in printed


def test_a_number_that_is_none_is_told() -> None:
    words = [sys.executable, "-m", "benchmarks", "--plan", "--sessions", "many", "--rps", "1k"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 2
    assert "--sessions: 'many' is no number as in 1500, 50k, 2M" in done.stderr
