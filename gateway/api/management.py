"""The management listener's application. It is never exposed to clients."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette

from gateway.api import admin, health
from gateway.api.answers import Table, application
from gateway.api.oauth import Revoker
from gateway.grants import Grants
from gateway.sessions.store import SessionStore
from gateway.telemetry import Telemetry

HEALTH: Table = {
    "/livez": {"GET": health.livez},
    "/readyz": {"GET": health.readyz},
    "/metrics": {"GET": health.metrics},
}
ADMIN: Table = {
    "/admin/users/{subject:path}/sessions": {
        "GET": admin.guarded(admin.list_sessions),
        "DELETE": admin.guarded(admin.end_sessions),
    },
    "/admin/sessions/{session_id}": {"DELETE": admin.guarded(admin.end_session)},
    "/admin/revoke": {"POST": admin.guarded(admin.revoke)},
    "/admin/keys/reload": {"POST": admin.guarded(admin.reload_keys)},
}


@dataclass(frozen=True, slots=True, eq=False)
class Management:
    """What the management API needs; made by app.py.

    `failing()` names what keeps this replica from being ready. `reload_keys()` reads the key directory
    again and returns what to tell of it; it raises BadKey and changes nothing where a file is bad. `admins()` returns
    the SHA-256 digests of the admin tokens by whose they are, "admin" or "admin:NAME"; a reload may change them.
    Without any there is no admin API.
    """

    grants: Grants
    store: SessionStore
    revoker: Revoker
    telemetry: Telemetry
    failing: Callable[[], Iterable[str]]
    reload_keys: Callable[[], Awaitable[Mapping[str, Any]]]
    admins: Callable[[], Mapping[str, bytes]] = field(default=dict, repr=False)
    realm: str = "tokengate"
    clock: Callable[[], float] = time.time


def create_management(site: Management) -> Starlette:
    """Return the application of contract section 7."""
    return application(site, {**HEALTH, **ADMIN})
