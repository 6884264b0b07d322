"""New settings for a worker that serves: all that a request meets is replaced in one step of the loop.

Laws:
- Settings that cannot be used change nothing; one line says why.
- No connection is closed for it: an exchange ends under the route that it began with.
- What only a restart can change stays as it is, and a line names it.

A reload begins with SIGHUP, or with a change of one of the files that `mounted` names (watch.py).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.app import Worker
from gateway.backends import client_context
from gateway.identity import Provider, UsersFile
from gateway.keys import Keys, Rings, key_files, load
from gateway.parts import check_clients, open_provider, redis_endpoint
from gateway.sessions.connect import Credentials
from gateway.settings import Settings, SettingsError, check_files, read_users
from gateway.tls import Certificate, server_context

_LOG = logging.getLogger("gateway.reload")

# What takes effect at once. Keys in their directory, users in their file and certificates do too, though no setting
# changes.
_RELOADED: dict[str, tuple[str, ...] | None] = {
    "routes": None,
    "identity_headers": None,
    "introspection": None,
    "issuers": None,
    "identity": ("provider", "webhook_url", "users_file", "recheck_on_refresh"),
    "limits": None,
    "cors": None,
    "log": None,
    "management": ("admin_token", "admin_token_file", "admin_tokens", "admin_tokens_file"),
    "tracing": ("sample_ratio", "parents"),
    "server": (
        "trusted_proxies",
        "ignore_path_case",
        "max_connections",
        "max_header_bytes",
        "max_body_bytes",
        "header_timeout",
        "keepalive_timeout",
        "drain_delay",
        "drain_timeout",
        "tls_cert",
        "tls_key",
        "watch_files",
    ),
}
_TLS = {"tls_cert", "tls_key"}  # other files; whether the listener speaks TLS at all only a restart can change


def takes(section: str, key: str) -> bool:
    """Tell whether a reload takes up a change of this key; the reference says so of every key."""
    taken = _RELOADED.get(section, ())
    return taken is None or key in taken


def merge(old: Settings, new: Settings) -> tuple[Settings, list[str]]:
    """Return the settings that a reload leads to, and the dotted keys that a restart is needed for."""
    sections: dict[str, Any] = {}
    left: list[str] = []
    for name in Settings.model_fields:
        before, after, taken = getattr(old, name), getattr(new, name), _RELOADED.get(name, ())
        if taken is None:
            sections[name] = after
        elif not hasattr(before, "model_copy"):
            left += [name] if before != after else []
        else:
            if name == "server" and (before.tls_cert is None) != (after.tls_cert is None):
                taken = tuple(key for key in taken if key not in _TLS)
            if name == "redis":
                taken = _read_by_connections(old, new)
            sections[name] = before.model_copy(update={key: getattr(after, key) for key in taken})
            left += [f"{name}.{key}" for key in _differing(before, after) if key not in taken]
    return old.model_copy(update=sections), left


def _differing(before: Any, after: Any) -> Iterator[str]:
    for key in type(before).model_fields:
        if getattr(before, key) != getattr(after, key):
            yield key


def _read_by_connections(old: Settings, new: Settings) -> tuple[str, ...]:
    """Return the keys whose files each new connection to Redis reads by itself (sessions/endpoint.py).

    Not a URL that leads elsewhere: while some connections stand at one Redis and some at another, a session that was
    ended here would go on there. Raises SettingsError for a URL that is none.
    """
    before, after = old.redis, new.redis
    taken = [
        key
        for key in ("password", "sentinel_password")
        if (file := getattr(after, f"{key}_file")) is not None and file == getattr(before, f"{key}_file")
    ]
    if before.url != after.url and after.url_file is not None and after.url_file == before.url_file:
        there, here = (replace(redis_endpoint(each), auth=Credentials()) for each in (old, new))
        taken += ["url"] if there == here else []
    return tuple(taken)


def mounted(settings: Settings, config: Path | None) -> list[Path]:
    """Return the files whose change is followed by a reload, beside the keys, which each worker watches by itself."""
    server, redis, management = settings.server, settings.redis, settings.management
    files: list[Path | None] = [config, server.tls_cert, server.tls_key, settings.tracing.headers_file]
    files += [management.admin_token_file, management.admin_tokens_file]
    files += [redis.url_file, redis.password_file, redis.sentinel_password_file]
    files += [settings.identity.users_file, settings.introspection.clients_file]
    for route in settings.routes:
        files += [route.upstream_ca, route.upstream_cert, route.upstream_key]
    files += [issuer.jwks_ca for issuer in settings.issuers]
    return [file for file in files if file is not None]


def check_usable(settings: Settings) -> None:
    """Read whatever the workers will, in the process that has none of it. Raises SettingsError, ValueError, OSError."""
    _check(settings)
    load(settings, key_files(settings))
    if settings.identity.provider == "users-file":
        UsersFile.load(read_users(settings))
    for route in settings.routes:
        if route.upstream[0].scheme == "https":
            client_context(route.upstream_ca, route.upstream_cert, route.upstream_key)


async def reload(
    worker: Worker,
    read: Callable[[], Settings],
    certificate: Certificate | None = None,
    is_news: Callable[[str], bool] = lambda _: True,
) -> bool:
    """Take up the settings, keys, users and certificate as they are by now; False where they cannot be used.

    `certificate` is the listener's, None where it speaks no TLS. `is_news` tells whether a reason why not is logged.
    """
    try:
        settings, provider, rings, context = await asyncio.to_thread(_read, read, worker.keys)
        try:
            merged, left = merge(worker.settings, settings)
            worker.take_up(merged, provider, rings)
        except BaseException:
            worker.keys.drop(rings)
            await provider.close()
            raise
    except (SettingsError, ValueError, OSError) as error:
        reason = why(error)
        if is_news(reason):
            refused(reason)
    else:
        if certificate is not None and context is not None:
            certificate.replace(context)
        if left:
            _LOG.warning("settings that a restart is needed for have changed", extra={"keys": " ".join(left)})
        _LOG.info("the configuration was reloaded", extra={"routes": len(merged.routes)})
        return True
    return False


def _read(read: Callable[[], Settings], keys: Keys) -> tuple[Settings, Provider, Rings, ssl.SSLContext | None]:
    settings = read()
    context = _check(settings)
    rings = keys.read()
    try:
        return settings, open_provider(settings), rings, context
    except BaseException:
        keys.drop(rings)
        raise


def _check(settings: Settings) -> ssl.SSLContext | None:
    check_files(settings)
    check_clients(settings)
    server = settings.server
    return server_context(server.tls_cert, server.tls_key) if server.tls_cert and server.tls_key else None


def why(error: Exception) -> str:
    """Return what is wrong, in one line."""
    return "; ".join(error.lines) if isinstance(error, SettingsError) else str(error)


def refused(reason: str) -> None:
    """Say in one line why nothing has changed."""
    _LOG.error("the configuration was not reloaded", extra={"reason": reason})
