"""make soak: a million requests on two replicas, then four times what one worker can do. Prints its tables.

make soak                            the whole of it
make soak SOAK_ARGS='--scale 0.1'    a tenth
"""

from __future__ import annotations

import argparse
import sys

from tests.soak import overload
from tests.soak.run import Soak, soak
from tests.soak.traffic import WHOLE

STORM_SECONDS = 4.0


def main() -> int:
    """Return 1 where something did not hold."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the whole (default 1)")
    given = parser.parse_args()
    result = soak(WHOLE.scaled(given.scale), _say)
    sys.stdout.write(_report(result))
    _say("overload")
    phases = overload.overload(STORM_SECONDS)
    sys.stdout.write("\n" + overload.table(phases) + "\n")
    return int(bool(result.broken) or phases[-1].statuses[503] == 0)


def _report(result: Soak) -> str:
    lines = ["| what | number |", "|---|---:|", f"| seconds | {result.seconds:.0f} |"]
    lines += [f"| {name} | {count} |" for name, count in sorted(result.answers.items())]
    lines += [f"| broken off | {result.dropped} |"]
    lines += [f"| keys: {name} | {count} |" for name, count in sorted(result.keys.items())]
    lines += ["", "| of the requests done | memory of each replica, MiB | descriptors |", "|---:|---:|---:|"]
    for done, usages in result.samples:
        memory = ", ".join(f"{each.memory / 2**20:.1f}" for each in usages)
        lines.append(f"| {done:.0%} | {memory} | {', '.join(str(each.descriptors) for each in usages)} |")
    lines += ["", *(f"BROKEN: {law}" for law in result.broken)] if result.broken else ["", "Everything held."]
    return "\n".join(lines) + "\n"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
