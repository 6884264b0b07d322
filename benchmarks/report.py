"""A run as Markdown: the median of each figure, its ratio to plain nginx of the same rounds, and the targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks import grants, slices
from benchmarks.footprint import Footprint
from benchmarks.measure import Sample
from benchmarks.results import Footprints, Results, Rounds
from benchmarks.streams import STREAMS, Watched

LIMIT = "nginx"
OURS = "tokengate"
TWO = "tokengate, 2 workers"
UNCHECKED_ENVOY = "Envoy"
GET = "GET of 1 KiB, 32 connections"
BODIES = "GET of 1 MiB, 8 connections"
HALF = "GET of 1 KiB, 32 connections, half load"


@dataclass(frozen=True, slots=True)
class Target:
    """`met` is None where this run cannot tell; `found` says why."""

    text: str
    found: str
    met: bool | None


def document(results: Results) -> str:
    """Return every table of a run, as Markdown."""
    parts = [_preface(results), _targets(results)]
    parts += [f"**{name}**\n\n{table(rounds)}" for name, rounds in results.loads.items()]
    if results.grants:
        parts.append(_grants(results))
    if isinstance(results.slices, dict):
        parts.append(_slices(results.slices))
    if isinstance(results.watched, Watched):
        parts.append(_watched(results.watched))
    if results.idle:
        parts.append(_footprints("Memory of idle connections, each after one request", results.idle))
    if results.websockets:
        parts.append(_footprints("Memory of WebSockets", results.websockets))
    return "\n\n".join(part for part in parts if part) + "\n"


def table(rounds: Rounds) -> str:
    """Return the table of one load."""
    head = ("", "CPU µs a request", "ratio", "Redis µs", "core %", "requests/s", "p50 ms", "p99 ms", "MiB", "errors")
    return _markdown(head, (_row(name, rounds) for name in rounds))


def ratio(rounds: Rounds, name: str, limit: str = LIMIT) -> float:
    """Return how many times the CPU a request one peer takes of another, the median of the rounds' ratios."""
    pairs = zip(rounds[name], rounds[limit], strict=True)
    return median(mine.cpu_per_request / theirs.cpu_per_request for mine, theirs in pairs)


def _row(name: str, rounds: Rounds) -> list[str]:
    samples = rounds[name]
    return [
        name,
        f"{_median(samples, _cpu) * 1e6:.1f}",
        f"{ratio(rounds, name):.2f}" if LIMIT in rounds else "",
        f"{_median(samples, _store) * 1e6:.1f}" if any(sample.store_cpu for sample in samples) else "",
        f"{_median(samples, lambda s: s.cpu / s.seconds) * 100:.0f}",
        f"{_median(samples, lambda s: s.rate):,.0f}",
        f"{_median(samples, lambda s: s.p50) * 1e3:.2f}",
        f"{_median(samples, lambda s: s.p99) * 1e3:.2f}",
        f"{_median(samples, lambda s: s.memory) / 2**20:.0f}",
        str(sum(sample.errors for sample in samples)),
    ]


def targets(results: Results) -> list[Target]:
    """Return the targets that this run has something to say about."""
    loads = {name: rounds for name, rounds in results.loads.items() if OURS in rounds and LIMIT in rounds}
    found: list[Target] = []
    if GET in loads:
        found += _get_targets(loads[GET], results)
    if BODIES in loads:
        found.append(_at_most("CPU a byte of 1 MiB bodies, times nginx", ratio(loads[BODIES], OURS), 1.5))
    if HALF in loads:
        pairs = zip(loads[HALF][OURS], loads[HALF][LIMIT], strict=True)
        found.append(_at_most("p99 at half load above nginx', ms", median(a.p99 - b.p99 for a, b in pairs) * 1e3, 1.0))
    if isinstance(results.watched, Watched):
        milliseconds = results.watched.cpu / results.watched.count * STREAMS * 1e3
        found.append(_at_most(f"CPU of {STREAMS:,} watched streams, ms a second", milliseconds, 5.0))
    ours = results.idle.get(OURS)
    if isinstance(ours, Footprint):
        found.append(_at_most("memory of an idle connection, KiB", ours.each / 1024, 12.0))
    if grants.REFRESH in results.grants:
        cpu = _median(results.grants[grants.REFRESH], _cpu)
        found.append(_at_most("CPU of a refresh, µs", cpu * 1e6, 400.0))
    return found


