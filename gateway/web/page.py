"""What every page has: its frame, its headers, and the static files beside it.

Everything is served from here and nothing is inline, so that the policy can forbid the rest (CSP level 3). A page
works without its script.
"""

from __future__ import annotations

from html import escape
from importlib import resources

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),  # with no-referrer a form's Origin would be null
    (b"cross-origin-opener-policy", b"same-origin"),
)
TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


def page(title: str, content: str, *, head: str = "") -> bytes:
    """Return an HTML document. `title` is text; `content` and `head` are HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n"
        '<link rel="icon" href="/auth/account/icon.svg">\n'
        '<link rel="stylesheet" href="/auth/account/account.css">\n'
        '<script src="/auth/account/account.js" defer></script>\n'
        f"{head}</head>\n<body>\n<main>\n{content}</main>\n</body>\n</html>\n"
    ).encode()


def static(name: str) -> tuple[bytes, str] | None:
    """Return (content, media type) of a static file, None where there is none of this name."""
    kind = TYPES.get(name.rpartition(".")[2])
    if kind is None or not name.replace(".", "", 1).isalnum() or not name.isascii():
        return None
    file = resources.files("gateway.web") / "static" / name
    return (file.read_bytes(), kind) if file.is_file() else None
