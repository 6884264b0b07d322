"""docs/images/rotation.svg: what tokens/rotation.py decides, drawn.

Nothing here knows a rule. A session is put into each of its states, a token of each age is presented, and `rotate`
says where that leads; the same for an access token that is seen, and for time that passes. Only the places of the
boxes and lines are fixed: a step that has no line fails here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.tokens.rotation import Outcome, SessionState, mark_used, rotate

NOW, GRACE, COUNTER = 1_000_000.0, 10.0, 5
PRESENTED = {"n = c": COUNTER, "n = c - 1": COUNTER - 1, "n < c - 1": COUNTER - 2, "n > c": COUNTER + 1}
LIVE = {
    "fresh": SessionState(COUNTER),
    "grace": SessionState(COUNTER, used_at=NOW - GRACE / 2),
    "over": SessionState(COUNTER, used_at=NOW - GRACE - 1),
}


@dataclass(frozen=True)
class Step:
    """What happens in a state, what it is called, and which state is next."""

    before: str
    after: str
    event: str
    outcome: str = ""


def state(session: SessionState | None, now: float = NOW) -> str:
    """Return the name of a session's state."""
    if session is None:
        return "none"
    if session.used_at is None:
        return "fresh"
    return "grace" if now <= session.used_at + GRACE else "over"


def steps() -> list[Step]:
    """Return every step from every state that changes something or hands out a token."""
    found = []
    for name, session in LIVE.items():
        for event, presented in PRESENTED.items():
            decision = rotate(session, presented, NOW, GRACE)
            found.append(Step(name, state(decision.session), event, decision.outcome))
        later = state(session, NOW + GRACE)
        if later != name:
            found.append(Step(name, later, "the grace passes"))
        seen = state(mark_used(session, COUNTER, NOW))
        if seen != name:
            found.append(Step(name, seen, "an access token|of c is seen"))
    nobody = {rotate(None, presented, NOW, GRACE).outcome for presented in PRESENTED.values()}
    return [*found, *(Step("none", "none", "any n", outcome) for outcome in sorted(nobody))]


def expired() -> set[Outcome]:
    """Return what becomes of any token, in any state, once the session's end has passed."""
    ended = [replace(session, expires_at=int(NOW) - 1) for session in LIVE.values()]
    return {rotate(session, n, NOW, GRACE).outcome for session in ended for n in PRESENTED.values()}


# --- the picture ---

BOXES = {  # left, top, and two lines
    "fresh": (30, 130, "successor unused", "no token of c was seen"),
    "grace": (380, 130, "successor used", "within refresh_grace"),
    "over": (730, 130, "successor used", "refresh_grace has passed"),
    "none": (380, 370, "no session", "ended, expired or never was"),
}
WIDTH, HEIGHT = 200, 64
LINES = {  # from, to: the way, and where its words stand (left, top, anchor)
    ("fresh", "fresh"): ("M70 194v44q0 10 10 10h20q10 0 10-10v-42", 30, 272, "start"),
    ("grace", "grace"): ("M520 130v-28q0-10 10-10h20q10 0 10 10v26", 540, 80, "middle"),
    ("fresh", "grace"): ("M230 162H377", 304, 182, "middle"),
    ("grace", "over"): ("M580 162H727", 654, 182, "middle"),
    ("grace", "fresh"): ("M430 130q0-38-40-38H240q-40 0-40 36", 315, 80, "middle"),
    ("over", "fresh"): ("M830 130q0-98-60-98H180q-60 0-60 96", 475, 22, "middle"),
    ("fresh", "none"): ("M170 194L392 366", 190, 322, "start"),
    ("grace", "none"): ("M480 194V366", 492, 270, "start"),
    ("over", "none"): ("M780 194L568 366", 734, 290, "start"),
    ("none", "none"): ("M580 390h30q10 0 10 10v10q0 10-10 10h-28", 633, 409, "start"),
}
STYLE = """text{font:14px system-ui,sans-serif;fill:#1f2328}.name{font-weight:600;font-size:15px}
.note{fill:#59636e;font-size:13px}
.card{fill:#fff;stroke:#d1d9e0}.box{fill:#f6f8fa;stroke:#59636e;stroke-width:1.5}.end{stroke-dasharray:5 4}
.line{fill:none;stroke:#59636e;stroke-width:1.5}.head{fill:#59636e}
.rotated{fill:#0550ae;font-weight:600}.replayed{fill:#116329;font-weight:600}.reuse{fill:#a40e26;font-weight:600}
.unknown,.expired{fill:#59636e;font-weight:600}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}.card{fill:#151b23;stroke:#3d444d}
.box{fill:#212830;stroke:#9198a1}.line{stroke:#9198a1}.head{fill:#9198a1}.rotated{fill:#79c0ff}.replayed{fill:#7ee787}
.reuse{fill:#ff7b72}.unknown,.expired{fill:#9198a1}}"""


def picture(_: str = "") -> str:
    """Return the SVG. It has a ground of its own, so that it can be read on any page."""
    found = steps()
    lines = dict.fromkeys((step.before, step.after) for step in found)
    parts = [_line(way, [step for step in found if (step.before, step.after) == way]) for way in lines]
    parts += [_box(*BOXES[name], "box end" if name == "none" else "box") for name in BOXES]
    said = " or ".join(sorted(expired()))
    notes = (
        "n: the counter of the refresh token that is presented. c: the counter of the session.",
        f"In every state: once the session's end has passed, any n is {said}.",
    )
    parts += [f'<text class="note" x="30" y="{472 + 20 * row}">{note}</text>' for row, note in enumerate(notes)]
    return "\n".join((_HEAD.format(label=_label(found), style=STYLE), *parts, "</svg>\n"))


_HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 510" width="960" height="510" role="img"
aria-label="{label}">
<style>{style}</style>
<defs><marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7" orient="auto">\
<path class="head" d="M0 0 10 5 0 10z"/></marker></defs>
<rect class="card" x="0.5" y="0.5" width="959" height="509" rx="8"/>"""


def _label(found: list[Step]) -> str:
    """Return the picture in words, for those who cannot see it."""
    said = (
        f"{_name(step.before)}, {step.event.replace('|', ' ')}: {step.outcome or 'then'}, {_name(step.after)}"
        for step in found
    )
    return _escaped(". ".join(said))


def _name(state: str) -> str:
    _, _, first, second = BOXES[state]
    return first if state == "none" else f"{first} ({second})"


def _box(left: int, top: int, first: str, second: str, kind: str) -> str:
    middle = left + WIDTH // 2
    return (
        f'<rect class="{kind}" x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
        f'<text class="name" x="{middle}" y="{top + 28}" text-anchor="middle">{first}</text>'
        f'<text class="note" x="{middle}" y="{top + 48}" text-anchor="middle">{second}</text>'
    )


def _line(way: tuple[str, str], along: list[Step]) -> str:
    path, left, top, anchor = LINES[way]
    words = [line for step in along for line in _words(step)]
    # words over a line end just above it, the others begin where they are put
    top -= 19 * (len(words) - 1) if top < BOXES["fresh"][1] else 0
    said = "".join(
        f'<text x="{left}" y="{top + 19 * row}" text-anchor="{anchor}">{line}</text>' for row, line in enumerate(words)
    )
    return f'<path class="line" d="{path}" marker-end="url(#head)"/>{said}'


def _words(step: Step) -> list[str]:
    words = [_escaped(word) for word in step.event.split("|")]
    if step.outcome:
        words[-1] += f': <tspan class="{step.outcome}">{step.outcome}</tspan>'
    return words


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
