"""Every target holds its law over its samples, the kept corpus and whatever Hypothesis makes of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import foreign, heads, paths, texts, tokens, wires
from tests.fuzz.__main__ import main
from tests.fuzz.target import CORPUS, TARGETS, Target

ROOMS = (tokens, foreign, paths, heads, wires, texts)
SLOW = dict.fromkeys(("requests", "answers", "settings_file", "environment", "redaction"), 120) | {
    "settings_secret": 40
}
EDIT = st.tuples(st.integers(0, 1 << 16), st.integers(0, 6), st.integers(0, 1 << 16) | st.binary(max_size=6))


def mutated(each: Target) -> st.SearchStrategy[bytes]:
    """Return samples with a few places cut out and words, bytes or pieces of other samples put in."""
    inputs = each.inputs()
    choices = [*each.words, *(data[at : at + 9] for data in inputs for at in range(0, min(len(data), 90), 9))] or [b""]

    def edit(data: bytes, edits: list[tuple[int, int, int | bytes]]) -> bytes:
        for place, gone, put in edits:
            at = place % (len(data) + 1)
            data = data[:at] + (put if isinstance(put, bytes) else choices[put % len(choices)]) + data[at + gone :]
        return data

    sampled = st.builds(edit, st.sampled_from(inputs), st.lists(EDIT, max_size=4))
    return sampled | st.binary(max_size=60)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_the_law_holds_over_the_samples_and_the_corpus(name: str) -> None:
    each = TARGETS[name]
    inputs = each.inputs()
    assert inputs
    for data in inputs:
        each.check(data)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_the_law_holds_over_mutations(name: str) -> None:
    each = TARGETS[name]

    @settings(max_examples=SLOW.get(name, 400), deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(mutated(each))
    def run(data: bytes) -> None:
        each.check(data)

    run()


def test_every_target_says_its_law_and_every_corpus_has_a_target() -> None:
    assert all((each.check.__doc__ or "").strip() for each in TARGETS.values())
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)


def test_the_command_replays_an_input_without_atheris_and_names_the_targets(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b'{"sub":"u-1"}')
    command = [sys.executable, "-m", "tests.fuzz"]
    assert subprocess.run([*command, "webhook_answer", "--replay", str(path)], check=False).returncode == 0
    listed = subprocess.run([*command, "--list"], check=True, capture_output=True, text=True)
    assert {line.split()[0] for line in listed.stdout.splitlines()} == set(TARGETS)


def test_an_input_that_breaks_a_law_breaks_its_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(data: bytes) -> None:
        raise AssertionError(data)

    monkeypatch.setitem(TARGETS, "broken", Target("broken", check, list))
    path = tmp_path / "input"
    path.write_bytes(b"x")
    with pytest.raises(AssertionError, match="x"):
        main(["broken", "--replay", str(path)])
