"""The places of a page that are made: what stands between `<!-- name -->` and `<!-- /name -->`."""

from __future__ import annotations


def between(text: str, name: str, made: str) -> str:
    """Return the text with `made` in the place of that name. Raises ValueError where it is not there just once."""
    first, last = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if text.count(first) != 1 or text.count(last) != 1:
        raise ValueError(f"there must be one {first.strip()} and one {last} after it")
    before, _, rest = text.partition(first)
    _, found, after = rest.partition(last)
    if not found:
        raise ValueError(f"{last} must come after {first.strip()}")
    return f"{before}{first}{made.strip()}\n{last}{after}"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table of Markdown. No cell may hold a line's end."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
