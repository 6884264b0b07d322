"""A run as an SVG bar chart: CPU a request of each peer, the least first, with the ratio to plain nginx.

Readable on a light and on a dark page: text takes the colour of the page, bars have colours that suit both.
"""

from __future__ import annotations

from html import escape
from statistics import median

from benchmarks.report import GET, LIMIT, OURS, ratio
from benchmarks.results import Results, Rounds

WIDTH, LEFT, RIGHT, ROW, TOP, BOTTOM = 860, 250, 150, 28, 64, 34
NOTE = "blue: tokengate; in brackets: times plain nginx; a cut bar is longer"
CUT = 12  # times the limit; a bar that is longer than that is drawn cut, so that the others can be told apart
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:15px}.note{fill:#59636e}"
    ".peer{fill:#8c959f}.ours{fill:#1f6feb}.limit{stroke:#8c959f;stroke-dasharray:3 3}.cut{stroke:#fff;stroke-width:4}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}.peer{fill:#6e7681}.cut{stroke:#0d1117}}"
)


def draw(results: Results, load: str = GET) -> str:
    """Return the chart of one load. Raises KeyError where the run has no such load."""
    rounds = results.loads[load]
    cost = {name: median(sample.cpu_per_request for sample in samples) * 1e6 for name, samples in rounds.items()}
    names = sorted(cost, key=cost.__getitem__)
    height = TOP + ROW * len(names) + BOTTOM
    limit = cost.get(LIMIT, max(cost.values()))
    scale = (WIDTH - LEFT - RIGHT) / max(each for each in cost.values() if each <= limit * CUT)
    end = TOP + ROW * len(names)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"',
        f'width="{WIDTH}" height="{height}" aria-label="{escape(_alternative(cost, names))}">',
        f"<style>{_STYLE}</style>",
        '<text class="title" x="16" y="26">CPU of a proxied request, µs (less is better)</text>',
        f'<text class="note" x="16" y="46">{escape(load)}; {NOTE}</text>',
        *(_bar(name, cost[name], scale, TOP + ROW * at, rounds) for at, name in enumerate(names)),
        _line(LEFT + cost[LIMIT] * scale, end) if LIMIT in cost else "",
        f'<text class="note" x="16" y="{end + 22}">{escape(_caption(results))}</text>',
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _bar(name: str, cost: float, scale: float, y: int, rounds: Rounds) -> str:
    kind = "ours" if name.startswith(OURS) else "peer"
    times = f" ({ratio(rounds, name):.2f})" if LIMIT in rounds else ""
    most = WIDTH - LEFT - RIGHT
    width = min(cost * scale, most)
    cut = f'<path class="cut" d="M{LEFT + most - 24} {y + ROW - 2}l8 {4 - ROW}"/>' if cost * scale > most + 1 else ""
    return (
        f'<text x="{LEFT - 10}" y="{y + 18}" text-anchor="end">{escape(name)}</text>'
        f'<rect class="{kind}" x="{LEFT}" y="{y + 4}" width="{width:.1f}" height="{ROW - 8}" rx="2"/>{cut}'
        f'<text x="{LEFT + width + 8:.1f}" y="{y + 18}">{cost:.1f}{times}</text>'
    )


def _line(x: float, end: int) -> str:
    return f'<line class="limit" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{end}"/>'


def _alternative(cost: dict[str, float], names: list[str]) -> str:
    return "CPU microseconds a request: " + ", ".join(f"{name} {cost[name]:.1f}" for name in names)


def _caption(results: Results) -> str:
    about = results.machine
    return f"{results.when[:10]}, {about['cpu']}, {about['cores']} cores, one for the proxy"
