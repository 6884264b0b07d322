"""The files of the demo's page, under the policy of the gateway's own pages: nothing inline, nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from gateway.errors import Headers
from gateway.web.page import HEADERS, TYPES

_PACKAGE = Path(__file__).parent
SITE = _PACKAGE / "site"
PAGE = "index.html"


def client() -> Path:
    """Return the folder of the JavaScript client: inside the package in a wheel, beside it in a checkout."""
    installed = _PACKAGE / "client"
    return installed if installed.exists() else _PACKAGE.parent.parent / "clients" / "javascript" / "src"


def find(path: str, *, live: bool) -> tuple[bytes, Headers] | None:
    """Return (content, headers) of what stands at a path, None where nothing does.

    `/` is the page, `/demo/NAME` one of its files, `/client/NAME` one of the client's. `live` is whether the backend
    can serve WebSockets; the page says it where not.
    """
    if path == "/":
        return (SITE / PAGE).read_bytes().replace(b"{live}", b"yes" if live else b"no"), list(HEADERS)
    _, _, rest = path.partition("/")
    folder, _, name = rest.partition("/")
    where = {"demo": SITE, "client": client()}.get(folder)
    kind = TYPES.get(name.rpartition(".")[2])
    if where is None or kind is None or "/" in name or not (where / name).is_file():
        return None
    return (where / name).read_bytes(), [
        (b"content-type", kind.encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
