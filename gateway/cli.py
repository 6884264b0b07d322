"""The command line. Every command imports what it needs when it runs, so that `--help` answers at once.

What a command has to say goes to standard output, what is wrong to standard error, one line each; the
exit status is 1 where something is wrong and 2 where the command line itself is.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway import __version__
from gateway.operators import audit, hash_token, sessions
from gateway.terminal import (
    config_option,
    explain,
    load_settings,
    plain,
    print_table,
    told,
    with_store,
)

if TYPE_CHECKING:
    from gateway.settings import Settings

ALGORITHMS = ("ES256", "ES384", "EdDSA", "RS256", "PS256", "HS256")  # a test holds it against the keyring's


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tokengate", message="%(prog)s %(version)s")
def main() -> None:
    """An authenticating reverse proxy: sessions, access tokens, refresh tokens, exact revocation."""


@main.command()
def demo() -> None:
    """Serve the gateway, an embedded store and a sample backend on this machine."""
    with told():
        from gateway.server import demo as run

        sys.exit(run())


@main.command()
@config_option
@click.option("--workers", type=click.IntRange(1, 256), help="Processes, in place of server.workers.")
def serve(path: Path | None, workers: int | None) -> None:
    """Serve until a signal ends it."""
    with told(path):
        from gateway.server import serve as run

        settings = load_settings(path, {} if workers is None else {"TOKENGATE_SERVER__WORKERS": str(workers)})
        _check_files(settings)
        _check_tracing(settings)
        sys.exit(run(settings, path, settings.server.workers))


@main.command()
@config_option
def check(path: Path | None) -> None:
    """Validate the file and the keys, reach Redis and the JWKS; say what is wrong and where."""
    with told(path):
        settings = load_settings(path)
    click.echo(f"ok     configuration  {path or 'the environment'}")
    failed = False
    for name, run in _CHECKS.items():
        try:
            click.echo(f"ok     {name:13}  {plain(run(settings))}")
        except Exception as error:
            failed = True
            lines = explain(error)
            if lines is None:
                raise
            for line in lines:
                click.echo(f"wrong  {name:13}  {plain(line)}")
    sys.exit(1 if failed else 0)


@main.group()
def keys() -> None:
    """Signing keys."""


@keys.command("new")
@click.option("--alg", "algorithm", type=click.Choice(ALGORITHMS), help="Of a signing key; ES256 by default.")
@click.option("--refresh", is_flag=True, help="A refresh-token key alone.")
@click.option("--out", "directory", type=click.Path(path_type=Path, file_okay=False), required=True)
def new_key(algorithm: str | None, directory: Path, *, refresh: bool) -> None:
    """Write a new signing key, and a refresh-token key where the directory has none.

    A key verifies once it is read, and signs tokens.publish_before after it was made. Its file name is its kid.
    """
    if refresh and algorithm is not None:
        raise click.UsageError("give either --alg or --refresh: a refresh-token key has one algorithm")
    with told():
        from gateway.keys import make

        for path in make(directory, None if refresh else algorithm or ALGORITHMS[0], time.time()):
            click.echo(path)


@keys.command("list")
@config_option
def list_keys(path: Path | None) -> None:
    """List the keys: which one signs, from when each does, and from when its file may be removed."""
    with told(path):
        from gateway.keys import COLUMNS, rows

        print_table(COLUMNS, rows(load_settings(path), time.time()))


@keys.command("prune")
@config_option
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
def prune_keys(path: Path | None, *, dry_run: bool) -> None:
    """Remove the files of keys that no living token needs any more, and of no other; print their paths."""
    with told(path):
        from gateway.keys import prune

        for removed in prune(load_settings(path), time.time(), dry_run=dry_run):
            click.echo(removed)


@main.command("hash-password")
def hash_password() -> None:
    """Print the argon2id hash of a password, for a users file; read it from a prompt or from standard input."""
    with told():
        from gateway.identity import passwords

        if sys.stdin.isatty():
            password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        else:
            password = sys.stdin.read(passwords.LONGEST_PASSWORD + 3).removesuffix("\n").removesuffix("\r")
        if "\n" in password:
            raise click.ClickException("a password is one line")
        click.echo(passwords.hash_password(password))


@main.command()
def schema() -> None:
    """Print the JSON Schema of the configuration."""
    from gateway.settings import Settings

    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    click.echo(json.dumps(dialect | Settings.model_json_schema(), indent=2))


@main.command()
@click.option("--management", "of_management", is_flag=True, help="That of the management listener.")
def openapi(of_management: bool) -> None:
    """Print the OpenAPI 3.1 description of the HTTP API."""
    from gateway.api.openapi import document
    from gateway.api.openapi_management import management

    click.echo(json.dumps(management() if of_management else document(), indent=2))


# --- what `check` looks at: each returns what it found, or raises what is wrong ---


def _check_files(settings: Settings) -> str:
    from gateway.settings import check_files

    check_files(settings)
    return "all there, no secret open to everyone"


def _check_keys(settings: Settings) -> str:
    from gateway.keys import load_directory, moment

    now, rings = time.time(), load_directory(settings)
    signing, refresh = rings.access.signing_at(now), rings.refresh.signing_at(now)
    waiting = [
        f"{key.kid} from {moment(due)} on"
        for ring in rings.by_kind().values()
        for key, due in ring.schedule.waiting(now)
    ]
    said = f"{signing.kid} signs with {signing.algorithm}, {refresh.kid} makes refresh tokens"
    return "; ".join([said, *waiting])


def _check_tls(settings: Settings) -> str:
    server = settings.server
    if server.tls_cert is None or server.tls_key is None:
        return "off: the listener speaks plain HTTP"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(server.tls_cert, server.tls_key)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"server.tls_cert: does not go with server.tls_key: {error}") from None
    return str(server.tls_cert)


def _check_backends(settings: Settings) -> str:
    from gateway.backends import client_context

    secure = [(n, route) for n, route in enumerate(settings.routes) if route.upstream[0].scheme == "https"]
    for position, route in secure:
        try:
            client_context(route.upstream_ca, route.upstream_cert, route.upstream_key)
        except ValueError as error:
            raise ValueError(f"routes.{position}.{error}") from None
    return f"{len(settings.routes)} routes, {len(secure)} of them to https"


def _check_identity(settings: Settings) -> str:
    from gateway.parts import open_provider

    async def open_and_close() -> str:
        provider = open_provider(settings)
        await provider.close()
        return str(settings.identity.users_file or settings.identity.webhook_url)

    try:
        return asyncio.run(open_and_close())
    except ValueError as error:
        raise ValueError(f"identity.users_file: {error}") from None


def _check_clients(settings: Settings) -> str:
    from gateway.parts import check_clients

    check_clients(settings)
    return f"{len(settings.introspection.clients)} clients"


def _check_tracing(settings: Settings) -> str:
    from gateway.parts import check_tracing

    check_tracing(settings)
    section = settings.tracing
    return f"{section.sample_ratio:.4g} of requests, to {section.endpoint}" if section.endpoint else "off"


def _check_redis(settings: Settings) -> str:
    with_store(settings, lambda store: store.ping())
    return "answers"


def _check_jwks(settings: Settings) -> str:
    from gateway.issuers import check_keys

    async def fetch() -> list[int]:
        return [len(await check_keys(position, issuer)) for position, issuer in enumerate(settings.issuers)]

    found = asyncio.run(fetch())
    return f"{len(found)} other issuers" + (f", {sum(found)} keys" if found else "")


_CHECKS: dict[str, Callable[[Settings], str]] = {
    "files": _check_files,
    "keys": _check_keys,
    "tls": _check_tls,
    "backends": _check_backends,
    "identity": _check_identity,
    "introspection": _check_clients,
    "tracing": _check_tracing,
    "redis": _check_redis,
    "jwks": _check_jwks,
}


main.add_command(audit)
main.add_command(hash_token)
main.add_command(sessions)
