"""Numbers of your own into a plan, from constants that were measured (docs/scale.json).

python -m benchmarks --plan --sessions 2M --rps 50k --access-ttl 10m
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import scale_report
from benchmarks.plan import FRONTS, POOLED, Demand, Headroom, plan
from benchmarks.scale_results import SAVED, load

_SCALES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def count(text: str) -> float:
    """Read a number: 1500, 2M, 50k. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)", text)
    if found is None:
        raise ValueError(f"{text!r} is no number as in 1500, 50k, 2M")
    return float(found[1]) * _SCALES[found[2]]


def duration(text: str) -> float:
    """Read a duration as in the configuration; the answer is in seconds. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)", text)
    if found is None:
        raise ValueError(f"{text!r} is no duration as in 500us, 10s, 10m, 1h")
    return float(found[1]) * _UNITS[found[2]]


def part(text: str) -> float:
    """Read a share: 60%, 0.6. Raises ValueError."""
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def _told(read: Callable[[str], float]) -> Callable[[str], float]:
    """Return what has argparse tell the text of an error."""

    def reader(text: str) -> float:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return reader


def main(words: Sequence[str]) -> int:
    """Print a plan."""
    counted, timed, shared = _told(count), _told(duration), _told(part)
    parser = argparse.ArgumentParser(prog="benchmarks --plan", description=__doc__)
    parser.add_argument("--plan", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--sessions", type=counted, required=True, metavar="N", help="sessions that are alive: 1500, 2M"
    )
    parser.add_argument(
        "--rps", type=counted, required=True, metavar="N", help="requests a second, at the busiest time"
    )
    parser.add_argument("--access-ttl", type=timed, default=600.0, metavar="T", help="tokens.access_ttl (10m)")
    parser.add_argument("--online", type=shared, default=1.0, metavar="P", help="share of the sessions in use (100%%)")
    parser.add_argument("--logins", type=counted, metavar="N", help="a second (each session once a day)")
    parser.add_argument("--revocations", type=counted, default=0.0, metavar="N", help="of single tokens, a second (0)")
    parser.add_argument("--users-file", action="store_true", help="passwords are checked here, not by a webhook")
    parser.add_argument("--clients", choices=FRONTS, default=POOLED, help=f"how they come in ({POOLED})")
    parser.add_argument("--round-trip", type=timed, default=0.0, metavar="T", help="of the network to Redis (0s)")
    parser.add_argument("--busy", type=shared, default=0.6, metavar="P", help="how busy a core may be (60%%)")
    parser.add_argument("--zones", type=int, default=3, metavar="N", help="one of which may be lost; 1 = none (3)")
    parser.add_argument("--remembered", type=int, default=65_536, metavar="N", help="tokens.remembered (65536)")
    parser.add_argument("--from", dest="from_file", type=Path, default=SAVED, metavar="FILE", help="a run of --scale")
    given = parser.parse_args(words)
    try:
        demand = Demand(
            given.sessions,
            given.rps,
            given.access_ttl,
            online=given.online,
            logins=given.logins,
            revocations=given.revocations,
            front=given.clients,
            round_trip=given.round_trip,
            users_file=given.users_file,
        )
        headroom = Headroom(busy=given.busy, zones=given.zones, tokens=given.remembered)
        constants = load(given.from_file).constants
        sys.stdout.write(scale_report.told(plan(demand, constants, headroom), constants, headroom))
    except (ValueError, TypeError, OSError) as error:
        parser.error(str(error))
    return 0
