"""`python -m tests.fuzz`: every target, or those named, under atheris (coverage-guided), each in a process of its own.

What breaks a law is written under build/fuzz/ with the line that replays it; the status is then 1.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOMS = ("tokens", "foreign", "paths", "heads", "wires", "texts")
INSTRUMENTED = ["gateway", "tomllib"]
LONGEST = 5000  # bytes of an input; longer ones find little and cost time
INPUT_SECONDS = 20
MEMORY = 3000  # MiB


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="all of them by default")
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    parser.add_argument(
        "--out", type=Path, default=Path("build/fuzz"), help="where inputs that break a law are written"
    )
    parser.add_argument("--list", action="store_true", help="name the targets and their laws")
    parser.add_argument("--replay", type=Path, help="run one target on one input, without atheris")
    parser.add_argument("--inside", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    said = parser.parse_args(words)
    if said.inside:
        return _inside(said.inside[0], said.inside[1:])
    targets = _load()
    unknown = [name for name in said.targets if name not in targets]
    if unknown:
        parser.error(f"no target {unknown[0]}; there are {', '.join(targets)}")
    chosen = said.targets or list(targets)
    if said.list:
        for name in chosen:
            print(f"{name:20} {(targets[name].check.__doc__ or '').splitlines()[0]}")
        return 0
    if said.replay is not None:
        for name in chosen:
            targets[name].check(said.replay.read_bytes())
        return 0
    return _all([targets[name] for name in chosen], said.seconds, said.out)


def _load() -> dict[str, Any]:
    for room in ROOMS:
        importlib.import_module(f"tests.fuzz.{room}")
    found: dict[str, Any] = importlib.import_module("tests.fuzz.target").TARGETS
    return found


def _all(targets: Sequence[Any], seconds: int, out: Path) -> int:
    out.mkdir(parents=True, exist_ok=True)
    broken = [each.name for each in targets if not _one(each, seconds, out)]
    print(f"{len(targets)} targets, {seconds} s each: {'broken: ' + ', '.join(broken) if broken else 'no law broken'}")
    return 1 if broken else 0


def _one(each: Any, seconds: int, out: Path) -> bool:
    """Fuzz one target; return whether its law held."""
    with tempfile.TemporaryDirectory(prefix="tg-fuzz-") as directory:
        corpus, words = Path(directory) / "corpus", Path(directory) / "words"
        corpus.mkdir()
        for number, data in enumerate(each.inputs()):
            (corpus / f"sample-{number}").write_bytes(data)
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in each.words))
        before = set(out.iterdir())
        options = [
            *(
                f"-max_total_time={seconds}",
                f"-timeout={INPUT_SECONDS}",
                f"-rss_limit_mb={MEMORY}",
                f"-max_len={LONGEST}",
            ),
            *(f"-dict={words}", f"-artifact_prefix={out}/{each.name}-", "-print_final_stats=1"),
        ]
        command = [sys.executable, "-m", "tests.fuzz", "--inside", each.name, str(corpus), *options]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    _report(each, done, sorted(set(out.iterdir()) - before))
    return done.returncode == 0


def _report(each: Any, done: subprocess.CompletedProcess[str], found: Sequence[Path]) -> None:
    figures = [
        line.split()[-1] for line in done.stderr.splitlines() if line.startswith("stat::number_of_executed_units")
    ]
    print(
        f"{each.name:20} {figures[0] if figures else '?':>10} inputs, {'ok' if done.returncode == 0 else 'BROKEN'}",
        flush=True,
    )
    if done.returncode == 0:
        return
    print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
    for path in found:
        print(f"  {path}: python -m tests.fuzz {each.name} --replay {path}")


def _escaped(word: bytes) -> str:
    """Write a word as libFuzzer's dictionaries have it."""
    plain = b"!#$%&'()*+,-./:;<=>?@[]^_`{|}~"
    return "".join(
        chr(byte) if (chr(byte).isalnum() and byte < 128) or byte in plain else f"\\x{byte:02X}" for byte in word
    )


def _inside(name: str, options: Sequence[str]) -> int:
    """Run one target in this process until libFuzzer ends it."""
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        sys.exit("atheris is needed: pip install '.[fuzz]' (it has wheels for Linux)")
    with atheris.instrument_imports(include=INSTRUMENTED):
        targets = _load()
    atheris.Setup([name, *options], targets[name].check)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
