"""What the commands share: the configuration, the store, and how they speak to whoever sits there."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from gateway.sessions.store import SessionStore
    from gateway.settings import Settings

T = TypeVar("T")

config_option = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="TOKENGATE_CONFIG",
    show_envvar=True,
    help="The TOML file; without one the environment alone counts.",
)


def load_settings(path: Path | None, overrides: Mapping[str, str] | None = None) -> Settings:
    from gateway.settings import load

    return load(path, {**os.environ, **(overrides or {})})


def shared(settings: Settings) -> Settings:
    """Return settings whose store other processes see too. Raises ValueError."""
    if settings.redis.url.get_secret_value().startswith("memory://"):
        raise ValueError("redis.url: memory:// lives in the serving process; a store that this one can reach is needed")
    return settings


def with_client(settings: Settings, ask: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """Open a client of the Redis, ask it and close it again. Raises StoreUnavailable, SettingsError, OSError."""
    from gateway.parts import redis_endpoint
    from gateway.sessions.connect import open_client

    endpoint = redis_endpoint(settings)

    async def run() -> T:
        client = open_client(endpoint, settings.redis.timeout)
        try:
            return await ask(client)
        finally:
            await client.aclose()

    return asyncio.run(run())


def with_store(settings: Settings, ask: Callable[[SessionStore], Coroutine[Any, Any, T]]) -> T:
    """Open the store, ask it and close it again. Raises as `with_client`."""
    from gateway.parts import open_store

    return with_client(settings, lambda client: ask(open_store(settings, client)))


@contextmanager
def told(path: Path | None = None) -> Iterator[None]:
    """Turn what an operator can mend into lines and exit status 1; a defect of ours keeps its traceback."""
    try:
        yield
    except Exception as error:
        lines = explain(error)
        if lines is None:
            raise
        for line in lines:
            click.echo(plain(f"{path}: {line}" if path else line), err=True)
        sys.exit(1)


def explain(error: Exception) -> list[str] | None:
    """Return what an operator can mend, None for a defect or for click's own exceptions."""
    from gateway.errors import StoreUnavailable
    from gateway.settings import SettingsError

    match error:
        case SettingsError():
            return error.lines
        case StoreUnavailable():
            return [f"Redis does not answer: {error.reason}"]
        case ValueError() | OSError():
            return [_reason(error)]
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def time_text(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}" if seconds else "never"


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [[plain(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def plain(text: str) -> str:
    """Return a text that says nothing to a terminal: devices and addresses are what a client sent."""
    return "".join(char if char.isprintable() else "?" for char in text)