def _get_targets(rounds: Rounds, results: Results) -> list[Target]:
    found = [_at_most("CPU a request with the live check, times nginx", ratio(rounds, OURS), 1.5)]
    if UNCHECKED_ENVOY in rounds:
        found.append(_at_most("the same, times Envoy that checks nothing", ratio(rounds, OURS, UNCHECKED_ENVOY), 1.0))
    return [*found, _scaling(rounds, results)] if TWO in rounds else found


def _scaling(rounds: Rounds, results: Results) -> Target:
    """Two workers against one: a core each, else a slice of a core each, else nothing can be said."""
    text = "requests/s of 2 workers at least 1.8 times 1"
    if results.scales:
        factor, how = _faster(rounds[TWO], rounds[OURS]), ""
    elif isinstance(results.slices, dict):
        factor, how = _faster(results.slices[slices.TWO], results.slices[slices.ONE]), " (a quarter of a core each)"
    else:
        cost = ratio(rounds, TWO, OURS)
        words = f"too few cores to say ({results.slices}); a request costs {cost:.2f} times the CPU"
        return Target(text, words, None)
    return Target(text, f"{factor:.2f}{how}", factor >= 1.8)


def _faster(mine: Sequence[Sample], theirs: Sequence[Sample]) -> float:
    return median(one.rate / other.rate for one, other in zip(mine, theirs, strict=True))


def _at_most(text: str, found: float, limit: float) -> Target:
    return Target(f"{text}: at most {limit:g}", f"{found:.2f}", found <= limit)


def _targets(results: Results) -> str:
    words = {True: "met", False: "**missed**", None: "not measured"}
    rows = [[target.text, target.found, words[target.met]] for target in targets(results)]
    return _markdown(("target", "found", ""), rows) if rows else ""


def _preface(results: Results) -> str:
    about = results.machine
    rounds = {len(samples) for each in results.loads.values() for samples in each.values()}
    lines = [
        f"{results.when}. {about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, Python {about['python']}.",
        f"Pinned: {about['pinning']}. Medians of {max(rounds, default=0)} alternating rounds of {results.seconds:g} s.",
    ]
    versions = ", ".join(f"{name} {number}" for name, number in results.versions.items() if number)
    lines += [f"Versions: {versions}."] if versions else []
    lines += [f"Not in this run: {name} ({reason})." for name, reason in results.absent.items()]
    return "\n".join(lines)


def _grants(results: Results) -> str:
    rows = [
        [
            name,
            f"{_median(samples, _cpu) * 1e6:,.0f}",
            f"{_median(samples, _store) * 1e6:,.0f}",
            f"{_median(samples, lambda s: s.rate):,.0f}",
            f"{_median(samples, lambda s: s.p50) * 1e3:.2f}",
            f"{_median(samples, lambda s: s.p99) * 1e3:.2f}",
            str(sum(sample.errors for sample in samples)),
        ]
        for name, samples in results.grants.items()
    ]
    head = ("", "CPU µs each", "Redis µs each", "a second", "p50 ms", "p99 ms", "errors")
    note = f"Of a login's CPU, the check of the password (argon2id) by itself takes {results.hash_cost * 1e6:,.0f} µs."
    return f"**Login and refresh, 1 worker**\n\n{_markdown(head, rows)}\n\n{note}"


def _slices(rounds: Rounds) -> str:
    note = f"Each worker is held to a quarter of core 0 by a CPU quota; {slices.CONNECTIONS} connections to each."
    return f"**Two workers beside one, GET of 1 KiB**\n\n{table(rounds)}\n\n{note}"


def _watched(found: Watched) -> str:
    head = ("", "WebSockets", "CPU ms a second", "Redis ms a second")
    row = [OURS, f"{found.count:,}", f"{found.cpu * 1e3:.1f}", f"{found.store_cpu * 1e3:.1f}"]
    title = "Watching streams that say nothing, above what the same gateway takes without any"
    return f"**{title}**\n\n{_markdown(head, [row])}"


def _footprints(title: str, found: Footprints) -> str:
    rows = [
        [name, each, "", "", ""]
        if isinstance(each, str)
        else [
            name,
            f"{each.count:,}",
            f"{each.each / 1024:.1f}",
            f"{each.before / 2**20:.0f}",
            f"{each.after / 2**20:.0f}",
        ]
        for name, each in found.items()
    ]
    return f"**{title}**\n\n" + _markdown(("", "connections", "KiB each", "MiB before", "MiB after"), rows)


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cpu(sample: Sample) -> float:
    return sample.cpu_per_request


def _store(sample: Sample) -> float:
    return sample.store_cpu / max(1, sample.requests)


def _median(samples: Sequence[Sample], figure: Callable[[Sample], float]) -> float:
    return median(figure(sample) for sample in samples)
