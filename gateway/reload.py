"""New settings for a worker that serves: all that a request meets is replaced in one step of the loop.

Laws:
- Settings that cannot be used change nothing; one line says why.
- No connection is closed for it: an exchange ends under the route that it began with.
- What only a restart can change stays as it is, and a line names it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterator
from typing import Any

from gateway.app import Worker
from gateway.identity import Provider
from gateway.parts import open_provider
from gateway.settings import Settings, SettingsError, check_files
from gateway.tls import Certificate, server_context
from gateway.tokens.keyring import BadKey

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
    "log": None,
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
    ),
}
_TLS = {"tls_cert", "tls_key"}  # other files; whether the listener speaks TLS at all only a restart can change


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
            sections[name] = before.model_copy(update={key: getattr(after, key) for key in taken})
            left += [f"{name}.{key}" for key in _differing(before, after) if key not in taken]
    return old.model_copy(update=sections), left


def _differing(before: Any, after: Any) -> Iterator[str]:
    for key in type(before).model_fields:
        if getattr(before, key) != getattr(after, key):
            yield key


async def reload(worker: Worker, read: Callable[[], Settings], certificate: Certificate | None = None) -> bool:
    """Take up the settings, keys, users and certificate as they are by now; False where they cannot be used.

    `certificate` is the listener's, None where it speaks no TLS.
    """
    try:
        settings, provider, context = await asyncio.to_thread(_read, read)
        merged, left = merge(worker.settings, settings)
        try:
            worker.take_up(merged, provider)
        except BaseException:
            await provider.close()
            raise
    except SettingsError as error:
        refused("; ".join(error.lines))
    except (BadKey, ValueError, OSError) as error:
        refused(str(error))
    else:
        if certificate is not None and context is not None:
            certificate.replace(context)
        if left:
            _LOG.warning("settings that a restart is needed for have changed", extra={"keys": " ".join(left)})
        _LOG.info("the configuration was reloaded", extra={"routes": len(merged.routes)})
        return True
    return False


def _read(read: Callable[[], Settings]) -> tuple[Settings, Provider, ssl.SSLContext | None]:
    settings = read()
    check_files(settings)
    server = settings.server
    context = server_context(server.tls_cert, server.tls_key) if server.tls_cert and server.tls_key else None
    return settings, open_provider(settings), context


def refused(reason: str) -> None:
    """Say in one line why nothing has changed."""
    _LOG.error("the configuration was not reloaded", extra={"reason": reason})
